"""The sweep: it ends leases whose owners are gone, and queued jobs past their deadlines."""

import random
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from core.database import Database, Now, Transaction
from jobs import lifecycle
from jobs.lifecycle import Outcome, Status
from jobs.records.declarative import table
from jobs.records.jobs import Job
from jobs.store import dispatch, pauses, settle, timeline, traces, workers
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
    ended: list[Status | None] = []
    if leases:
        ended = _end(database, _EXPIRED, actor=actor, crash_limit=crash_limit, rng=rng)
    with database.transaction("overdue") as transaction:
        overdue = timeline.change(transaction, _OVERDUE, actor=actor)
    return Expired(
        requeued=ended.count(Status.QUEUED),
        failed=ended.count(Status.FAILED),
        cancelled=ended.count(Status.CANCELLED),
        overdue=len(overdue),
        more=_LIMIT in (len(ended), len(overdue)),
    )


def end_leases(
    database: Database, *, owner: str, actor: str, crash_limit: int, rng: random.Random
) -> Expired:
    """End the leases of a worker that is known to be dead, up to 200, as :func:`sweep` does when they expire.

    A job that has lost no worker before is due at once. ``more`` of the result says that jobs of the worker are still
    running; call it again then.
    """
    held = timeline.standing(Status.RUNNING), _JOB.lease_owner == owner
    ended = _end(database, held, actor=actor, crash_limit=crash_limit, rng=rng, at_once=True)
    with database.reading() as transaction:
        left = transaction.execute(sa.select(Job.id).where(*held).limit(1)).first()
    return Expired(
        requeued=ended.count(Status.QUEUED),
        failed=ended.count(Status.FAILED),
        cancelled=ended.count(Status.CANCELLED),
        more=left is not None,
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


#: Which running jobs have lost their workers.
_Lost = tuple[sa.ColumnElement[bool], ...]
_EXPIRED: _Lost = (timeline.standing(Status.RUNNING), _JOB.lease_expires_at < Now())


def _end(
    database: Database,
    lost: _Lost,
    *,
    actor: str,
    crash_limit: int,
    rng: random.Random,
    at_once: bool = False,
) -> list[Status | None]:
    """End the leases of up to 200 ``lost`` jobs; return the new status of each, or None when its owner was quicker."""
    chosen = (
        sa.select(Job.id, Job.attempt).where(*lost).order_by(Job.lease_expires_at).limit(_LIMIT)
    )
    # The stored pieces of their traces are read before the transaction: on SQLite it blocks all other writers.
    with database.reading() as transaction:
        expected = [(row.id, row.attempt) for row in transaction.execute(chosen)]
    read = traces.read_open(database, expected)
    with database.transaction("expire") as transaction:
        # On PostgreSQL this locks them.
        dead = transaction.execute(chosen.with_for_update(skip_locked=True)).all()
        return [
            _expire(
                transaction,
                row.id,
                row.attempt,
                lost=lost,
                actor=actor,
                crash_limit=crash_limit,
                rng=rng,
                read=read,
                at_once=at_once,
            )
            for row in dead
        ]


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
    lost: _Lost,
    actor: str,
    crash_limit: int,
    rng: random.Random,
    read: Mapping[str, traces.TraceReading],
    at_once: bool,
) -> Status | None:
    """End one lease; return the job's new status, or None when its owner was quicker."""
    job = transaction.session.get_one(Job, job_id, populate_existing=True)
    fault = Failure(code="worker_lost", message="The worker was lost while it ran the job.")
    values: dict[str, Any] = {"crashes": _JOB.crashes + 1}
    alive_at = _alive_at(transaction, job)
    seconds = settle.lost_seconds(transaction, job_id, attempt, alive_at=alive_at)
    if seconds is not None:
        values["engine_seconds"] = sa.func.coalesce(_JOB.engine_seconds, 0.0) + seconds
    if job.cancel_requested_at is not None:
        target = Status.CANCELLED
    elif job.crashes + 1 >= crash_limit:
        target = Status.FAILED
        values |= fault.columns
    else:
        target = Status.QUEUED
        wait = lifecycle.backoff(job.crashes + 1, rng=rng)
        values["not_before"] = transaction.now(timedelta() if at_once and not job.crashes else wait)
    change = timeline.Change(
        str(Outcome.LOST),
        source=Status.RUNNING,
        target=target,
        where=(_JOB.id == job_id, _JOB.attempt == attempt, *lost),
        values=values,
    )
    if not timeline.change(transaction, change, actor=actor):
        return None
    settle.end_attempt(transaction, job_id, attempt, outcome=Outcome.LOST, fault=fault)
    traces.fold(transaction, job_id, attempt, finish_reason="lost", read=read, ended_at=alive_at)
    return target


def _alive_at(transaction: Transaction, job: Job) -> datetime:
    """Return the last sign of life of a running job's worker: its heartbeat, or a piece of the trace.

    Without either, the worker died about when it began.
    """
    signs = (
        job.started_at or job.created_at,
        traces.last_flush(transaction, job.id, job.attempt),
        workers.last_seen(transaction, job.lease_owner) if job.lease_owner else None,
    )
    return max(sign for sign in signs if sign is not None)
