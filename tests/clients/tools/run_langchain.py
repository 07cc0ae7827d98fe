"""Runs LangChain's ``ChatOpenAI`` over chat completions and over Responses."""

import base64
import json
import pathlib
import sys

from langchain_openai import ChatOpenAI
from openai import APIStatusError
from pydantic import BaseModel

base_url, key, model, image = sys.argv[1:]
URL = "data:image/png;base64," + base64.b64encode(pathlib.Path(image).read_bytes()).decode()


class Count(BaseModel):
    """The number of things."""

    count: int


def refused(**options: object) -> str:
    """Return the message of the error that the user sees."""
    try:
        ChatOpenAI(**{"base_url": base_url, "api_key": key, "model": model} | options).invoke(
            "How?"
        )
    except APIStatusError as error:
        return str(error)
    raise AssertionError(options)


def question(text: str) -> tuple[str, list[dict[str, object]]]:
    """Return a turn with the image."""
    return "user", [
        {"type": "text", "text": text},
        {"type": "image_url", "image_url": {"url": URL}},
    ]


chat = ChatOpenAI(base_url=base_url, api_key=key, model=model)
responses = ChatOpenAI(base_url=base_url, api_key=key, model=model, use_responses_api=True)
summaries = ChatOpenAI(base_url=base_url, api_key=key, model=model, reasoning={"summary": "auto"})
background = responses.bind(extra_body={"options": {"samples": 2}})
turns = [question("How many?"), ("assistant", "4"), question("And how many here?")]
pieces = [block for chunk in summaries.stream("How many?") for block in chunk.content_blocks]
print(
    json.dumps(
        {
            "text": chat.invoke("How many?").text,
            "stream": "".join(chunk.text for chunk in chat.stream("How many?")),
            "batch": [answer.text for answer in chat.batch(["How many?", "How many?"])],
            "structured": chat.with_structured_output(Count).invoke("How many?").model_dump(),
            "responses": responses.invoke("How many?").text,
            "responses_stream": "".join(chunk.text for chunk in responses.stream("How many?")),
            "responses_trace": "".join(piece.get("reasoning", "") for piece in pieces),
            "responses_structured": responses.with_structured_output(Count)
            .invoke("How many?")
            .model_dump(),
            "options": background.invoke("How many?").text,
            "image": chat.invoke([question("How many?")]).text,
            "responses_image": responses.invoke([question("How many?")]).text,
            "second_turn": chat.invoke(turns).text,
            "responses_second_turn": responses.invoke(turns).text,
            "wrong_key": refused(api_key="wrong"),
            "wrong_model": refused(model="wrong"),
            "refused": refused(frequency_penalty=1),
        }
    )
)
