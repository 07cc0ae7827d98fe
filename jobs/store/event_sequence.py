"""Sequence numbers of events in SQL: reserved before use, and the last one through which events are stored."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime

import sqlalchemy as sa

from core.database import Transaction
from jobs.events import index as event_index
from jobs.events.index import IndexEntry
from jobs.records.attempts import Attempt
from jobs.records.declarative import table
from jobs.records.jobs import Job

_RESERVED = (
    sa.update(table(Job))
    .where(table(Job).c.id == sa.bindparam("b_job"))
    .values(last_sequence_number=sa.bindparam("b_end"))
)
_STORED = (
    sa.update(table(Attempt))
    .where(
        table(Attempt).c.job_id == sa.bindparam("b_job"),
        table(Attempt).c.number == sa.bindparam("b_attempt"),
    )
    .values(valid_through=sa.bindparam("b_through"))
)
_ENDED_THROUGH = _STORED.where(
    sa.func.coalesce(table(Attempt).c.valid_through, 0) < sa.bindparam("b_through")
)
_NEXT = (
    sa.update(table(Job))
    .where(table(Job).c.id == sa.bindparam("b_job"))
    .values(last_sequence_number=table(Job).c.last_sequence_number + 1)
    .returning(table(Job).c.last_sequence_number)
)


def reserve(transaction: Transaction, ends: Mapping[tuple[uuid.UUID, int], int]) -> None:
    """Reserve numbers up to ``ends`` for the owners of these attempts: only an owner takes numbers of a running job."""
    if ends:
        transaction.execute(
            _RESERVED,
            [{"b_job": job_id, "b_end": end} for (job_id, _), end in ends.items()],
        )


def store_through(transaction: Transaction, through: Mapping[tuple[uuid.UUID, int], int]) -> None:
    """Store the sequence number through which the events of each attempt are stored now."""
    if through:
        transaction.execute(
            _STORED,
            [
                {"b_job": job_id, "b_attempt": attempt, "b_through": number}
                for (job_id, attempt), number in through.items()
            ],
        )


def cover(
    transaction: Transaction,
    job_id: uuid.UUID,
    text: str,
    index: Sequence[IndexEntry],
    *,
    at: datetime,
) -> list[IndexEntry]:
    """Return ``index``, with one more entry under a new number if it does not cover all of ``text``."""
    rest = len(text) - event_index.covered(index)
    if rest <= 0:
        return list(index)
    number = transaction.scalar(_NEXT, {"b_job": job_id})
    return [*index, IndexEntry(number, rest, round(at.timestamp() * 1000))]


def end_through(
    transaction: Transaction, job_id: uuid.UUID, attempt: int, index: Sequence[IndexEntry]
) -> None:
    """Store that the events of ``index`` are stored; another generation may have stored later ones."""
    if index:
        transaction.execute(
            _ENDED_THROUGH,
            {"b_job": job_id, "b_attempt": attempt, "b_through": index[-1].number},
        )
