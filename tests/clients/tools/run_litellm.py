"""Runs LiteLLM: text, stream, and a schema over chat completions; Responses in the foreground and the background."""

import json
import sys
import time

import litellm

base_url, key, model = sys.argv[1:]
given = {"api_base": base_url, "api_key": key, "model": f"openai/{model}"}
messages = [{"role": "user", "content": "How many?"}]
schema = {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}
chosen = {"type": "json_schema", "json_schema": {"name": "count", "schema": schema, "strict": True}}


def text_of(response: object) -> str:
    """Return the text of a response."""
    return "".join(
        part.text for item in response.output if item.type == "message" for part in item.content
    )


created = litellm.responses(**given, input="How many?", background=True)
while created.status in ("queued", "in_progress"):
    time.sleep(0.2)
    created = litellm.get_responses(response_id=created.id, api_base=base_url, api_key=key)
whole = litellm.completion(**given, messages=messages)
chunks = litellm.completion(**given, messages=messages, stream=True)
typed = litellm.completion(**given, messages=messages, response_format=chosen)
print(
    json.dumps(
        {
            "text": whole.choices[0].message.content,
            "reasoning": whole.choices[0].message.reasoning_content,
            "stream": "".join(chunk.choices[0].delta.content or "" for chunk in chunks),
            "structured": json.loads(typed.choices[0].message.content),
            "responses": text_of(litellm.responses(**given, input="How many?")),
            "background": text_of(created),
        }
    )
)
