"""Runs the ``llm`` command over chat completions and over Responses."""

import asyncio
import json
import os
import pathlib
import sys
import tempfile

import llm
from click.testing import CliRunner, Result
from llm.cli import cli

base_url, key, model, image = sys.argv[1:]
folder = pathlib.Path(tempfile.mkdtemp())
ENTRY = """
- model_id: {name}
  model_name: {model}
  api_base: {base_url}
  api_key_name: longlook
  vision: true
  supports_schema: true
  responses: {responses}
"""
entries = [("chat", model, "false"), ("responses", model, "true"), ("wrong", "wrong", "false")]
(folder / "extra-openai-models.yaml").write_text(
    "".join(
        ENTRY.format(name=name, model=served, base_url=base_url, responses=responses)
        for name, served, responses in entries
    )
)
(folder / "keys.json").write_text(json.dumps({"longlook": key}))


def start(*arguments: str) -> Result:
    """Run the command in this process: each start of it takes seconds."""
    return CliRunner().invoke(cli, arguments, env={"LLM_USER_PATH": str(folder)})


def run(*arguments: str) -> str:
    """Return what the command prints."""
    completed = start(*arguments)
    if completed.exit_code:
        raise AssertionError(completed.output)
    return completed.stdout.strip()


def refused(*arguments: str) -> str:
    """Return the error that the command prints."""
    completed = start(*arguments)
    if completed.exit_code == 0:
        raise AssertionError(completed.stdout)
    return completed.stderr


async def asynchronous(name: str) -> str:
    """Return what the asynchronous Python interface gives: an object about the image, as a stream."""
    os.environ["LLM_USER_PATH"] = str(folder)
    attachment = llm.Attachment(path=image)
    schema = llm.schema_dsl("count int")
    chosen = llm.get_async_model(name)
    response = chosen.prompt("How many?", attachments=[attachment], schema=schema)
    return "".join([chunk async for chunk in response])


responses = start("-m", "responses", "-a", image, "How many?")
print(
    json.dumps(
        {
            "text": run("-m", "chat", "--no-stream", "How many?"),
            "stream": run("-m", "chat", "How many?"),
            "structured": json.loads(run("-m", "chat", "--schema", "count int", "How many?")),
            "responses": responses.stdout.strip(),
            "responses_trace": responses.stderr,
            "responses_structured": json.loads(
                run("-m", "responses", "--schema", "count int", "How many?")
            ),
            "asynchronous": json.loads(asyncio.run(asynchronous("chat"))),
            "responses_asynchronous": json.loads(asyncio.run(asynchronous("responses"))),
            "image_object": json.loads(
                run("-m", "responses", "-a", image, "--schema-multi", "count int", "How many?")
            ),
            "image": run("-m", "chat", "-a", image, "How many?"),
            "second_turn": run("-c", "-a", image, "And how many here?"),
            "wrong_key": refused("-m", "chat", "--key", "wrong", "How many?"),
            "wrong_model": refused("-m", "wrong", "How many?"),
            "refused": refused("-m", "chat", "-o", "frequency_penalty", "1", "How many?"),
        }
    )
)
