"""Running traces are written once a second, through outages."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from core.database import Database, DatabaseUnavailable, Transaction
from jobs.events.index import SequenceBlock
from jobs.records import TraceChunk
from jobs.store import event_log
from tests import factories
from tests.databases import Clock
from tests.fakes import RecordingPublisher
from worker.run.trace_buffer import TraceBuffer, TraceWriter


class Flickering(Database):
    """A database that can be away: before what is written, or after it, when the reply is lost."""

    away = False
    reply_lost = False

    @contextlib.contextmanager
    def transaction(self, name: str = "") -> Iterator[Transaction]:
        if self.away:
            raise DatabaseUnavailable("It is away.")
        with super().transaction(name) as transaction:
            yield transaction
        if self.reply_lost:
            raise DatabaseUnavailable("It has gone.")


@pytest.fixture
def database(database_url: str, clock: Clock) -> Iterator[Flickering]:
    database = Flickering(database_url, clock=clock)
    yield database
    database.close()


@pytest.fixture
def publisher() -> RecordingPublisher:
    return RecordingPublisher()


@pytest.fixture
def recorder(database: Flickering, publisher: RecordingPublisher) -> TraceWriter:
    return TraceWriter(
        database,
        publisher=publisher,
        owner="me",
        flush_seconds=1,
        on_lost=lambda _: None,
    )


def begin(database: Database, recorder: TraceWriter) -> TraceBuffer:
    factories.make_job(database, factories.make_account(database))
    claimed = factories.claim(database, "me")
    started_at = factories.begin(database, claimed)
    assert started_at is not None
    return recorder.open(claimed, generation=0, started_at=started_at)


def chunks(database: Database, live: TraceBuffer) -> list[str]:
    """Return what has been written, piece by piece."""
    with database.reading() as transaction:
        statement = sa.select(TraceChunk.text).where(TraceChunk.job_id == live.claim.job_id)
        return list(transaction.session.scalars(statement.order_by(TraceChunk.position)))


def test_after_an_outage_the_text_is_whole_and_in_few_pieces(
    database: Flickering, recorder: TraceWriter
) -> None:
    live = begin(database, recorder)
    database.away = True
    for word in ("I ", "see ", "six ", "round ", "shapes."):
        live.add(word)
        recorder.flush()
    database.away = False

    recorder.flush()
    recorder.flush()

    assert chunks(database, live) == ["I ", "see six round shapes."]


def test_a_piece_whose_reply_was_lost_is_not_written_twice(
    database: Flickering, recorder: TraceWriter
) -> None:
    live = begin(database, recorder)
    database.reply_lost = True
    for word in ("I ", "see ", "six."):
        live.add(word)
        recorder.flush()
    database.reply_lost = False

    recorder.flush()
    recorder.flush()

    assert chunks(database, live) == ["I ", "see six."]


def reported(database: Database, live: TraceBuffer) -> str:
    """Return the text that a reader of SQL is told."""
    page = event_log.read(database, live.claim.job_id, after=0, limit=10_000)
    return "".join(event.delta or "" for event in page.events)


def test_what_comes_between_two_ticks_is_one_event_and_each_names_the_one_before(
    database: Flickering, recorder: TraceWriter, publisher: RecordingPublisher
) -> None:
    live = begin(database, recorder)
    claimed = live.claim.numbers.last
    for words in (["I ", "see "], [], ["six"]):
        for word in words:
            live.add(word)
        recorder.tick()
    live.add(".")
    recorder.close(live)

    assert [event.delta for event in publisher.reported] == ["I see ", "six", "."]
    numbers = [claimed, *(event.mark.number for event in publisher.reported)]
    assert [event.previous for event in publisher.reported] == numbers[:-1]
    assert list(live.event_index) == [event.mark for event in publisher.reported]
    assert [mark.tokens for mark in live.event_index] == [2, 1, 1]


def test_what_is_told_live_is_what_sql_tells_later(
    database: Flickering, recorder: TraceWriter, publisher: RecordingPublisher
) -> None:
    live = begin(database, recorder)
    for word in ("I ", "see ", "six."):
        live.add(word)
        recorder.tick()
    recorder.find(live, {"kind": "loop"})
    recorder.flush()

    found = event_log.read(database, live.claim.job_id, after=0).events[2:]

    assert [(event.number, event.at, event.delta or "", event.finding) for event in found] == [
        (event.mark.number, event.mark.at, event.delta, event.mark.finding)
        for event in publisher.reported
    ]
    assert [str(event.kind) for event in found] == [*["trace.delta"] * 3, "finding"]


def test_without_numbers_text_waits_and_comes_when_there_are_more(
    database: Flickering, recorder: TraceWriter, publisher: RecordingPublisher
) -> None:
    live = begin(database, recorder)
    database.away = True
    for _ in range(SequenceBlock.BLOCK + 2):
        live.add("x")
        recorder.tick()
    assert len(publisher.reported) == SequenceBlock.BLOCK
    recorder.flush()
    database.away = False

    recorder.flush()
    recorder.flush()

    assert reported(database, live) == "x" * (SequenceBlock.BLOCK + 2)
    assert publisher.reported[-1].delta == "xx"


def test_an_ended_streams_rest_is_written_before_what_another_one_says_later(
    database: Flickering, recorder: TraceWriter
) -> None:
    live = begin(database, recorder)
    started_at = factories.begin(database, live.claim, generation=1)
    assert started_at is not None
    other = recorder.open(live.claim, generation=1, started_at=started_at)
    live.add("first")
    recorder.close(live)
    other.add("second")

    recorder.flush()

    page = event_log.read(database, live.claim.job_id, after=0, limit=10_000)
    assert [(event.generation, event.delta) for event in page.events[2:]] == [
        (0, "first"),
        (1, "second"),
    ]
