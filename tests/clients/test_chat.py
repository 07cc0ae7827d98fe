"""Chat completions as the official Python client sees them: whole, in chunks, and when they fail."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from tests.api import image_files
from tests.clients.service import Service

pytestmark = pytest.mark.e2e

IMAGE = image_files.data_url(image_files.png())


class Count(BaseModel):
    """What a structured answer has."""

    count: int


def user(text: str, *images: str) -> dict[str, Any]:
    """Return a message of the user."""
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": image}} for image in images
    ]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def ask(client: openai.OpenAI, text: str = "How many circles?", **fields: Any) -> ChatCompletion:  # noqa: ANN401 - the client's own
    """Ask about an image."""
    answer: ChatCompletion = client.chat.completions.create(
        **{"model": client.models.list().data[0].id, "messages": [user(text, IMAGE)]} | fields
    )
    return answer


def stream(client: openai.OpenAI, **fields: Any) -> list[ChatCompletionChunk]:  # noqa: ANN401 - the client's own
    """Return all chunks of an answer."""
    return list(ask(client, stream=True, **fields))  # type: ignore[arg-type] # a stream


class TestWhole:
    def test_an_answer_has_its_trace_its_finish_reason_and_its_usage(
        self, service: Service, client: openai.OpenAI
    ) -> None:
        answer = ask(client)
        [choice] = answer.choices
        assert answer.id.startswith("chatcmpl-")
        assert answer.model == service.model
        assert choice.finish_reason == "stop"
        assert choice.message.content
        assert choice.message.reasoning_content  # type: ignore[attr-defined] # not OpenAI's
        assert "reasoning" not in choice.message.model_dump()
        usage = answer.usage
        assert usage is not None
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
        assert usage.completion_tokens > 0
        assert usage.prompt_tokens_details is not None
        assert usage.completion_tokens_details is not None
