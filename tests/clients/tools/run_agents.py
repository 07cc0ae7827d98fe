"""Runs OpenAI's Agents SDK over Responses and over chat completions."""

import asyncio
import base64
import json
import pathlib
import sys

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    SQLiteSession,
    set_tracing_disabled,
)
from openai import APIStatusError, AsyncOpenAI
from pydantic import BaseModel

base_url, key, model, image = sys.argv[1:]
URL = "data:image/png;base64," + base64.b64encode(pathlib.Path(image).read_bytes()).decode()
set_tracing_disabled(True)


class Count(BaseModel):
    """The number of things."""

    count: int


def question(text: str) -> dict[str, object]:
    """Return a turn with the image."""
    content = [
        {"type": "input_text", "text": text},
        {"type": "input_image", "image_url": URL, "detail": "auto"},
    ]
    return {"role": "user", "content": content}


async def refused(client: AsyncOpenAI, name: str, **settings: object) -> str:
    """Return the message of the error that the user sees."""
    chosen = OpenAIResponsesModel(model=name, openai_client=client)
    agent = Agent(name="a", model=chosen, model_settings=ModelSettings(**settings))
    try:
        await Runner.run(agent, "How many?")
    except APIStatusError as error:
        return str(error)
    raise AssertionError(settings)


async def of_api(chosen: object) -> dict[str, object]:
    """Return what one of the two APIs gives."""
    agent = Agent(name="a", model=chosen)
    stream = Runner.run_streamed(agent, "How many?")
    kinds = {getattr(event, "name", event.type) async for event in stream.stream_events()}
    typed = await Runner.run(Agent(name="a", model=chosen, output_type=Count), "How many?")
    first = await Runner.run(agent, [question("How many?")])
    second = await Runner.run(agent, [*first.to_input_list(), question("And how many here?")])
    streamed = Runner.run_streamed(
        Agent(name="a", model=chosen, output_type=list[Count]), [question("How many?")]
    )
    counts = [event.type async for event in streamed.stream_events()]
    session = SQLiteSession("a")
    await Runner.run(agent, "How many?", session=session)
    remembered = await Runner.run(agent, "Sure?", session=session)
    trace = [item for item in first.new_items if item.type == "reasoning_item"]
    return {
        "text": (await Runner.run(agent, "How many?")).final_output,
        "stream": stream.final_output,
        "events": sorted(kinds),
        "structured": typed.final_output.model_dump(),
        "image": first.final_output,
        "second_turn": second.final_output,
        "streamed_object": isinstance(streamed.final_output, list) and len(counts),
        "session": remembered.final_output,
        "trace": json.dumps([item.raw_item.model_dump() for item in trace]),
    }


async def main() -> None:
    """Ask."""
    client = AsyncOpenAI(base_url=base_url, api_key=key)
    wrong = AsyncOpenAI(base_url=base_url, api_key="wrong")
    chat = await of_api(OpenAIChatCompletionsModel(model=model, openai_client=client))
    responses = await of_api(OpenAIResponsesModel(model=model, openai_client=client))
    agent = Agent(name="a", model=OpenAIResponsesModel(model=model, openai_client=client))
    first = await Runner.run(agent, [question("How many?")])
    named = await Runner.run(agent, "Sure?", previous_response_id=first.last_response_id)
    errors = {
        "previous_response": named.final_output,
        "wrong_key": await refused(wrong, model),
        "wrong_model": await refused(client, "wrong"),
        "refused": await refused(client, model, top_logprobs=2),
    }
    print(json.dumps(chat | {f"responses_{name}": it for name, it in responses.items()} | errors))


asyncio.run(main())
