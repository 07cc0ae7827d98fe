"""Idempotency keys: a repeated request finds the job that the first one created. A unique index of jobs holds them."""

import uuid
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from core import errors
from core.database import Database, Now, Seconds, Transaction
from jobs.records import Job, table


def replay(
    database: Database,
    *,
    account_id: uuid.UUID,
    key: str,
    fingerprint: str,
    stored: timedelta,
) -> uuid.UUID | None:
    """Return the job that this account submitted with ``key``, at most ``stored`` ago, or None.

    Raises:
        core.errors.IdempotencyKeyReused: the key was used with a different request.
    """
    with database.reading() as transaction:
        job = _keyed(transaction, account_id, key, stored=stored)
    return _same(job, fingerprint)


def winner(
    database: Database, *, account_id: uuid.UUID, key: str, fingerprint: str | None
) -> uuid.UUID | None:
    """Return the job that a concurrent request submitted with the same key, or None when the conflict was another one.

    Raises:
        core.errors.IdempotencyKeyReused: the key was used with a different request.
    """
    with database.reading() as transaction:
        job = _keyed(transaction, account_id, key, stored=None)
    return _same(job, fingerprint)


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


def _keyed(
    transaction: Transaction, account_id: uuid.UUID, key: str, *, stored: timedelta | None
) -> tuple[uuid.UUID, str | None] | None:
    bound: dict[str, Any] = {"account_id": account_id, "key": key}
    if stored is not None:
        bound["lifetime"] = -stored
    row = transaction.execute(_KEYED if stored is None else _KEYED_SINCE, bound).one_or_none()
    return None if row is None else (row.id, row.fingerprint)


def _same(job: tuple[uuid.UUID, str | None] | None, fingerprint: str | None) -> uuid.UUID | None:
    if job is None:
        return None
    job_id, known = job
    if known != fingerprint:
        raise errors.IdempotencyKeyReused(
            "This Idempotency-Key was used with a different request.", param="Idempotency-Key"
        )
    return job_id
