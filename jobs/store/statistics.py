"""How the queue does: how long it is, how old, how fast it moves."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from core import ids
from core.database import Database, Transaction, utcnow
from jobs.lifecycle import Priority, Status
from jobs.records import Job
from jobs.store import timeline

#: What rates are told of.
RECENT = timedelta(minutes=5)
#: Ids carry the clock of the host that made them; none is further off than this.
_SKEW = timedelta(minutes=5)


@dataclass(frozen=True)
class QueueStatistics:
    """The queue at one moment.

    Attributes:
        depth: queued jobs, those that wait for another try included.
        due: those of them that could be claimed.
        oldest: for how long the first of those has been due; None without one.
        running: jobs that a worker holds.
        submitted: jobs that came in within :data:`RECENT`.
        finished: jobs that ended within it, however they did.
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
        due: those that could be claimed.
        later: those that wait for another try.
        oldest: for how long the first due one has been due; None without one.
    """

    due: int = 0
    later: int = 0
    oldest: timedelta | None = None


def queue(database: Database, *, account_id: uuid.UUID | None) -> QueueStatistics:
    """Return how the queue does, of one account or (None) of all. It takes a share of the searches."""
    with database.searching(account_id) as transaction:
        mine = () if account_id is None else (Job.account_id == account_id,)
        # As a bare column the account tempts SQLite to look at all that it ever had for those of five minutes.
        by_account = sa.func.coalesce(Job.account_id, Job.account_id)
        theirs = () if account_id is None else (by_account == account_id,)
        waiting = transaction.execute(_waiting(transaction.now()).where(*mine)).one()
        oldest = waiting.now - waiting.first if waiting.first else None
        return QueueStatistics(
            depth=waiting.depth,
            due=waiting.due,
            oldest=oldest if waiting.due else None,
            running=_count(transaction, timeline.standing(Status.RUNNING), *mine),
            submitted=_count(
                transaction,
                Job.id >= ids.earliest(utcnow() - RECENT - _SKEW),
                Job.created_at >= transaction.now(-RECENT),
                *mine,
            ),
            finished=_count(transaction, Job.finished_at >= transaction.now(-RECENT), *theirs),
        )


def queued(database: Database, account_id: uuid.UUID) -> int:
    """Return how many jobs of an account are queued, those that wait for another try included."""
    with database.reading() as transaction:
        return _count(transaction, Job.account_id == account_id, timeline.standing(Status.QUEUED))


def waiting(database: Database) -> dict[Priority, QueuedByPriority]:
    """Return how the queue of each priority does, of all accounts. It takes a share of the searches."""
    with database.searching(None) as transaction:
        rows = transaction.execute(
            _waiting(transaction.now()).add_columns(Job.priority).group_by(Job.priority)
        )
        found = {
            row.priority: QueuedByPriority(
                due=row.due,
                later=row.depth - row.due,
                oldest=row.now - row.first if row.due else None,
            )
            for row in rows
        }
        return {priority: found.get(priority, QueuedByPriority()) for priority in Priority}


def held(database: Database) -> dict[str, int]:
    """Return how many jobs each worker holds, by the name of those who hold any. It takes a share of the searches."""
    with database.searching(None) as transaction:
        rows = transaction.execute(
            sa.select(Job.lease_owner, sa.func.count().label("jobs"))
            .where(timeline.standing(Status.RUNNING), Job.lease_owner.is_not(None))
            .group_by(Job.lease_owner)
        )
        return {row.lease_owner: row.jobs for row in rows}


def _waiting(now: sa.ColumnElement[datetime]) -> sa.Select[int, int, datetime, datetime]:
    return sa.select(
        sa.func.count().label("depth"),
        sa.func.count().filter(Job.not_before <= now).label("due"),
        sa.func.min(Job.not_before).label("first"),
        now.label("now"),
    ).where(timeline.standing(Status.QUEUED))


def _count(transaction: Transaction, *conditions: sa.ColumnElement[bool]) -> int:
    counted: int = transaction.execute(
        sa.select(sa.func.count()).select_from(Job).where(*conditions)
    ).scalar_one()
    return counted
