"""The stored events of a job: its changes of status and the output of its generations, in order of sequence numbers.

Numbers are strictly increasing, not dense, and permanent. They come from one counter in the job's row: a change of
status takes one in its own UPDATE, an owner reserves a block with its claim and more with its flushes. So all events of
an attempt lie between its claim and the next change. The end of a job has the number after the last one.

The events of an attempt are read up to its ``valid_through``. A live reader may have received more of an attempt that
was lost: the event of the next attempt, or of the end, states the number through which events are valid.
"""

import enum
import heapq
import itertools
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from core.database import Database, Transaction
from jobs.events import index as event_index
from jobs.lifecycle import Status
from jobs.records.attempts import Attempt, Generation, TraceChunk
from jobs.records.jobs import Job
from jobs.records.timeline import TimelineEntry


class EventKind(enum.StrEnum):
    """The type of an event, as streams show it."""

    QUEUED = "job.queued"
    STARTED = "job.started"
    DELTA = "trace.delta"
    FINDING = "finding"
    RESTARTED = "attempt.restarted"
    FINISHED = "job.finished"


@dataclass(frozen=True)
class JobEvent:
    """One event; fields that its kind does not have are None.

    Attributes:
        at: milliseconds since 1970.
        valid_through: events of earlier attempts with higher numbers are void.
    """

    number: int
    kind: EventKind
    at: int
    attempt: int | None = None
    generation: int | None = None
    delta: str | None = field(default=None, repr=False)
    finding: dict[str, Any] | None = field(default=None, repr=False)
    valid_through: int | None = None


@dataclass(frozen=True)
class EventPage:
    """Events in order, and whether there are more."""

    events: list[JobEvent]
    #: Whether more events can be read right now.
    more: bool
    #: Whether the job has finished: if there are no more events now, there never will be.
    finished: bool
    #: If there are no more events: all with numbers up to this one have been returned.
    through: int


@dataclass(frozen=True)
class EventPosition:
    """How far a job is: the sequence number of its last stored event, and whether it has finished."""

    number: int
    finished: bool


_JOBS = sa.select(
    Job.id,
    Job.status,
    Job.attempt,
    Job.last_sequence_number,
    Job.finished_at,
    Attempt.valid_through,
).outerjoin(Attempt, sa.and_(Attempt.job_id == Job.id, Attempt.number == Job.attempt))


def standings(database: Database, job_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, EventPosition]:
    """Return how far each of ``job_ids`` is, in one query."""
    with database.reading() as transaction:
        rows = transaction.execute(_JOBS.where(Job.id.in_(job_ids)))
        return {row.id: _standing(row) for row in rows}


def read(database: Database, job_id: uuid.UUID, *, after: int, limit: int = 1000) -> EventPage:
    """Return up to ``limit`` events of a job with numbers above ``after``, which may be any number.

    Raises:
        core.database_faults.DatabaseUnavailable: the database does not answer.
    """
    with database.reading() as transaction:
        # The job's row is read first, and later numbers are left for the next call. So no event is missing before one
        # that is returned.
        job = transaction.execute(_JOBS.where(Job.id == job_id)).one_or_none()
        if job is None:
            return EventPage([], more=False, finished=True, through=after)
        moves = _moves(transaction, job, after=after, limit=limit)
        merged = heapq.merge(
            moves,
            *_streams(transaction, job, after=after),
            _end(job, after=after),
            key=lambda event: event.number,
        )
        events = list(itertools.islice(merged, limit + 1))
    standing = _standing(job)
    return EventPage(
        events[:limit],
        more=len(events) > limit,
        finished=standing.finished,
        through=standing.number,
    )


def samples(database: Database, job_id: uuid.UUID) -> dict[tuple[int, int], int]:
    """Return for each generation of a job, by attempt and number, the first generation of its sample."""
    with database.reading() as transaction:
        rows = transaction.execute(
            sa.select(Generation.attempt, Generation.number, Generation.continues)
            .where(Generation.job_id == job_id)
            .order_by(Generation.attempt, Generation.number)
        ).all()
    first: dict[tuple[int, int], int] = {}
    for row in rows:
        # A generation continues one with a lower number.
        known = row.number if row.continues is None else first[row.attempt, row.continues]
        first[row.attempt, row.number] = known
    return first


