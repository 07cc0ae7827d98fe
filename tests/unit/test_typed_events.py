"""The typed events of a response: the grammar of the official accumulators, for any order of native events."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator
from typing import Any

import openai
import pytest
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from api.openai.responses import response_object
from api.openai.responses.transcript import TypedTranscript
from jobs.store.event_log import EventKind, JobEvent

Json = dict[str, Any]
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
CREATED: Json = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "model": "m",
    "status": "queued",
    "output": [],
    "parallel_tool_calls": False,
    "tool_choice": "none",
    "tools": [],
}
LAST = {
    "completed": "response.completed",
    "failed": "response.failed",
    "incomplete": "response.incomplete",
    "cancelled": "response.incomplete",
}


def native(*kinds: EventKind | tuple[int, int, str]) -> Iterator[tuple[JobEvent, int]]:
    """Yield native events with their samples; a tuple is a delta of an attempt and a sample."""
    for number, kind in enumerate(kinds, start=1):
        if isinstance(kind, tuple):
            attempt, sample, delta = kind
            event = JobEvent(
                number, EventKind.DELTA, 0, attempt=attempt, generation=sample, delta=delta
            )
            yield event, sample
        else:
            yield JobEvent(number, kind, 0), 0


def typed(
    events: Iterable[tuple[JobEvent, int]],
    status: str,
    *,
    answer: str | None = "6",
    summarized: bool = False,
) -> list[Json]:
    """Return all events of a response."""
    transcript = TypedTranscript("1", CREATED, summarized=summarized)
    listed = list(transcript.begin())
    attempt = 1
    for event, sample in events:
        attempt = event.attempt or attempt
        listed += transcript.feed(event, sample=sample)

    def response(items: list[Json]) -> Json:
        return CREATED | {"status": status, "output": items}

    listed += transcript.end(status, answer, response, attempt=attempt)
    return listed


def check(events: list[Json]) -> Json:
    """Check the grammar, with the types and the accumulator of the official client; return the last response."""
    state: ResponseStreamState[Any] = ResponseStreamState(input_tools=[], text_format=openai.omit)
    added: dict[int, str] = {}
    done: set[int] = set()
    deltas: dict[str, str] = {}
    for number, event in enumerate(events):
        state.handle_event(EVENT.validate_python(event))
        assert event["sequence_number"] == number
        kind = event["type"]
        if kind == "response.output_item.added":
            assert event["output_index"] == len(added)
            assert event["item"]["id"] not in added.values()
            assert event["item"]["content"] == []
            added[event["output_index"]] = event["item"]["id"]
        elif kind == "response.output_item.done":
            assert event["item"]["id"] == added[event["output_index"]]
            assert event["item"]["content"][0]["text"] == deltas[event["item"]["id"]]
            done.add(event["output_index"])
        elif "item_id" in event:
            assert event["item_id"] == added[event["output_index"]]
            assert event["output_index"] not in done
            if kind in ("response.reasoning_text.delta", "response.output_text.delta"):
                deltas[event["item_id"]] = deltas.get(event["item_id"], "") + event["delta"]
        else:
            # Later ones would reset the snapshot of the JavaScript client.
            assert not added or number == len(events) - 1
    assert done == set(added)
    last: Json = events[-1]["response"]
    assert [item["id"] for item in last["output"]] == list(added.values())
    return last


QUEUED, STARTED, RESTARTED = EventKind.QUEUED, EventKind.STARTED, EventKind.RESTARTED


@pytest.mark.parametrize("summarized", [False, True])
@pytest.mark.parametrize("status", LAST)
def test_every_ending_keeps_the_grammar(status: str, *, summarized: bool) -> None:
    events = typed(
        native(QUEUED, STARTED, (1, 0, "Let "), EventKind.FINDING, (1, 0, "me")),
        status,
        summarized=summarized,
    )

    last = check(events)
    assert events[-1]["type"] == LAST[status]
    reasoning = last["output"][0]
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "Let me"}]
    assert [part["text"] for part in reasoning["summary"]] == (["Let me"] if summarized else [])
    assert reasoning["status"] == ("completed" if status == "completed" else "incomplete")
    # A message is whole, or not there.
    assert len(last["output"]) == (2 if status == "completed" else 1)


@pytest.mark.parametrize("status", LAST)
def test_a_response_may_end_before_it_begins(status: str) -> None:
    assert check(typed(native(QUEUED), status, answer=None))["output"] == []


def test_a_lost_attempt_ends_its_item_and_never_goes_back() -> None:
    events = typed(
        native(QUEUED, STARTED, (1, 0, "lost"), QUEUED, RESTARTED, (2, 0, "again")), "completed"
    )

    last = check(events)
    assert [item["status"] for item in last["output"]] == ["incomplete", "completed", "completed"]
    kinds = [event["type"] for event in events]
    assert kinds.count("response.queued") == kinds.count("response.in_progress") == 1


def test_without_the_timeline_the_events_have_the_same_numbers() -> None:
    """The timeline of an old job is removed before its text."""
    texts = [(1, 0, "lost"), (2, 0, "again"), (2, 0, ".")]
    whole = typed(native(QUEUED, STARTED, texts[0], QUEUED, RESTARTED, *texts[1:]), "completed")

    assert typed(native(*texts), "completed") == whole


@pytest.mark.parametrize("chars", [0, 1, 2047, 2048, 2049, 10_000])
def test_a_long_answer_comes_in_several_deltas(chars: int) -> None:
    answer = ("圆 🟢 6" * chars)[:chars]
    events = typed(native(QUEUED, STARTED, (1, 0, "x")), "completed", answer=answer)

    last = check(events)
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert "".join(deltas) == last["output"][1]["content"][0]["text"] == answer
    assert len(deltas) == max(1, -(-chars // 2048))


def test_any_order_of_attempts_and_samples_keeps_the_grammar() -> None:
    rng = random.Random(7)
    for status, _ in itertools.product(LAST, range(50)):
        sequence: list[EventKind | tuple[int, int, str]] = [QUEUED, STARTED]
        for attempt in range(1, rng.randint(1, 4) + 1):
            if attempt > 1:
                sequence += [QUEUED, RESTARTED] if rng.random() < 0.5 else [RESTARTED]
            sequence += [
                (attempt, rng.randint(0, 2), rng.choice(["a", "ü ", "", "\u2028"]))
                for _ in range(rng.randint(0, 6))
            ]
        check(typed(native(*sequence), status, summarized=rng.random() < 0.5))


def test_the_same_events_make_the_same_stream() -> None:
    sequence = (QUEUED, STARTED, (1, 0, "a"), (1, 2, "b"), (1, 0, "c"))

    assert typed(native(*sequence), "completed") == typed(native(*sequence), "completed")


def test_the_statuses_are_those_that_end() -> None:
    assert set(LAST) == response_object.ENDED
