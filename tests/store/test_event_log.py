"""A job is told event by event, from any number, in the same words for ever."""

from __future__ import annotations

import random
import uuid
from datetime import timedelta

from core.database import Database
from jobs.events.index import IndexEntry, SequenceBlock
from jobs.records.attempts import TraceChunk
from jobs.store import (
    claims,
    commands,
    event_log,
    expiry,
    purge,
    retention,
    settle,
    traces,
)
from jobs.store.event_log import EventKind, JobEvent
from tests import factories
from tests.databases import Age

FAULT = settle.Failure("engine_fault", "The engine failed.", retryable=True)
RNG = random.Random(1)


def begun(database: Database, account_id: uuid.UUID) -> claims.Claim:
    """Submit, claim and begin a job."""
    factories.make_job(database, account_id)
    claimed = factories.claim(database)
    assert factories.begin(database, claimed) is not None
    return claimed


def mark(claimed: claims.Claim, text: str) -> IndexEntry:
    """Return the mark of the next piece of a text."""
    number = claimed.numbers.take()
    assert number is not None
    return IndexEntry(number, len(text), 1_790_000_000_000 + number)


def flush(
    database: Database, claimed: claims.Claim, *texts: str, position: int = 0
) -> tuple[IndexEntry, ...]:
    """Write ``texts`` in one flush and return their marks."""
    index = tuple(mark(claimed, text) for text in texts)
    piece = traces.TracePart(
        job_id=claimed.job_id,
        attempt=claimed.attempt,
        generation=0,
        position=position,
        text="".join(texts),
        output_tokens=len(texts),
        first_token_at=None,
        event_index=index,
    )
    assert traces.append(database, owner=claimed.owner, pieces=[piece]) == set()
    return index


def read(database: Database, job_id: uuid.UUID, *, after: int = 0) -> list[JobEvent]:
    return event_log.read(database, job_id, after=after).events


def kinds(found: list[JobEvent]) -> list[str]:
    return [str(event.kind) for event in found]


def text(found: list[JobEvent], *, attempt: int) -> str:
    return "".join(event.delta or "" for event in found if event.attempt == attempt)


def finish(
    database: Database, claimed: claims.Claim, output: str, index: tuple[IndexEntry, ...]
) -> None:
    ended = factories.make_ended(output, event_index=index)
    assert settle.succeed(database, claimed, answer=None, generation=ended)


def test_the_events_of_a_job_go_from_its_queue_to_its_end(
    database: Database, account_id: uuid.UUID
) -> None:
    claimed = begun(database, account_id)
    index = flush(database, claimed, "Let me ", "look: 圆 🟢\n")
    running = event_log.read(database, claimed.job_id, after=0)
    assert (kinds(running.events)[-1], running.finished) == ("trace.delta", False)
    last = mark(claimed, "6.")
    finish(database, claimed, "Let me look: 圆 🟢\n6.", (*index, last))

    page = event_log.read(database, claimed.job_id, after=0)

    assert (page.more, page.finished) == (False, True)
    reported = ["job.queued", "job.started", *["trace.delta"] * 3, "job.finished"]
    assert kinds(page.events) == reported
    assert page.events[:4] == running.events
    numbers = [event.number for event in page.events]
    assert numbers == sorted(set(numbers))
    assert text(page.events, attempt=1) == "Let me look: 圆 🟢\n6."
    assert page.events[-1].valid_through == last.number
    for after in range(max(numbers) + 2):
        assert read(database, claimed.job_id, after=after) == [
            event for event in page.events if event.number > after
        ]


def test_a_log_is_read_in_pages_that_fit_together(
    database: Database, account_id: uuid.UUID
) -> None:
    claimed = begun(database, account_id)
    index = flush(database, claimed, *"abcdefg")
    finish(database, claimed, "abcdefgh", index)
    whole = read(database, claimed.job_id)

    pages, after = [], 0
    while (page := event_log.read(database, claimed.job_id, after=after, limit=3)).events:
        pages.append(page)
        after = page.events[-1].number

    assert [event for page in pages for event in page.events] == whole
    assert [page.more for page in pages] == [True, True, True, False][-len(pages) :]
    assert text(whole, attempt=1) == "abcdefgh"


def test_a_page_unpacks_only_the_pieces_that_it_shows(
    database: Database, account_id: uuid.UUID
) -> None:
    """A long trace that runs has thousands of them."""
    claimed = begun(database, account_id)
    for position, piece in enumerate("abcdefg"):
        flush(database, claimed, piece, position=position)
    with database.transaction() as transaction:
        transaction.update(TraceChunk, TraceChunk.position > 3, event_index=b"not unpacked")

    page = event_log.read(database, claimed.job_id, after=0, limit=4)

    assert (text(page.events, attempt=1), page.more) == ("ab", True)


