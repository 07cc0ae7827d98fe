"""Commands of callers to a job: cancel, run now."""

import uuid

import sqlalchemy as sa

from core.database import Database, Now
from jobs.lifecycle import Status
from jobs.records import Job, table
from jobs.store import timeline

_JOB = table(Job).c
_RUN_NOW = timeline.Change(
    "run_now",
    source=Status.QUEUED,
    target=Status.QUEUED,
    where=(_JOB.id == sa.bindparam("b_job"), _JOB.not_before > Now()),
    values={"not_before": Now()},
)


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
        if job.status is Status.QUEUED:
            timeline.change(
                transaction,
                _RUN_NOW,
                actor=actor,
                bound={"b_job": job_id},
            )
        return job.status


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
        if job.status.terminal or job.cancel_requested_at is not None:
            return job.status
        target = Status.CANCELLED if job.status is Status.QUEUED else Status.RUNNING
        requested = timeline.Change(
            "cancelled" if target is Status.CANCELLED else "cancel_requested",
            source=job.status,
            target=target,
            where=(table(Job).c.id == job_id,),
            values={"cancel_requested_at": transaction.now()},
        )
        timeline.change(transaction, requested, actor=actor)
        return target