def _standing(row: sa.Row[Any]) -> EventPosition:
    status: Status = row.status
    if status.terminal:
        return EventPosition(row.last_sequence_number + 1, finished=True)
    written = row.valid_through if status is Status.RUNNING else row.last_sequence_number
    return EventPosition(written or 0, finished=False)


def _moves(transaction: Transaction, job: sa.Row[Any], *, after: int, limit: int) -> list[JobEvent]:
    entries = transaction.session.scalars(
        sa.select(TimelineEntry)
        .where(
            TimelineEntry.job_id == job.id,
            TimelineEntry.sequence_number > after,
            TimelineEntry.sequence_number <= job.last_sequence_number,
        )
        .order_by(TimelineEntry.sequence_number)
        .limit(limit + 1)
    ).all()
    before = [int(entry.changes.get("attempt", 0)) - 1 for entry in entries]
    rows = transaction.execute(
        sa.select(Attempt.number, Attempt.valid_through).where(
            Attempt.job_id == job.id, Attempt.number.in_(before)
        )
    )
    stored: dict[int, int | None] = {row.number: row.valid_through for row in rows}
    return [_move(entry, stored) for entry in entries]


def _move(entry: TimelineEntry, stored: dict[int, int | None]) -> JobEvent:
    number, at = entry.sequence_number or 0, _milliseconds(entry.at)
    if entry.changes["status"] == Status.QUEUED:
        return JobEvent(number, EventKind.QUEUED, at)
    attempt = int(entry.changes["attempt"])
    if attempt == 1:
        return JobEvent(number, EventKind.STARTED, at, attempt=attempt)
    return JobEvent(
        number, EventKind.RESTARTED, at, attempt=attempt, valid_through=stored.get(attempt - 1) or 0
    )


def _streams(
    transaction: Transaction, job: sa.Row[Any], *, after: int
) -> Iterator[Iterator[JobEvent]]:
    """Yield the events of each generation beyond ``after``. One statement reads all of them as of one moment."""
    rows = transaction.execute(
        sa.select(
            Generation.attempt,
            Generation.number,
            sa.func.coalesce(Generation.output, TraceChunk.text).label("text"),
            sa.func.coalesce(Generation.event_index, TraceChunk.event_index).label("event_index"),
        )
        .join(
            Attempt,
            sa.and_(Attempt.job_id == Generation.job_id, Attempt.number == Generation.attempt),
        )
        .outerjoin(
            TraceChunk,
            sa.and_(
                TraceChunk.job_id == Generation.job_id,
                TraceChunk.attempt == Generation.attempt,
                TraceChunk.generation == Generation.number,
                TraceChunk.last_sequence_number > after,
            ),
        )
        .where(Generation.job_id == job.id, Attempt.valid_through > after)
        .order_by(Generation.attempt, Generation.number, TraceChunk.position)
    )
    for _, pieces in itertools.groupby(rows.all(), key=lambda row: (row.attempt, row.number)):
        yield itertools.chain.from_iterable(
            _piece_events(row, after=after, until=job.last_sequence_number) for row in list(pieces)
        )


def _piece_events(row: sa.Row[Any], *, after: int, until: int) -> Iterator[JobEvent]:
    # A running generation has thousands of pieces, of which a page needs a few: only these are unpacked.
    index = event_index.unpack(row.event_index)
    for entry, text in event_index.cut(row.text or "", index, after=after):
        if entry.number > until:
            return
        yield JobEvent(
            entry.number,
            EventKind.DELTA if entry.finding is None else EventKind.FINDING,
            entry.at,
            attempt=row.attempt,
            generation=row.number,
            delta=text if entry.finding is None else None,
            finding=entry.finding,
        )


def _end(job: sa.Row[Any], *, after: int) -> Iterator[JobEvent]:
    if job.status.terminal and job.last_sequence_number + 1 > after:
        at = _milliseconds(job.finished_at)
        yield JobEvent(
            job.last_sequence_number + 1, EventKind.FINISHED, at, valid_through=job.valid_through
        )


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
