"""Idempotency keys: a repeated request finds the job that the first one created. A unique index of jobs holds them."""

import uuid
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from core import errors
from core.database import Database, Now, Seconds, Transaction
from jobs.records.declarative import table
from jobs.records.jobs import Job


def replay(
    database: Database,
    *,
    account_id: uuid.UUID,
    key: str,
    fingerprint: str | None,
    stored: timedelta | None,
) -> uuid.UUID | None:
    """Return the job that this account submitted with ``key``, at most ``stored`` ago (None: at any time), or None.

    Raises:
        core.errors.IdempotencyKeyReused: the key was used with a different request.
    """
    bound: dict[str, Any] = {"account_id": account_id, "key": key}
    if stored is not None:
        bound["lifetime"] = -stored
    with database.reading() as transaction:
        statement = _KEYED if stored is None else _KEYED_SINCE
        job = transaction.execute(statement, bound).one_or_none()
    if job is None:
        return None
    if job.fingerprint != fingerprint:
        raise errors.IdempotencyKeyReused(
            "This Idempotency-Key was used with a different request.", param="Idempotency-Key"
        )
    job_id: uuid.UUID = job.id
    return job_id


_JOB = table(Job).c
_FORGOTTEN = (
    sa.update(table(Job))
    .where(
        _JOB.account_id == sa.bindparam("b_account"),
        _JOB.idempotency_key == sa.bindparam("b_key"),
        _JOB.created_at <= Now(sa.bindparam("b_lifetime", type_=Seconds())),
    )
    .values(idempotency_key=None)
)


def forget_expired(
    transaction: Transaction, *, account_id: uuid.UUID, key: str, stored: timedelta
) -> None:
    """Remove a key that is older than ``stored``, so that it can be used again."""
    transaction.execute(_FORGOTTEN, {"b_account": account_id, "b_key": key, "b_lifetime": -stored})


_KEYED = sa.select(_JOB.id, _JOB.fingerprint).where(
    _JOB.account_id == sa.bindparam("account_id"), _JOB.idempotency_key == sa.bindparam("key")
)
_KEYED_SINCE = _KEYED.where(_JOB.created_at > Now(sa.bindparam("lifetime", type_=Seconds())))