def test_a_lost_attempts_tail_is_announced_as_void(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    claimed = begun(database, account_id)
    stored = flush(database, claimed, "I see ", "six")
    live_only = mark(claimed, " or seven")
    age(61)
    expiry.sweep(database, actor="sweeper:test", crash_limit=3, rng=RNG)
    age(10)
    second = factories.claim(database)
    factories.begin(database, second)
    index = flush(database, second, "It is 6.")
    finish(database, second, "It is 6.", index)

    later = read(database, claimed.job_id, after=live_only.number)

    assert kinds(later) == ["job.queued", "attempt.restarted", "trace.delta", "job.finished"]
    restarted = later[1]
    assert (restarted.attempt, restarted.valid_through) == (2, stored[-1].number)
    everything = read(database, claimed.job_id)
    assert everything[-len(later) :] == later
    assert [text(everything, attempt=n) for n in (1, 2)] == ["I see six", "It is 6."]


def test_when_the_last_attempt_is_lost_the_end_says_what_holds(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    claimed = begun(database, account_id)
    [stored] = flush(database, claimed, "I see ")
    mark(claimed, "six")
    age(61)
    expiry.sweep(database, actor="sweeper:test", crash_limit=1, rng=RNG)

    found = read(database, claimed.job_id, after=stored.number)

    assert (kinds(found), found[0].valid_through) == (["job.finished"], stored.number)


def test_a_counted_failure_withdraws_nothing_and_text_without_marks_gets_one(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    claimed = begun(database, account_id)
    index = flush(database, claimed, "I see ")
    ended = factories.make_ended("I see no more", event_index=index)
    assert settle.retry(database, claimed, FAULT, generation=ended, rng=RNG)
    age(10)
    factories.claim(database)

    found = read(database, claimed.job_id)

    assert text(found, attempt=1) == "I see no more"
    rest = next(event for event in found if event.delta == "no more")
    assert found[-1].kind is EventKind.RESTARTED
    assert found[-1].valid_through == rest.number < found[-1].number


def test_a_finding_stands_in_its_place(database: Database, account_id: uuid.UUID) -> None:
    claimed = begun(database, account_id)
    before = mark(claimed, "round and ")
    number = claimed.numbers.take() or 0
    found = IndexEntry(number, 0, 5, {"kind": "loop"})
    after = mark(claimed, "round")
    finish(database, claimed, "round and round", (before, found, after))

    reported = read(database, claimed.job_id)

    assert kinds(reported)[2:5] == ["trace.delta", "finding", "trace.delta"]
    assert (reported[3].finding, reported[3].delta) == ({"kind": "loop"}, None)


def test_numbers_are_reserved_before_they_are_used(
    database: Database, account_id: uuid.UUID
) -> None:
    claimed = begun(database, account_id)
    for _ in range(SequenceBlock.BLOCK):
        assert claimed.numbers.take()
    assert claimed.numbers.take() is None
    wanted = claimed.numbers.wanted()
    assert wanted is not None

    for _ in range(2):
        held = {(claimed.job_id, claimed.attempt): wanted}
        assert not traces.append(database, owner=claimed.owner, pieces=[], reserve=held)

    assert factories.get_job(database, claimed.job_id).job.last_sequence_number == wanted
    lost = {(claimed.job_id, claimed.attempt): wanted + 7}
    assert traces.append(database, owner="another", pieces=[], reserve=lost) == set(lost)
    assert factories.get_job(database, claimed.job_id).job.last_sequence_number == wanted


def test_positions_of_jobs_are_read_in_one_query(database: Database, account_id: uuid.UUID) -> None:
    claimed = begun(database, account_id)
    waiting = factories.make_job(database, account_id)
    [first] = flush(database, claimed, "I see ")

    found = event_log.standings(database, [claimed.job_id, waiting])

    assert found[waiting] == event_log.EventPosition(1, finished=False)
    assert found[claimed.job_id] == event_log.EventPosition(first.number, finished=False)
    commands.cancel(database, waiting, account_id=None, actor="key:test")
    cancelled = {waiting: event_log.EventPosition(2, finished=True)}
    assert event_log.standings(database, [waiting, uuid.uuid4()]) == cancelled
    assert kinds(read(database, waiting)) == ["job.queued", "job.finished"]
    assert event_log.read(database, uuid.uuid4(), after=0) == event_log.EventPage(
        [], more=False, finished=True, through=0
    )


def test_a_removed_trace_leaves_the_moves_under_their_numbers(
    database: Database, account_id: uuid.UUID
) -> None:
    claimed = begun(database, account_id)
    index = flush(database, claimed, "a secret")
    finish(database, claimed, "a secret", index)
    whole = read(database, claimed.job_id)

    retention.remove_job(database, claimed.job_id, account_id=account_id, actor="key:test")

    assert read(database, claimed.job_id) == [e for e in whole if e.kind is not EventKind.DELTA]


def test_a_removed_timeline_leaves_the_text_and_the_end(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    claimed = begun(database, account_id)
    finish(database, claimed, "It is 6.", flush(database, claimed, "It is 6."))
    whole = read(database, claimed.job_id)
    age(2 * 86400)

    purge.batch(database, purge.Periods(timeline=timedelta(days=1)), actor="sweeper:test")

    left = read(database, claimed.job_id)
    assert kinds(left) == ["trace.delta", "job.finished"]
    assert [event.number for event in left] == [event.number for event in whole[2:]]
