"""Holds: jobs whose clients wait for the answer on open connections.

A hold is a lease of the process that has the connection. The submission of the job begins it, the process renews it
(:func:`renew`), and it ends with the connection (:func:`end`). If the process dies, the hold lapses, and a sweep
cancels the job (:func:`lapse`): its client cannot get the answer any more.

A client that repeats its request with the same idempotency key gets the same job and renews its hold.
"""

import uuid
from collections.abc import Collection
from datetime import timedelta
from typing import Final

import sqlalchemy as sa

from core.database import Database, Transaction
from jobs.records.declarative import table
from jobs.records.jobs import HeldJob, Job
from jobs.store import commands

#: A process that has not renewed a hold for so long is gone.
LEASE: Final = timedelta(seconds=60)
_HELD = table(HeldJob).c
_LIMIT: Final = 200


def begin(transaction: Transaction, job_id: uuid.UUID) -> None:
    """Hold a new job, in the transaction that stores it."""
    transaction.execute(
        sa.insert(table(HeldJob)).values(job_id=job_id, until=transaction.now(LEASE))
    )


def renew(database: Database, job_ids: Collection[uuid.UUID]) -> None:
    """Renew the holds of jobs that have one."""
    with database.transaction() as transaction:
        transaction.update(HeldJob, _HELD.job_id.in_(job_ids), until=transaction.now(LEASE))


def end(database: Database, job_id: uuid.UUID) -> None:
    """End the hold of a job."""
    with database.transaction() as transaction:
        transaction.delete(HeldJob, _HELD.job_id == job_id)


def lapse(database: Database, *, actor: str) -> int:
    """Cancel the jobs whose holds have lapsed, up to 200, and forget these holds; return how many were cancelled."""
    with database.reading() as transaction:
        lapsed = sa.select(_HELD.job_id).where(_HELD.until < transaction.now()).limit(_LIMIT)
        job_ids = list(transaction.execute(lapsed).scalars())
    return sum(_lapse(database, job_id, actor=actor) for job_id in job_ids)


def _lapse(database: Database, job_id: uuid.UUID, *, actor: str) -> bool:
    with database.transaction() as transaction:
        job = transaction.session.get(Job, job_id, with_for_update=True)
        still = sa.select(_HELD.job_id).where(
            _HELD.job_id == job_id, _HELD.until < transaction.now()
        )
        if transaction.execute(still.with_for_update()).first() is None:
            return False
        transaction.delete(HeldJob, _HELD.job_id == job_id)
        return job is not None and commands.end(transaction, job, actor=actor) is not None
