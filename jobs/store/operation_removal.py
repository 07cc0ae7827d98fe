"""What is removed of operations: what an erased account wrote in them, and old operations with their lists of jobs."""

import uuid
from datetime import timedelta
from typing import Final

import sqlalchemy as sa

from core import ids
from core.database import Database, Transaction
from jobs.lifecycle import Status
from jobs.records.declarative import table
from jobs.records.operations import Operation, OperationJob
from jobs.records.timeline import TimelineEntry
from jobs.store import operations

_OP = table(Operation).c
_ITEM = table(OperationJob).c
_ENTRY = table(TimelineEntry).c
#: Jobs whose timelines one transaction reads.
_JOBS: Final = 50
#: Rows of the list of jobs that one transaction deletes.
_ROWS: Final = 1_000


def cancel_of(transaction: Transaction, account_id: uuid.UUID) -> None:
    """End the operations that an account requested and those on its jobs alone: they change no further job.

    An operation that erases the account goes on.
    """
    either = sa.or_(
        _OP.account_id == account_id,
        sa.and_(_OP.scope_id == account_id, _OP.erases_account.is_not(sa.true())),
    )
    operations.end(transaction, Status.CANCELLED, either)


def forget_account(database: Database, account_id: uuid.UUID) -> None:
    """Remove what an account wrote in its operations, and the names of its keys in timelines.

    Call it once the operations have ended. A call that is interrupted can be repeated.

    Raises:
        core.database_faults.DatabaseUnavailable: the database does not answer; another call continues.
    """
    with database.reading() as transaction:
        named = transaction.execute(
            sa.select(_OP.id).where(_OP.account_id == account_id, _OP.key_name != "")
        ).scalars()
        own = named.all()
    for operation_id in own:
        _forget_key_name(database, operation_id)
    with database.transaction() as transaction:
        for column in (Operation.account_id, Operation.scope_id):
            transaction.update(
                Operation,
                column == account_id,
                sa.or_(
                    Operation.account_id == account_id, Operation.erases_account.is_not(sa.true())
                ),
                query="",
                key_name="",
                idempotency_key=None,
                fingerprint=None,
            )


def _forget_key_name(database: Database, operation_id: uuid.UUID) -> None:
    """Remove the name of the key from the timelines of an operation's jobs."""
    after: uuid.UUID | None = None
    shown = ids.show("op", operation_id)
    while True:
        with database.transaction() as transaction:
            wanted = sa.select(_ITEM.job_id, _ITEM.new_job_id).where(
                _ITEM.operation_id == operation_id, _ITEM.result.is_not(None)
            )
            if after is not None:
                wanted = wanted.where(_ITEM.job_id > after)
            rows = transaction.execute(wanted.order_by(_ITEM.job_id).limit(_JOBS)).all()
            job_ids = [row.new_job_id or row.job_id for row in rows]
            entries = transaction.execute(
                sa.select(_ENTRY.id, _ENTRY.changes).where(_ENTRY.job_id.in_(job_ids))
            ).all()
            for entry in entries:
                if entry.changes.get("operation") == shown and "key_name" in entry.changes:
                    rest = {
                        name: entry.changes[name] for name in entry.changes.keys() - {"key_name"}
                    }
                    transaction.update(TimelineEntry, TimelineEntry.id == entry.id, changes=rest)
        if not rows:
            return
        after = rows[-1].job_id


def purge(database: Database, period: timedelta, *, limit: int) -> tuple[int, bool]:
    """Remove operations that ended more than ``period`` ago; return how many, and whether there may be more to do.

    Long lists of jobs take several calls, the last of which removes the operations themselves.
    """
    with database.transaction() as transaction:
        due = (
            transaction.execute(
                sa.select(_OP.id)
                .where(_OP.finished_at < transaction.now(-period))
                .order_by(_OP.finished_at)
                .limit(limit)
                .with_for_update(skip_locked=True)
            )
            .scalars()
            .all()
        )
        if not due:
            return 0, False
        chosen = transaction.execute(
            sa.select(_ITEM.operation_id, _ITEM.job_id)
            .where(_ITEM.operation_id.in_(due))
            .limit(_ROWS)
        ).all()
        by_operation: dict[uuid.UUID, list[uuid.UUID]] = {}
        for row in chosen:
            by_operation.setdefault(row.operation_id, []).append(row.job_id)
        for operation_id, job_ids in by_operation.items():
            transaction.delete(
                OperationJob,
                OperationJob.operation_id == operation_id,
                OperationJob.job_id.in_(job_ids),
            )
        if len(chosen) == _ROWS:
            return 0, True
        transaction.delete(Operation, Operation.id.in_(due))
        return len(due), len(due) == limit
