"""Statistics of the queue: its length, its age, and how fast it moves."""

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from core import ids
from core.database import Database, Transaction, utcnow
from jobs.lifecycle import Priority, Status
from jobs.records.jobs import Job
from jobs.store import pauses, timeline

#: The period of rates.
RECENT = timedelta(minutes=5)
#: Ids contain the time of the host that generated them; no host's clock is further off than this.
_SKEW = timedelta(minutes=5)


@dataclass(frozen=True)
class QueueStatistics:
    """The queue at one moment.

    Attributes:
        depth: queued jobs, including those that wait for another attempt.
        due: queued jobs that could be claimed.
        oldest: how long the first of those has been due; None without such a job.
        running: jobs that a worker holds.
        submitted: jobs that were submitted within :data:`RECENT`.
        finished: jobs that ended within it, with any status.
    """

    depth: int
    due: int
    oldest: timedelta | None
    running: int
    submitted: int
    finished: int


@dataclass(frozen=True)
class QueuedByPriority:
    """The queued jobs of one priority.

    Attributes:
        due: jobs that could be claimed, paused ones included.
        later: jobs that wait for another attempt.
        oldest: how long the first due job that no pause covers has been due; None without such a job.
    """

    due: int = 0
    later: int = 0
    oldest: timedelta | None = None


def queue(database: Database, *, account_id: uuid.UUID | None) -> QueueStatistics:
    """Return the statistics of one account's queue, or (None) of the whole queue. It takes a share of the searches."""
    with database.searching(account_id) as transaction:
        mine = () if account_id is None else (Job.account_id == account_id,)
        # With the bare column SQLite may read all jobs of the account for those of five minutes.
        by_account = sa.func.coalesce(Job.account_id, Job.account_id)
        recent = () if account_id is None else (by_account == account_id,)
        waiting = transaction.execute(_waiting(transaction.now()).where(*mine)).one()
        # As a value: of an expression PostgreSQL expects a third of all jobs, and starts processes for them.
        since = waiting.now - RECENT
        oldest = waiting.now - waiting.first if waiting.first else None
        return QueueStatistics(
            depth=waiting.depth,
            due=waiting.due,
            oldest=oldest if waiting.due else None,
            running=_count(transaction, timeline.standing(Status.RUNNING), *mine),
            submitted=_count(
                transaction,
                Job.id >= ids.earliest(utcnow() - RECENT - _SKEW),
                Job.created_at >= since,
                *mine,
            ),
            finished=_count(transaction, Job.finished_at >= since, *recent),
        )


def queued(database: Database, account_id: uuid.UUID) -> int:
    """Return how many jobs of an account are queued, including those that wait for another attempt."""
    with database.reading() as transaction:
        return _count(transaction, Job.account_id == account_id, timeline.standing(Status.QUEUED))


def waiting(database: Database) -> dict[Priority, QueuedByPriority]:
    """Return the queued jobs of each priority, of all accounts. It takes a share of the searches."""
    with database.searching(None) as transaction:
        paused = pauses.active_in(transaction)
        free = sa.and_(sa.true(), *(sa.not_(_covered(pause)) for pause in paused))
        rows = transaction.execute(_by_priority(_waiting(transaction.now(), free)))
        queued = {
            row.priority: QueuedByPriority(
                due=row.due,
                later=row.depth - row.due,
                oldest=row.now - row.first if row.first and row.first <= row.now else None,
            )
            for row in rows
        }
        return {priority: queued.get(priority, QueuedByPriority()) for priority in Priority}


def held(database: Database) -> dict[str, int]:
    """Return how many jobs each worker holds, by the worker's id. It takes a share of the searches."""
    with database.searching(None) as transaction:
        rows = transaction.execute(
            sa.select(Job.lease_owner, sa.func.count().label("jobs"))
            .where(timeline.standing(Status.RUNNING), Job.lease_owner.is_not(None))
            .group_by(Job.lease_owner)
        )
        return {row.lease_owner: row.jobs for row in rows}


def _by_priority(counted: sa.Select[int, int, datetime, datetime]) -> sa.Select[Any]:
    """Count by account and priority, in the order of their index, and add the accounts up: neither needs a sort."""
    keys = (Job.account_id, Job.priority)
    parts = counted.add_columns(*keys).group_by(*keys).subquery().c
    depth, due = (sa.cast(sa.func.sum(part), sa.BigInteger()) for part in (parts.depth, parts.due))
    return sa.select(
        parts.priority,
        depth.label("depth"),
        due.label("due"),
        sa.func.min(parts.first).label("first"),
        sa.func.max(parts.now).label("now"),
    ).group_by(parts.priority)


def _covered(pause: pauses.PauseView) -> sa.ColumnElement[bool]:
    """Return the condition that a pause covers a job."""
    account = sa.true() if pause.account_id is None else Job.account_id == pause.account_id
    priority = sa.true() if pause.priority is None else Job.priority == pause.priority
    return sa.and_(account, priority)


def _waiting(
    now: sa.ColumnElement[datetime], free: sa.ColumnElement[bool] | None = None
) -> sa.Select[int, int, datetime, datetime]:
    """Count queued jobs; ``first`` is only of those that are ``free``."""
    first = sa.func.min(Job.not_before)
    return sa.select(
        sa.func.count().label("depth"),
        sa.func.count().filter(Job.not_before <= now).label("due"),
        (first if free is None else first.filter(free)).label("first"),
        now.label("now"),
    ).where(timeline.standing(Status.QUEUED))


def _count(transaction: Transaction, *conditions: sa.ColumnElement[bool]) -> int:
    return transaction.scalar(sa.select(sa.func.count()).select_from(Job).where(*conditions))
