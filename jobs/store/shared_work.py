"""Operations and batches: rows with a lease, at whose work processes take turns, in slices."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import TypeVar

import sqlalchemy as sa

from core.database import Database, Now, Seconds
from jobs.records.declarative import table
from jobs.records.files import BatchEntry
from jobs.records.operations import Operation

Work = TypeVar("Work", Operation, BatchEntry)


def due(work: type[Operation | BatchEntry], *, owner: str) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the conditions of the rows that ``owner`` may work on now."""
    columns = table(work).c
    return (
        columns.finished_at.is_(None),
        columns.not_before <= Now(),
        sa.or_(
            columns.lease_expires_at.is_(None),
            columns.lease_expires_at < Now(),
            columns.lease_owner == owner,
        ),
    )


def release(
    database: Database,
    work: type[Operation | BatchEntry],
    work_id: uuid.UUID,
    *,
    owner: str,
    pause: timedelta,
    waiting_for: str | None,
) -> None:
    """Give a row back, to continue after ``pause`` at the earliest; ``waiting_for`` is the code of the cause."""
    columns = table(work).c
    with database.transaction() as transaction:
        transaction.execute(
            sa.update(table(work))
            .where(columns.id == work_id, columns.lease_owner == owner)
            .values(
                lease_owner=None,
                lease_expires_at=None,
                waiting_for=waiting_for,
                not_before=Now(sa.bindparam("b_pause", pause, type_=Seconds())),
            )
        )


def page(
    database: Database,
    work: type[Work],
    *,
    account_id: uuid.UUID | None,
    limit: int,
    after: uuid.UUID | None,
) -> tuple[list[Work], bool]:
    """Return up to ``limit`` rows beyond ``after``, newest first, and whether there are more."""
    wanted = sa.select(work).order_by(work.id.desc()).limit(limit + 1)
    if account_id is not None:
        wanted = wanted.where(work.account_id == account_id)
    if after is not None:
        wanted = wanted.where(work.id < after)
    with database.reading() as transaction:
        rows = list(transaction.session.scalars(wanted))
        return rows[:limit], len(rows) > limit
