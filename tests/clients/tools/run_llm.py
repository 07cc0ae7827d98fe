"""Runs the ``llm`` command: text, stream, and a schema."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

base_url, key, model = sys.argv[1:]
folder = pathlib.Path(tempfile.mkdtemp())
entries = [
    f"- model_id: {name}\n  model_name: {model}\n  api_base: {base_url}\n  api_key_name: longlook\n  vision: true\n"
    f"  supports_schema: true\n{more}"
    for name, more in (("chat", ""), ("responses", "  responses: true\n"))
]
(folder / "extra-openai-models.yaml").write_text("".join(entries))
(folder / "keys.json").write_text(json.dumps({"longlook": key}))


def run(*arguments: str) -> str:
    """Return what the command prints."""
    command = [sys.executable, "-m", "llm", *arguments]
    environment = os.environ | {"LLM_USER_PATH": str(folder)}
    return subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()


print(
    json.dumps(
        {
            "text": run("-m", "chat", "--no-stream", "How many?"),
            "stream": run("-m", "chat", "How many?"),
            "structured": json.loads(run("-m", "chat", "--schema", "count int", "How many?")),
            "responses": run("-m", "responses", "How many?"),
        }
    )
)
