"""The texts of a job's samples as they are now, at the cost of reading them: without their numbered events."""

import uuid
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from core.database import Database, Transaction
from jobs.events import index as event_index
from jobs.records.attempts import Generation, TraceChunk
from jobs.records.jobs import Job

Place = tuple[int, int]


@dataclass(frozen=True)
class SampleText:
    """The text of one sample: that of its generations, in order. It is never empty.

    Attributes:
        attempt: its attempt.
        number: its first generation.
    """

    attempt: int
    number: int
    text: str = field(repr=False)


@dataclass(frozen=True)
class JobTexts:
    """The samples of a job in the order of their first events; ``removed``: the texts are not stored any more."""

    samples: list[SampleText]
    removed: bool


_PIECES = sa.and_(
    TraceChunk.job_id == Generation.job_id,
    TraceChunk.attempt == Generation.attempt,
    TraceChunk.generation == Generation.number,
    Generation.output.is_(None),
    # As in the event log: a piece without events is not shown.
    TraceChunk.last_sequence_number.is_not(None),
)
_TEXTS = (
    sa.select(
        Job.data_removed_at,
        Job.trace_removed_at,
        Generation.attempt,
        Generation.number,
        Generation.continues,
        sa.func.coalesce(Generation.output, TraceChunk.text, "").label("text"),
    )
    .select_from(Job)
    .outerjoin(Generation, Generation.job_id == Job.id)
    .outerjoin(TraceChunk, _PIECES)
    .where(Job.id == sa.bindparam("job_id"))
    .order_by(Generation.attempt, Generation.number, TraceChunk.position)
)


def read(database: Database, job_id: uuid.UUID) -> JobTexts:
    """Return the texts of all samples of a job, as of one moment.

    Raises:
        core.database.DatabaseUnavailable: the database does not answer.
    """
    with database.reading() as transaction:
        # One statement, so that no generation ends between two reads.
        rows = transaction.execute(_TEXTS, {"job_id": job_id}).all()
        removed = not rows or any((rows[0].data_removed_at, rows[0].trace_removed_at))
        roots: dict[Place, int] = {}
        pieces: dict[Place, list[str]] = {}
        for row in rows:
            if row.attempt is None:
                continue
            # A generation continues one with a lower number.
            root = (
                row.number
                if row.continues is None
                else roots.get((row.attempt, row.continues), row.number)
            )
            roots[row.attempt, row.number] = root
            if row.text:
                pieces.setdefault((row.attempt, root), []).append(row.text)
        ordered = _ordered(transaction, job_id, list(pieces), roots)
    return JobTexts(
        [SampleText(*place, "".join(pieces[place])) for place in ordered], removed=removed
    )


def _ordered(
    transaction: Transaction, job_id: uuid.UUID, places: list[Place], roots: dict[Place, int]
) -> list[Place]:
    """Return ``places`` in the order of their first events, which only parallel samples need to be read for."""
    attempts = [attempt for attempt, _ in places]
    parallel = {attempt for attempt in attempts if attempts.count(attempt) > 1}
    if not parallel:
        return places
    first: dict[Place, int] = {}
    for row in transaction.execute(_FIRST, {"job_id": job_id, "attempts": sorted(parallel)}):
        place = (row.attempt, roots.get((row.attempt, row.number), row.number))
        number = event_index.first_text(row.event_index)
        if number is not None:
            first[place] = min(number, first.get(place, number))
    return sorted(places, key=lambda place: (place[0], first.get(place, 0), place[1]))


def _first_piece() -> sa.ScalarSelect[Any]:
    piece = sa.orm.aliased(TraceChunk)
    return (
        sa.select(sa.func.min(piece.position))
        .where(
            piece.job_id == Generation.job_id,
            piece.attempt == Generation.attempt,
            piece.generation == Generation.number,
            piece.text != "",
        )
        .scalar_subquery()
    )


_FIRST = (
    sa.select(
        Generation.attempt,
        Generation.number,
        sa.func.coalesce(Generation.event_index, TraceChunk.event_index).label("event_index"),
    )
    .outerjoin(TraceChunk, sa.and_(_PIECES, TraceChunk.position == _first_piece()))
    .where(
        Generation.job_id == sa.bindparam("job_id"),
        Generation.attempt.in_(sa.bindparam("attempts", expanding=True)),
    )
)
