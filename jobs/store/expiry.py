"""The sweep: it ends leases whose owners are gone, and queued jobs past their deadlines."""

import random
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from core.database import Database, Now, Transaction
from jobs import lifecycle
from jobs.lifecycle import Outcome, Status
from jobs.records import Job, table
from jobs.store import dispatch, pauses, settle, timeline, traces
from jobs.store.settle import Failure

_LIMIT = 200
_JOB = table(Job).c


@dataclass(frozen=True)
class Expired:
    """The number of jobs that a sweep changed, by outcome."""

    requeued: int = 0
    failed: int = 0
    cancelled: int = 0
    overdue: int = 0
    #: Whether some are left for the next sweep.
    more: bool = False


def sweep(
    database: Database, *, actor: str, crash_limit: int, rng: random.Random, leases: bool = True
) -> Expired:
    """End expired leases (if ``leases``) and queued jobs past their deadlines, up to 200 of each."""
    requeued = failed = cancelled = 0
    # The stored pieces of their traces are read before the transaction: on SQLite it blocks all other writers.
    expected = _look(database) if leases else []
    read = traces.read_open(database, expected)
    with database.transaction("expire") as transaction:
        dead = _dead(transaction) if leases else []
        for job_id, attempt in dead:
            status = _expire(
                transaction,
                job_id,
                attempt,
                actor=actor,
                crash_limit=crash_limit,
                rng=rng,
                read=read,
            )
            requeued += status is Status.QUEUED
            failed += status is Status.FAILED
            cancelled += status is Status.CANCELLED
    with database.transaction("overdue") as transaction:
        overdue = timeline.change(transaction, _OVERDUE, actor=actor)
    return Expired(
        requeued=requeued,
        failed=failed,
        cancelled=cancelled,
        overdue=len(overdue),
        more=_LIMIT in (len(dead), len(overdue)),
    )


def due(database: Database, *, limit: int) -> int:
    """Return how many jobs could be claimed now, counted up to ``limit``."""
    with database.reading() as transaction:
        if pauses.any_active(transaction):
            return min(limit, int(transaction.scalar(dispatch.unpaused_jobs(limit))))
        claimable = sa.select(Job.id).where(*dispatch.eligible()).limit(limit).subquery()
        return transaction.scalar(sa.select(sa.func.count()).select_from(claimable))


def uptime(database: Database) -> timedelta:
    """Return how long the PostgreSQL server has been up."""
    with database.reading() as transaction:
        up = transaction.now() - sa.func.pg_postmaster_start_time()
        return transaction.scalar(sa.select(sa.type_coerce(up, sa.Interval())))


_DEAD = (
    sa.select(Job.id, Job.attempt)
    .where(timeline.standing(Status.RUNNING), Job.lease_expires_at < Now())
    .order_by(Job.lease_expires_at)
    .limit(_LIMIT)
)


def _look(database: Database) -> list[tuple[uuid.UUID, int]]:
    """Return the running jobs whose lease has expired, as the transaction is likely to find them."""
    with database.reading() as transaction:
        return [(row.id, row.attempt) for row in transaction.execute(_DEAD)]


def _dead(transaction: Transaction) -> list[tuple[uuid.UUID, int]]:
    """Return (and on PostgreSQL lock) the running jobs whose lease has run out."""
    rows = transaction.execute(_DEAD.with_for_update(skip_locked=True))
    return [(row.id, row.attempt) for row in rows]


def _overdue() -> sa.Select[uuid.UUID]:
    choice = (
        sa.select(_JOB.id)
        .where(timeline.standing(Status.QUEUED), _JOB.deadline_at <= Now())
        .limit(_LIMIT)
        .with_for_update(skip_locked=True)
        .cte("overdue")
    )
    return sa.select(choice.c.id)


_OVERDUE = timeline.Change(
    "overdue",
    source=Status.QUEUED,
    target=Status.FAILED,
    where=(_JOB.id.in_(_overdue()),),
    values=Failure(
        code="deadline_exceeded", message="The deadline passed while the job waited."
    ).columns,
)


def _expire(
    transaction: Transaction,
    job_id: uuid.UUID,
    attempt: int,
    *,
    actor: str,
    crash_limit: int,
    rng: random.Random,
    read: Mapping[str, traces.TraceReading],
) -> Status | None:
    """End one expired lease; return the job's new status, or None when its owner was quicker."""
    job = transaction.session.get_one(Job, job_id, populate_existing=True)
    fault = Failure(code="worker_lost", message="The worker was lost while it ran the job.")
    values: dict[str, Any] = {"crashes": _JOB.crashes + 1}
    if job.cancel_requested_at is not None:
        target = Status.CANCELLED
    elif job.crashes + 1 >= crash_limit:
        target = Status.FAILED
        values |= fault.columns
    else:
        target = Status.QUEUED
        values["not_before"] = transaction.now(lifecycle.backoff(job.crashes + 1, rng=rng))
    lost = timeline.Change(
        str(Outcome.LOST),
        source=Status.RUNNING,
        target=target,
        where=(_JOB.id == job_id, _JOB.attempt == attempt, _JOB.lease_expires_at < Now()),
        values=values,
    )
    if not timeline.change(transaction, lost, actor=actor):
        return None
    settle.end_attempt(transaction, job_id, attempt, outcome=Outcome.LOST, fault=fault)
    traces.fold(transaction, job_id, attempt, finish_reason="lost", read=read)
    return target
