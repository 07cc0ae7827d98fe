"""Runs LangChain's ``ChatOpenAI`` over chat completions and over Responses."""

import asyncio
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


async def asynchronous(*models: ChatOpenAI) -> list[str]:
    """Return the answers of the asynchronous methods; the models share connections, so they need one event loop."""
    answers: list[str] = []
    for chosen in models:
        answers += [(await chosen.ainvoke("How many?")).text]
        answers += ["".join([chunk.text async for chunk in chosen.astream("How many?")])]
        answers += [answer.text for answer in await chosen.abatch(["How many?", "How many?"])]
    return answers


def objects(chosen: ChatOpenAI) -> list[object]:
    """Return an object for each kind of schema and each method that needs no tools."""
    schema = {"title": "Count", **Count.model_json_schema()}
    kinds = [
        chosen.with_structured_output(Count, method="json_schema", strict=True),
        chosen.with_structured_output(schema, method="json_schema"),
        chosen.with_structured_output(schema, method="json_mode"),
    ]
    parsed = [kind.invoke("How many? Answer in JSON.") for kind in kinds]
    *_, last = chosen.with_structured_output(Count).stream("How many?")
    raw = chosen.with_structured_output(Count, include_raw=True).invoke([question("How many?")])
    return [*map(str, parsed), str(last), raw["parsing_error"] is None]


chat = ChatOpenAI(base_url=base_url, api_key=key, model=model)
responses = ChatOpenAI(base_url=base_url, api_key=key, model=model, use_responses_api=True)
summaries = ChatOpenAI(base_url=base_url, api_key=key, model=model, reasoning={"summary": "auto"})
background = responses.bind(extra_body={"options": {"samples": 2}})
continued = ChatOpenAI(
    base_url=base_url,
    api_key=key,
    model=model,
    use_responses_api=True,
    use_previous_response_id=True,
)
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
            "objects": objects(chat),
            "responses_objects": objects(responses),
            "asynchronous": asyncio.run(asynchronous(chat, responses)),
            "continued": continued.invoke(
                [
                    question("How many?"),
                    continued.invoke([question("How many?")]),
                    ("user", "Sure?"),
                ]
            ).text,
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
