"""Idempotency keys: a request that is sent again finds the job that it made. A unique index of jobs holds them."""

from __future__ import annotations

import uuid
from datetime import timedelta

import sqlalchemy as sa

from jobs import errors
from jobs.database import Database, Now, Seconds, Transaction
from jobs.records import Job, table


def replay(
    database: Database,
    *,
    account_id: uuid.UUID,
    key: str,
    fingerprint: str,
    kept: timedelta,
) -> uuid.UUID | None:
    """Return the job that this account made with ``key`` within ``kept``, or None.

    Raises:
        jobs.errors.IdempotencyKeyReused: the key came with another request.
    """
    with database.reading() as transaction:
        found = _keyed(transaction, account_id, key, kept=kept)
    return _same(found, fingerprint)


def winner(
    database: Database, *, account_id: uuid.UUID, key: str, fingerprint: str | None
) -> uuid.UUID | None:
    """Return the job that was quicker under the same key, or None when the conflict was another.

    Raises:
        jobs.errors.IdempotencyKeyReused: the key came with another request.
    """
    with database.reading() as transaction:
        found = _keyed(transaction, account_id, key, kept=None)
    return _same(found, fingerprint)


_FORGOTTEN = (
    sa.update(table(Job))
    .where(
        table(Job).c.account_id == sa.bindparam("b_account"),
        table(Job).c.idempotency_key == sa.bindparam("b_key"),
        table(Job).c.created_at <= Now(sa.bindparam("b_kept", type_=Seconds())),
    )
    .values(idempotency_key=None)
)


def forget_expired(
    transaction: Transaction, *, account_id: uuid.UUID, key: str, kept: timedelta
) -> None:
    """Let go of a key that is older than ``kept``, so that it can be used anew."""
    transaction.execute(_FORGOTTEN, {"b_account": account_id, "b_key": key, "b_kept": -kept})


def _keyed(
    transaction: Transaction, account_id: uuid.UUID, key: str, *, kept: timedelta | None
) -> tuple[uuid.UUID, str | None] | None:
    statement = sa.select(Job.id, Job.fingerprint).where(
        Job.account_id == account_id, Job.idempotency_key == key
    )
    if kept is not None:
        statement = statement.where(Job.created_at > transaction.now(-kept))
    row = transaction.execute(statement).one_or_none()
    return None if row is None else (row.id, row.fingerprint)


def _same(found: tuple[uuid.UUID, str | None] | None, fingerprint: str | None) -> uuid.UUID | None:
    if found is None:
        return None
    job_id, known = found
    if known != fingerprint:
        raise errors.IdempotencyKeyReused(
            "This Idempotency-Key was used with another request.", param="Idempotency-Key"
        )
    return job_id
