"""Idempotency keys: a request that is sent again finds the job that it made. A unique index of jobs holds them."""

from __future__ import annotations

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
    """Return the job that this account made with ``key`` within ``stored``, or None.

    Raises:
        core.errors.IdempotencyKeyReused: the key came with another request.
    """
    with database.reading() as transaction:
        found = _keyed(transaction, account_id, key, stored=stored)
    return _same(found, fingerprint)


def winner(
    database: Database, *, account_id: uuid.UUID, key: str, fingerprint: str | None
) -> uuid.UUID | None:
    """Return the job that was quicker under the same key, or None when the conflict was another.

    Raises:
        core.errors.IdempotencyKeyReused: the key came with another request.
    """
    with database.reading() as transaction:
        found = _keyed(transaction, account_id, key, stored=None)
    return _same(found, fingerprint)


_JOB = table(Job).c
_FORGOTTEN = (
    sa.update(table(Job))
    .where(
        _JOB.account_id == sa.bindparam("b_account"),
        _JOB.idempotency_key == sa.bindparam("b_key"),
        _JOB.created_at <= Now(sa.bindparam("b_kept", type_=Seconds())),
    )
    .values(idempotency_key=None)
)


def forget_expired(
    transaction: Transaction, *, account_id: uuid.UUID, key: str, stored: timedelta
) -> None:
    """Let go of a key that is older than ``stored``, so that it can be used anew."""
    transaction.execute(_FORGOTTEN, {"b_account": account_id, "b_key": key, "b_kept": -stored})


_KEYED = sa.select(_JOB.id, _JOB.fingerprint).where(
    _JOB.account_id == sa.bindparam("account_id"), _JOB.idempotency_key == sa.bindparam("key")
)
_KEYED_SINCE = _KEYED.where(_JOB.created_at > Now(sa.bindparam("kept", type_=Seconds())))


def _keyed(
    transaction: Transaction, account_id: uuid.UUID, key: str, *, stored: timedelta | None
) -> tuple[uuid.UUID, str | None] | None:
    bound: dict[str, Any] = {"account_id": account_id, "key": key}
    if stored is not None:
        bound["kept"] = -stored
    row = transaction.execute(_KEYED if stored is None else _KEYED_SINCE, bound).one_or_none()
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
