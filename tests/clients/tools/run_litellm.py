"""Runs LiteLLM over chat completions and over Responses, in the foreground and the background."""

import asyncio
import base64
import json
import pathlib
import sys
import time

import litellm
from pydantic import BaseModel

base_url, key, model, image = sys.argv[1:]
server = {"api_base": base_url, "api_key": key}
given = server | {"model": f"openai/{model}"}
URL = "data:image/png;base64," + base64.b64encode(pathlib.Path(image).read_bytes()).decode()
messages = [{"role": "user", "content": "How many?"}]
schema = {
    "type": "object",
    "properties": {"count": {"type": "integer"}},
    "required": ["count"],
    "additionalProperties": False,
}
chosen = {"type": "json_schema", "json_schema": {"name": "count", "schema": schema, "strict": True}}
text_format = {"format": {"type": "json_schema", "name": "count", "schema": schema, "strict": True}}


def question(text: str) -> dict[str, object]:
    """Return a turn with the image."""
    parts = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": URL}}]
    return {"role": "user", "content": parts}


def items(text: str) -> dict[str, object]:
    """Return a turn with the image for Responses."""
    parts = [{"type": "input_text", "text": text}, {"type": "input_image", "image_url": URL}]
    return {"role": "user", "content": parts}


def text_of(response: object, kind: str = "message") -> str:
    """Return the text of the items of a response."""
    return "".join(
        part.text for item in response.output if item.type == kind for part in item.content
    )


def refused(**options: object) -> str:
    """Return the message of the error that the user sees."""
    try:
        litellm.completion(**given | {"messages": messages, "max_retries": 0} | options)
    except litellm.exceptions.APIError as error:
        return str(error)
    except (litellm.AuthenticationError, litellm.NotFoundError, litellm.BadRequestError) as error:
        return f"{type(error).__name__} {error}"
    raise AssertionError(options)


def answered(response: object) -> object:
    """Wait for a response in the background."""
    while response.status in ("queued", "in_progress"):
        time.sleep(0.2)
        response = litellm.get_responses(response_id=response.id, **server)
    return response


class Count(BaseModel):
    """The number of things."""

    count: int


async def asynchronous() -> list[str]:
    """Return the answers of the asynchronous functions: whole and streamed, of both APIs."""
    chunks = await litellm.acompletion(**given, messages=messages, stream=True)
    events = await litellm.aresponses(**given, input="How many?", stream=True)
    return [
        (await litellm.acompletion(**given, messages=messages)).choices[0].message.content,
        "".join([chunk.choices[0].delta.content or "" async for chunk in chunks]),
        text_of(await litellm.aresponses(**given, input="How many?")),
        [event.type async for event in events][-1],
    ]


def batch() -> dict[str, object]:
    """Run a batch with the files of LiteLLM."""
    files = server | {"custom_llm_provider": "openai"}
    url = "/v1/chat/completions"
    body = {"model": model, "messages": [question("How many?")]}
    lines = [
        json.dumps({"custom_id": str(number), "method": "POST", "url": url, "body": body})
        for number in range(2)
    ]
    content = ("lines.jsonl", "\n".join(lines).encode())
    sent = litellm.create_file(file=content, purpose="batch", **files)
    made = litellm.create_batch(
        input_file_id=sent.id, endpoint=url, completion_window="24h", **files
    )
    while made.status not in ("completed", "failed", "expired", "cancelled"):
        time.sleep(0.2)
        made = litellm.retrieve_batch(batch_id=made.id, **files)
    output = litellm.file_content(file_id=made.output_file_id, **files).text
    return {
        "completed": made.request_counts.completed,
        "lines": len(output.splitlines()),
        "listed": made.id in [each.id for each in litellm.list_batches(**files).data],
        "deleted": litellm.file_delete(file_id=sent.id, **files).deleted,
    }


background = answered(litellm.responses(**given, input="How many?", background=True))
endless = "[[behavior:no_answer_at_length]] How many?"
started = litellm.responses(**given, input=endless, background=True)
cancelled = litellm.cancel_responses(response_id=started.id, **server)
deleted = litellm.delete_responses(response_id=background.id, **server)
whole = litellm.completion(**given, messages=messages)
chunks = list(litellm.completion(**given, messages=messages, stream=True))
typed = litellm.completion(**given, messages=messages, response_format=chosen)
events = list(litellm.responses(**given, input="How many?", stream=True))
response = litellm.responses(**given, input=[items("How many?")])
turns = [question("How many?"), {"role": "assistant", "content": "4"}, question("And here?")]
following = litellm.responses(
    **given, input=[items("And how many here?")], previous_response_id=response.id
)
print(
    json.dumps(
        {
            "text": whole.choices[0].message.content,
            "trace": whole.choices[0].message.reasoning_content,
            "stream": "".join(chunk.choices[0].delta.content or "" for chunk in chunks),
            "stream_trace": "".join(
                getattr(chunk.choices[0].delta, "reasoning_content", None) or "" for chunk in chunks
            ),
            "structured": json.loads(typed.choices[0].message.content),
            "pydantic": litellm.completion(**given, messages=messages, response_format=Count)
            .choices[0]
            .message.content,
            "asynchronous": asyncio.run(asynchronous()),
            "batch": batch(),
            "responses": text_of(response),
            "responses_trace": text_of(response, "reasoning"),
            "responses_stream": events[-1].type == "response.completed"
            and text_of(events[-1].response),
            "responses_structured": json.loads(
                text_of(litellm.responses(**given, input="How many?", text=text_format))
            ),
            "responses_second_turn": text_of(following),
            "background": text_of(background),
            "cancelled": cancelled.status,
            "deleted": deleted.deleted,
            "image": litellm.completion(**given, messages=turns[:1]).choices[0].message.content,
            "second_turn": litellm.completion(**given, messages=turns).choices[0].message.content,
            "wrong_key": refused(api_key="wrong"),
            "wrong_model": refused(model="openai/wrong"),
            "refused": refused(frequency_penalty=1),
        }
    )
)
