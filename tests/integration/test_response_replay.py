"""A response is read at the cost of its text, and is the same as the replay of its typed events."""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import orjson
import pytest
import sqlalchemy as sa

from api.openai.responses import replay
from api.openai.responses.replay import ResponseReader
from core import errors
from core.database import Database
from jobs.answers.extraction import Answer
from jobs.store import claims, commands, expiry, purge, retention, settle, traces
from jobs.store.responses import NewResponse
from tests import factories
from tests.api import worker
from tests.databases import Age
from tests.fakes import RecordingPublisher
from worker.run.trace_buffer import TraceBuffer, TraceWriter

Json = dict[str, Any]
FAULT = settle.Failure("engine_fault", "The engine failed.", retryable=True)
WORDS = ("Let me ", "look", ": 圆 🟢\n", "six", ".", "\u2028")


def stream(database: Database, job_id: uuid.UUID) -> list[Json]:
    """Return all typed events that are stored."""
    reader = ResponseReader(database, replay.find(database, job_id, scope=None))
    data = b"".join(reader.pages())
    return [orjson.loads(line[6:]) for line in data.split(b"\n") if line.startswith(b"data: ")]


def replayed(events: list[Json]) -> Json:
    """Return the response as its events show it."""
    if events[-1]["type"] in ("response.completed", "response.failed", "response.incomplete"):
        last: Json = events[-1]["response"]
        return last
    items: dict[int, Json] = {}
    response: Json = events[0]["response"]
    for event in events:
        match event["type"]:
            case "response.in_progress":
                response = event["response"]
            case "response.output_item.added" | "response.output_item.done":
                items[event["output_index"]] = event["item"]
            case "response.content_part.added":
                items[event["output_index"]]["content"].append(event["part"])
            case "response.reasoning_summary_part.added":
                items[event["output_index"]]["summary"].append(event["part"])
            case "response.reasoning_text.delta":
                items[event["output_index"]]["content"][0]["text"] += event["delta"]
            case "response.reasoning_summary_text.delta":
                items[event["output_index"]]["summary"][0]["text"] += event["delta"]
    return response | {"output": [items[index] for index in sorted(items)]}


def without_times(events: list[Json]) -> list[Json]:
    """Return events without their responses' times, which ``age`` moves on PostgreSQL."""
    return [event | {"response": (event.get("response") or {}).get("output")} for event in events]


@dataclass
class History:
    """A job that lives at random."""

    database: Database
    age: Age
    job_id: uuid.UUID
    rng: random.Random
    claim: claims.Claim | None = None
    writer: TraceWriter | None = None
    #: The running generations, and those that have ended and are to be stored with the attempt.
    open: list[TraceBuffer] = field(default_factory=list)
    ended: list[traces.GenerationEnd] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def step(self) -> None:
        """Let something happen."""
        if self.claim is None:
            self._claim()
            return
        self.rng.choice([self._say, self._say, self._say, self._flush, self._more, self._end])()
        self.check()

    def check(self) -> None:
        """Compare the two ways to the response."""
        found = replay.find(self.database, self.job_id, scope=None)
        shown = replay.current(self.database, found)
        assert shown == replayed(stream(self.database, self.job_id))
        self.seen.add(shown["status"])
        self.seen.update(f"item {item['status']}" for item in shown["output"])
        if sum(item["status"] == "in_progress" for item in shown["output"]) > 1:
            self.seen.add("parallel")

    @property
    def over(self) -> bool:
        """Whether the job has ended."""
        return factories.get_job(self.database, self.job_id).job.status.terminal

    def _claim(self) -> None:
        self.check()
        if self.rng.random() < 0.1:
            commands.cancel(self.database, self.job_id, account_id=None, actor="key:test")
            self.check()
            return
        self.age(600)
        self.claim = factories.claim(self.database)
        self.writer = TraceWriter(
            self.database,
            publisher=RecordingPublisher(),
            owner=self.claim.owner,
            flush_seconds=1,
            on_lost=lambda _: None,
        )
        started_at = factories.begin(self.database, self.claim)
        assert started_at is not None
        self.open = [self.writer.open(self.claim, generation=0, started_at=started_at)]
        self.ended = []
        self.check()

    def say(self, *words: str) -> None:
        """Say and store ``words``."""
        assert self.writer is not None
        for word in words:
            self.open[0].add(word)
            self.writer.tick()
        self.writer.flush()

    def _say(self) -> None:
        assert self.writer is not None
        for live in self.rng.sample(self.open, self.rng.randint(1, len(self.open))):
            live.add(self.rng.choice(WORDS))
            if self.rng.random() < 0.1:
                self.writer.add_finding(live, {"kind": "loop"})
        self.writer.tick()

    def _flush(self) -> None:
        assert self.writer is not None
        self.writer.flush()

    def _more(self) -> None:
        """Begin another sample, or continue one."""
        assert self.writer is not None
        assert self.claim is not None
        number = len(self.open) + len(self.ended)
        rid = uuid.uuid4().hex
        if self.rng.random() < 0.5:
            started_at = claims.join(self.database, self.claim, rid=rid, generation=number)
            assert started_at is not None
        else:
            live = self.rng.choice(self.open)
            self.open.remove(live)
            self.writer.close(live)
            self.writer.flush()
            self.ended.append(self._ended(live))
            continued = claims.follow(
                self.database,
                self.claim,
                ended=self.ended[-1],
                finding=None,
                rid=rid,
                stored=0,
                inserted="",
                generation=number,
                beside=True,
            )
            assert continued is not None
            started_at = continued.started_at
        self.open.append(self.writer.open(self.claim, generation=number, started_at=started_at))

    def _ended(self, live: TraceBuffer) -> traces.GenerationEnd:
        return factories.make_ended(
            live.text(), generation=live.generation, event_index=live.event_index
        )

    def _end(self) -> None:
        self.end(
            self.rng.choice(["succeed", "succeed", "fail", "retry", "release", "lose", "cancel"])
        )

    def end(self, how: str) -> None:
        """End the attempt."""
        assert self.writer is not None
        assert self.claim is not None
        if how == "lose":
            self.age(61)
            expiry.sweep(self.database, actor="sweeper:test", crash_limit=3, rng=self.rng)
            self.claim = None
            return
        if how == "cancel":
            commands.cancel(self.database, self.job_id, account_id=None, actor="key:test")
            self.check()
        for live in self.open:
            self.writer.close(live)
        last, *others = [*self.ended, *map(self._ended, self.open)][::-1]
        match how:
            case "succeed":
                answer = self.rng.choice([Answer("6", "boxed"), Answer("6", "boxed"), None])
                assert settle.succeed(
                    self.database, self.claim, answer=answer, generation=last, others=others
                )
            case "fail":
                assert settle.fail(self.database, self.claim, FAULT, generation=last, others=others)
            case "retry":
                assert settle.retry(
                    self.database, self.claim, FAULT, generation=last, others=others, rng=self.rng
                )
            case "release":
                assert settle.release(self.database, self.claim, generation=last, others=others)
            case "cancel":
                assert settle.stop(self.database, self.claim, generation=last, others=others)
        self.claim = None


