"""The unfinished batches of all accounts: whether processes work on them, and what they wait for."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import sqlalchemy as sa

from core.database import Database, Now, Transaction
from jobs.records.declarative import table
from jobs.records.files import BatchEntry, BatchStatus

#: What a batch waits for after an error of the service, not for room.
SERVER_ERROR: Final = "server_error"
_BATCH = table(BatchEntry).c
_OPEN = _BATCH.finished_at.is_(None)


@dataclass(frozen=True)
class BatchBacklog:
    """The unfinished batches at one moment.

    Attributes:
        by_status: how many there are in each state.
        blocked: how many wait for room in the queue, on the disk, or in a quota, or for an outage to end.
        failing: how many are tried again after an error of the service.
        oldest: how long ago a process last worked on the due batch that waits longest; None without a due one.
    """

    by_status: Mapping[BatchStatus, int]
    blocked: int
    failing: int
    oldest: timedelta | None


def backlog(database: Database) -> BatchBacklog:
    """Return the backlog. It takes a share of the searches."""
    with database.searching(None) as transaction:
        counts = sa.select(_BATCH.status, _BATCH.waiting_for, sa.func.count().label("batches"))
        rows = transaction.execute(
            counts.where(_OPEN).group_by(_BATCH.status, _BATCH.waiting_for)
        ).all()
        oldest = _oldest(transaction)
    return BatchBacklog(
        by_status={
            status: sum(row.batches for row in rows if row.status is status)
            for status in BatchStatus
            if not status.terminal
        },
        blocked=sum(row.batches for row in rows if row.waiting_for not in (None, SERVER_ERROR)),
        failing=sum(row.batches for row in rows if row.waiting_for == SERVER_ERROR),
        oldest=oldest,
    )


def oldest_due(database: Database) -> timedelta | None:
    """Return how long ago a process last worked on the due batch that waits longest; None without a due one."""
    with database.reading() as transaction:
        return _oldest(transaction)


def _oldest(transaction: Transaction) -> timedelta | None:
    row = transaction.execute(_DUE).first()
    return None if row is None else max(timedelta(0), row.now - max(row.served_at, row.not_before))


#: In the order in which processes take them.
_DUE: sa.Select[Any] = (
    sa.select(_BATCH.served_at, _BATCH.not_before, Now().label("now"))
    .where(_OPEN, _BATCH.not_before <= Now())
    .order_by(_BATCH.served_at, _BATCH.id)
    .limit(1)
)
