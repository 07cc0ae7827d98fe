"""Running traces are written once a second, through outages."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from core.database import Database, Transaction
from core.database_faults import DatabaseUnavailable
from jobs.events.index import SequenceBlock
from jobs.events.live import StoredThrough
from jobs.records.attempts import TraceChunk
from jobs.store import claims, event_log
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
def trace_writer(database: Flickering, publisher: RecordingPublisher) -> TraceWriter:
    return TraceWriter(
        database,
        publisher=publisher,
        owner="me",
        flush_seconds=1,
        on_lost=lambda _: None,
    )


class TestWatchedJobs:
    """A stream of stored events follows them."""

    def test_are_written_without_the_others_and_announced(
        self, database: Flickering, trace_writer: TraceWriter, publisher: RecordingPublisher
    ) -> None:
        watched, other = begin(database, trace_writer), begin(database, trace_writer)
        publisher.watching = {watched.claim.job_id}
        for live in (watched, other):
            live.add("I see ")
        assert trace_writer.flush_watched()
        assert (chunks(database, watched), chunks(database, other)) == (["I see "], [])

        announced = StoredThrough(watched.claim.job_id, watched.claim.numbers.last)
        assert publisher.announced[-1] == announced
        standing = event_log.standings(database, [watched.claim.job_id])
        assert standing[watched.claim.job_id].number == announced.number
        trace_writer.flush()
        assert (chunks(database, watched), chunks(database, other)) == (["I see "], ["I see "])

    def test_are_announced_with_their_first_text_so_that_it_need_not_wait(
        self, database: Flickering, trace_writer: TraceWriter, publisher: RecordingPublisher
    ) -> None:
        live = begin(database, trace_writer)
        trace_writer.tick()
        assert publisher.announced == []
        for _ in range(2):
            live.add("I see ")
            trace_writer.tick()

        assert publisher.announced == [StoredThrough(live.claim.job_id, 0)]

    def test_have_the_text_of_all_their_generations_written_together(
        self, database: Flickering, trace_writer: TraceWriter, publisher: RecordingPublisher
    ) -> None:
        """A number is never stored before a lower one."""
        other, first = begin(database, trace_writer), begin(database, trace_writer)
        publisher.watching = {first.claim.job_id}
        started_at = claims.join(database, first.claim, rid="0" * 32, generation=1)
        assert started_at is not None
        second = trace_writer.open(first.claim, generation=1, started_at=started_at)
        for live in (first, second, other):
            live.add("I see ")
        for ended in (first, other):
            trace_writer.close(ended)
        assert trace_writer.flush_watched()
        assert reported(database, first) == "I see I see "
        assert chunks(database, other) == []
        trace_writer.flush()
        assert chunks(database, other) == ["I see "]

    def test_wait_with_the_others_after_an_outage(
        self, database: Flickering, trace_writer: TraceWriter, publisher: RecordingPublisher
    ) -> None:
        live = begin(database, trace_writer)
        publisher.watching = {live.claim.job_id}
        database.away = True
        live.add("I see ")
        assert trace_writer.flush_watched()
        live.add("six.")
        assert not trace_writer.flush_watched()
        database.away = False
        trace_writer.flush()
        assert trace_writer.flush_watched()
        assert chunks(database, live) == ["I see ", "six."]

    def test_are_a_limited_number(
        self, database: Flickering, trace_writer: TraceWriter, publisher: RecordingPublisher
    ) -> None:
        lives = [begin(database, trace_writer) for _ in range(66)]
        publisher.watching = {live.claim.job_id for live in lives}
        for live in lives:
            live.add("I see ")
        assert trace_writer.flush_watched()
        assert sum(len(chunks(database, live)) for live in lives) == 64


def begin(database: Database, trace_writer: TraceWriter) -> TraceBuffer:
    factories.make_job(database, factories.make_account(database))
    claimed = factories.claim(database, "me")
    started_at = factories.begin(database, claimed)
    assert started_at is not None
    return trace_writer.open(claimed, generation=0, started_at=started_at)


def chunks(database: Database, live: TraceBuffer) -> list[str]:
    """Return what has been written, piece by piece."""
    with database.reading() as transaction:
        statement = sa.select(TraceChunk.text).where(TraceChunk.job_id == live.claim.job_id)
        return list(transaction.session.scalars(statement.order_by(TraceChunk.position)))


def test_after_an_outage_the_text_is_complete_and_in_few_parts(
    database: Flickering, trace_writer: TraceWriter
) -> None:
    live = begin(database, trace_writer)
    database.away = True
    for word in ("I ", "see ", "six ", "round ", "shapes."):
        live.add(word)
        trace_writer.flush()
    database.away = False

    trace_writer.flush()
    trace_writer.flush()

    assert chunks(database, live) == ["I ", "see six round shapes."]


def test_a_part_whose_reply_was_lost_is_not_written_twice(
    database: Flickering, trace_writer: TraceWriter
) -> None:
    live = begin(database, trace_writer)
    database.reply_lost = True
    for word in ("I ", "see ", "six."):
        live.add(word)
        trace_writer.flush()
    database.reply_lost = False

    trace_writer.flush()
    trace_writer.flush()

    assert chunks(database, live) == ["I ", "see six."]


def reported(database: Database, live: TraceBuffer) -> str:
    """Return the text that a reader gets from SQL."""
    page = event_log.read(database, live.claim.job_id, after=0, limit=10_000)
    return "".join(event.delta or "" for event in page.events)


def test_text_between_two_ticks_is_one_event_and_each_names_the_one_before(
    database: Flickering, trace_writer: TraceWriter, publisher: RecordingPublisher
) -> None:
    live = begin(database, trace_writer)
    claimed = live.claim.numbers.last
    for words in (["I ", "see "], [], ["six"]):
        for word in words:
            live.add(word)
        trace_writer.tick()
    live.add(".")
    trace_writer.close(live)

    assert [event.delta for event in publisher.reported] == ["I see ", "six", "."]
    numbers = [claimed, *(event.mark.number for event in publisher.reported)]
    assert [event.previous for event in publisher.reported] == numbers[:-1]
    assert list(live.event_index) == [event.mark for event in publisher.reported]
    assert [mark.tokens for mark in live.event_index] == [2, 1, 1]


def test_a_chunk_of_several_tokens_counts_as_the_engine_counts_it(
    database: Flickering, trace_writer: TraceWriter
) -> None:
    live = begin(database, trace_writer)
    live.add("I see six ", 3)
    trace_writer.tick()
    live.add("round ", 4)
    live.add("shapes in a row.", 8)
    trace_writer.tick()
    trace_writer.close(live)

    assert [mark.tokens for mark in live.event_index] == [3, 5]
    assert live.tokens == 8


def test_live_events_equal_the_events_that_sql_has_later(
    database: Flickering, trace_writer: TraceWriter, publisher: RecordingPublisher
) -> None:
    live = begin(database, trace_writer)
    for word in ("I ", "see ", "six."):
        live.add(word)
        trace_writer.tick()
    trace_writer.add_finding(live, {"kind": "loop"})
    trace_writer.flush()

    found = event_log.read(database, live.claim.job_id, after=0).events[2:]

    assert [(event.number, event.at, event.delta or "", event.finding) for event in found] == [
        (event.mark.number, event.mark.at, event.delta, event.mark.finding)
        for event in publisher.reported
    ]
    assert [str(event.kind) for event in found] == [*["trace.delta"] * 3, "finding"]


def test_without_event_numbers_text_waits_until_there_are_more(
    database: Flickering, trace_writer: TraceWriter, publisher: RecordingPublisher
) -> None:
    live = begin(database, trace_writer)
    database.away = True
    for _ in range(SequenceBlock.BLOCK + 2):
        live.add("x")
        trace_writer.tick()
    assert len(publisher.reported) == SequenceBlock.BLOCK
    trace_writer.flush()
    database.away = False

    trace_writer.flush()
    trace_writer.flush()

    assert reported(database, live) == "x" * (SequenceBlock.BLOCK + 2)
    assert publisher.reported[-1].delta == "xx"


def test_the_last_text_of_an_ended_generation_is_written_before_later_text_of_another(
    database: Flickering, trace_writer: TraceWriter
) -> None:
    live = begin(database, trace_writer)
    started_at = factories.begin(database, live.claim, generation=1)
    assert started_at is not None
    other = trace_writer.open(live.claim, generation=1, started_at=started_at)
    live.add("first")
    trace_writer.close(live)
    other.add("second")

    trace_writer.flush()

    page = event_log.read(database, live.claim.job_id, after=0, limit=10_000)
    assert [(event.generation, event.delta) for event in page.events[2:]] == [
        (0, "first"),
        (1, "second"),
    ]
