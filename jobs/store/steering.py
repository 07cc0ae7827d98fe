"""What people do to a waiting job beside cancelling it."""

from __future__ import annotations

import uuid

from jobs.database import Database
from jobs.lifecycle import Status
from jobs.records import Job
from jobs.store import timeline


def run_now(
    database: Database, job_id: uuid.UUID, *, account_id: uuid.UUID | None, actor: str
) -> Status | None:
    """Let a queued job wait no longer for its next try. One that is due already stays as it is.

    Returns:
        The status, :attr:`~jobs.lifecycle.Status.QUEUED` when it can be claimed now; None when there is no such
        job (in this account).
    """
    with database.transaction() as transaction:
        job = transaction.session.get(Job, job_id, with_for_update=True)
        if job is None or (account_id is not None and job.account_id != account_id):
            return None
        if job.status is Status.QUEUED:
            timeline.change(
                transaction,
                where=(Job.id == job_id, Job.not_before > transaction.now()),
                source=Status.QUEUED,
                target=Status.QUEUED,
                values={"not_before": transaction.now()},
                event="run_now",
                actor=actor,
            )
        return job.status
