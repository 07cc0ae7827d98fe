"""Commands of callers to a job: cancel, run now."""

import uuid
from collections.abc import Mapping
from types import MappingProxyType

import sqlalchemy as sa

from core.database import Database, Now, Transaction
from jobs.lifecycle import Status
from jobs.records.declarative import table
from jobs.records.jobs import Job
from jobs.store import timeline

_JOB = table(Job).c
_RUN_NOW = timeline.Change(
    "run_now",
    source=Status.QUEUED,
    target=Status.QUEUED,
    where=(_JOB.id == sa.bindparam("b_job"), _JOB.not_before > Now()),
    values={"not_before": Now()},
)


_NOTHING: Mapping[str, str] = MappingProxyType({})


def run_now(
    database: Database, job_id: uuid.UUID, *, account_id: uuid.UUID | None, actor: str
) -> Status | None:
    """End the wait of a queued job for its next attempt. A job that is due already does not change.

    Returns:
        The status, :attr:`~jobs.lifecycle.Status.QUEUED` when the job can be claimed now; None when there is no such
        job (in this account).
    """
    with database.transaction() as transaction:
        job = transaction.session.get(Job, job_id, with_for_update=True)
        if job is None or (account_id is not None and job.account_id != account_id):
            return None
        end_wait(transaction, job, actor=actor)
        return job.status


def end_wait(
    transaction: Transaction, job: Job, *, actor: str, noted: Mapping[str, str] = _NOTHING
) -> bool:
    """End the wait of a job, which must be locked; return False if it is not queued or already due."""
    if job.status is not Status.QUEUED:
        return False
    changed = timeline.change(
        transaction, _RUN_NOW, actor=actor, bound={"b_job": job.id}, noted=noted
    )
    return bool(changed)


def cancel(
    database: Database, job_id: uuid.UUID, *, account_id: uuid.UUID | None, actor: str
) -> Status | None:
    """Cancel a job: a queued job ends at once, a running job's worker stops it within a second or two.

    Returns:
        The status afterwards, or None when there is no such job (in this account). A finished job does not change.
    """
    with database.transaction("cancel") as transaction:
        job = transaction.session.get(Job, job_id, with_for_update=True)
        if job is None or (account_id is not None and job.account_id != account_id):
            return None
        return end(transaction, job, actor=actor) or job.status


def end(
    transaction: Transaction, job: Job, *, actor: str, noted: Mapping[str, str] = _NOTHING
) -> Status | None:
    """Cancel a job, which must be locked; return its new status, or None if it has ended or is being cancelled."""
    if job.status.terminal or job.cancel_requested_at is not None:
        return None
    target = Status.CANCELLED if job.status is Status.QUEUED else Status.RUNNING
    requested = timeline.Change(
        "cancelled" if target is Status.CANCELLED else "cancel_requested",
        source=job.status,
        target=target,
        where=(table(Job).c.id == job.id,),
        values={"cancel_requested_at": transaction.now()},
    )
    timeline.change(transaction, requested, actor=actor, noted=noted)
    return target
