"""Runs OpenAI's Agents SDK: text, stream, and a schema, over Responses and over chat completions."""

import asyncio
import json
import sys

from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel

base_url, key, model = sys.argv[1:]
set_tracing_disabled(True)


class Count(BaseModel):
    """The number of things."""

    count: int


async def main() -> None:
    """Ask."""
    client = AsyncOpenAI(base_url=base_url, api_key=key)
    chat = OpenAIChatCompletionsModel(model=model, openai_client=client)
    responses = OpenAIResponsesModel(model=model, openai_client=client)
    stream = Runner.run_streamed(Agent(name="a", model=chat), "How many?")
    async for _ in stream.stream_events():
        pass
    typed = await Runner.run(Agent(name="a", model=chat, output_type=Count), "How many?")
    print(
        json.dumps(
            {
                "text": (await Runner.run(Agent(name="a", model=chat), "How many?")).final_output,
                "stream": stream.final_output,
                "structured": typed.final_output.model_dump(),
                "responses": (
                    await Runner.run(Agent(name="a", model=responses), "How many?")
                ).final_output,
            }
        )
    )


asyncio.run(main())
