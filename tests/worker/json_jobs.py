"""A job with a JSON answer for tests, and the engine's side of it: the reasoning, then the answer."""

from __future__ import annotations

import uuid
from typing import Any

from jobs.engine import Chunk, TokenUsage
from tests.worker.conftest import Bench
from worker.guards import chain

BUDGET = 1000
PROPERTIES: dict[str, object] = {
    "count": {"type": "integer", "minimum": 0, "maximum": 9},
    "sure": {"type": "boolean"},
}
SCHEMA = {"type": "object", "properties": PROPERTIES, "required": ["count"]}
OPTIONS = {
    "max_output_tokens": BUDGET,
    "answer_format": {"type": "json_schema", "schema": SCHEMA},
    "guards": dict.fromkeys(chain.NAMES, True),
}


def one(part: object) -> dict[str, Any]:
    """Return a schema with one property, ``a``."""
    return {"type": "object", "properties": {"a": part}, "required": ["a"]}


def submit(bench: Bench, **options: Any) -> uuid.UUID:  # noqa: ANN401 - any option
    return bench.submit(options=OPTIONS | options)


def bill(tokens: int) -> Chunk:
    return Chunk(usage=TokenUsage(10, 5, 1, tokens))


def reason(bench: Bench, text: str = "I see six.", finish_reason: Any = "stop") -> None:  # noqa: ANN401 - its literal
    """Have the engine reason to an end."""
    bench.engine.feed(Chunk(text=text), Chunk(finish_reason=finish_reason), bill(7))
    bench.engine.feed(bench.engine.END)


def answer(bench: Bench, text: str, finish_reason: Any = "stop") -> None:  # noqa: ANN401 - its literal
    """Have the engine go on with ``text``."""
    for character in text:
        bench.engine.feed(Chunk(text=character))
    bench.engine.feed(Chunk(finish_reason=finish_reason), bill(5), bench.engine.END)