@pytest.mark.parametrize("summary", [None, "auto"])
def test_a_response_is_the_replay_of_its_events_in_any_history(
    database: Database, age: Age, summary: str | None
) -> None:
    account_id = factories.make_account(database)
    rng = random.Random(f"{summary}")
    seen: set[str] = set()
    sent = NewResponse("responses", True, {"reasoning": {"summary": summary}})
    for _ in range(10):
        job_id = factories.make_job(database, account_id, response=sent)
        history = History(database, age, job_id, rng)
        for _ in range(40):
            history.step()
            if history.over:
                break
        else:
            commands.cancel(database, job_id, account_id=None, actor="key:test")
            age(61)
            expiry.sweep(database, actor="sweeper:test", crash_limit=3, rng=rng)
        history.check()
        seen |= history.seen
    assert seen >= {
        *("queued", "in_progress", "completed", "failed", "cancelled"),
        *("item in_progress", "item incomplete", "item completed", "parallel"),
    }


@pytest.mark.parametrize("removed", ["timeline", "trace", "answer"])
def test_what_is_removed_from_an_old_response_is_missing_from_both(
    database: Database, age: Age, removed: str
) -> None:
    account_id = factories.make_account(database)
    history = History(database, age, factories.make_job(database, account_id), random.Random(1))
    for how in ("retry", "succeed"):
        history.step()
        history.say("I see ", "six.")
        history.end(how)
    whole = stream(database, history.job_id)
    age(2 * 86400)

    purge.batch(database, purge.Periods(**{removed: timedelta(days=1)}), actor="sweeper:test")

    history.check()
    left = replayed(stream(database, history.job_id))
    kinds = {
        "timeline": ["reasoning", "reasoning", "message"],
        "trace": ["message"],
        "answer": ["reasoning", "reasoning"],
    }
    assert [item["type"] for item in left["output"]] == kinds[removed]
    if removed == "timeline":
        assert without_times(stream(database, history.job_id)) == without_times(whole)


def test_a_response_that_is_deleted_while_it_is_read_does_not_exist(database: Database) -> None:
    account_id = factories.make_account(database)
    job_id = factories.make_job(database, account_id)
    worker.finish(database)
    found = replay.find(database, job_id, scope=None)

    retention.remove_job(database, job_id, account_id=account_id, actor="key:test")

    with pytest.raises(errors.NotFound):
        replay.current(database, found)


def test_a_poll_reads_texts_and_no_events(database: Database, age: Age) -> None:
    account_id = factories.make_account(database)
    history = History(database, age, factories.make_job(database, account_id), random.Random(1))
    history.step()
    history.say(*["six "] * 50)
    statements: list[str] = []

    def noted(*call: Any) -> None:  # noqa: ANN401 - SQLAlchemy's
        statements.append(call[2])

    sa.event.listen(database.engine, "before_cursor_execute", noted)
    shown = replay.current(database, replay.find(database, history.job_id, scope=None))
    sa.event.remove(database.engine, "before_cursor_execute", noted)

    assert shown["output"][0]["content"][0]["text"] == "six " * 50
    assert [statement for statement in statements if "trace_chunks" in statement]
    assert not [statement for statement in statements if "event_index" in statement]
