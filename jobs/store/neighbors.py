"""The conditions of a job to have rows in other tables: an attempt on an engine or by a worker, an operation, a rerun.

The rows of one value may be a few, or nearly all of the history. A few are collected. Of many, the first and the last
job bound the search, and each job between them is tested, until the page is full. So neither a rare value reads the
whole history, nor a frequent one of another time.
"""

import uuid
from dataclasses import dataclass

import sqlalchemy as sa

from core.database import Transaction
from jobs.lifecycle import OperationAction, OperationResult
from jobs.records.attempts import Attempt
from jobs.records.declarative import table
from jobs.records.jobs import Job
from jobs.records.operations import Operation, OperationJob

#: The jobs are collected if there are at most this many rows.
_FEW = 5_000

_ATTEMPT = table(Attempt).c
_ITEM = table(OperationJob).c
_AGAIN = table(Job).alias("again").c


@dataclass(frozen=True)
class _Rows:
    """Rows of another table: the column with the job's id, and their condition. Both have an index together."""

    job_id: sa.ColumnElement[uuid.UUID]
    condition: sa.ColumnElement[bool]


def ran_on(transaction: Transaction, engine: str) -> sa.ColumnElement[bool]:
    """Return the condition of a job to have an attempt on ``engine``."""
    return _attempted(transaction, _ATTEMPT.engine, engine)


def ran_by(transaction: Transaction, worker: str) -> sa.ColumnElement[bool]:
    """Return the condition of a job to have an attempt by ``worker``."""
    return _attempted(transaction, _ATTEMPT.worker, worker)


def _attempted(
    transaction: Transaction, column: sa.Column[str], value: str
) -> sa.ColumnElement[bool]:
    # With the condition of the index.
    condition = sa.and_(column == value, column > sa.literal_column("''"))
    return _among(transaction, _Rows(_ATTEMPT.job_id, condition))


def changed_by(transaction: Transaction, operation_id: uuid.UUID) -> sa.ColumnElement[bool]:
    """Return the condition of a job to be changed or, as a rerun, submitted by an operation."""
    action = transaction.execute(
        sa.select(Operation.action).where(Operation.id == operation_id)
    ).scalar_one_or_none()
    mine = _ITEM.operation_id == operation_id
    if action is OperationAction.RERUN:
        # Only jobs that are done have a new one. With their result too, SQLite would not use the index of new jobs.
        new = sa.and_(mine, _ITEM.new_job_id.is_not(None))
        return _among(transaction, _Rows(_ITEM.new_job_id, new))
    done = sa.and_(mine, _ITEM.result == OperationResult.DONE)
    return _among(transaction, _Rows(_ITEM.job_id, done))


def has_rerun(transaction: Transaction) -> sa.ColumnElement[bool]:
    """Return the condition of a job to have a rerun."""
    return _among(transaction, _Rows(_AGAIN.rerun_of, _AGAIN.rerun_of.is_not(None)))


def has_no_rerun() -> sa.ColumnElement[bool]:
    """Return the condition of a job to have no rerun, as nearly all have: each job is tested."""
    return ~sa.exists(sa.select(1).where(_AGAIN.rerun_of == Job.id))


def _among(transaction: Transaction, rows: _Rows) -> sa.ColumnElement[bool]:
    """Return the condition of a job to be one of ``rows``."""
    job_ids = sa.select(rows.job_id).where(rows.condition)
    few = job_ids.limit(_FEW + 1).subquery()
    if transaction.scalar(sa.select(sa.func.count()).select_from(few)) <= _FEW:
        if transaction.dialect == "postgresql":
            # As an array, the ids are found first: the planner would expect other numbers.
            return Job.id == sa.any_(sa.func.array(job_ids.scalar_subquery()))
        return Job.id.in_(job_ids)
    # In the order of the index, so that neither reads more than one row.
    first = transaction.scalar(job_ids.order_by(rows.job_id).limit(1))
    last = transaction.scalar(job_ids.order_by(rows.job_id.desc()).limit(1))
    here = sa.exists(sa.select(1).where(rows.job_id == Job.id, rows.condition))
    return sa.and_(Job.id >= first, Job.id <= last, here)
