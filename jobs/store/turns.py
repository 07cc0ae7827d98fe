"""Turns of accounts in the queue: one row per account and priority with queued jobs.

This is start-time fair queuing. Virtual time is the number of the turn that was served last. A claim takes the row
with the lowest ``next_turn`` that has an eligible job, and moves that row ``step`` further. The step of a priority is
the inverse of its weight. A new row starts at the current virtual time, so the first job of an account never waits for
the backlog of another one, and an account that was idle neither gains nor loses.

Each queued job has a row of its account and class: :func:`enter` inserts it in the transaction that queues the job.
Rows may outlive their jobs; :func:`remove_passed` removes them.
"""

import uuid
from collections.abc import Iterable

import sqlalchemy as sa

from core.database import Database, Transaction
from jobs.lifecycle import FIRST_TURN, TURN_STEP, Priority
from jobs.records.declarative import table
from jobs.records.jobs import Job
from jobs.records.queue import QueueTurn

TURN = table(QueueTurn).c
_JOB = table(Job).c
#: At most this many rows are removed at once.
_BATCH = 500


def waiting() -> sa.ColumnElement[bool]:
    """Return the condition of a job to be queued, in the form of ``ix_jobs_turn``.

    By the constraints of the table it is equivalent to the status. But with the status both databases may use the index
    of all accounts, or sort an account's whole queue, and read 50,000 jobs of one account for the only job of another.
    """
    return sa.and_(_JOB.lease_owner.is_(None), _JOB.finished_at.is_(None))


def virtual_time() -> sa.ColumnElement[int]:
    """Return the number of the turn that was served last, 0 before the first, as a subquery.

    It reads all rows: each claim would have to update an index, for a value that few claims need.
    """
    served = table(QueueTurn).alias("served").c.served_turn
    return sa.func.coalesce(sa.select(sa.func.max(served)).scalar_subquery(), 0)


_OWN = (TURN.account_id == sa.bindparam("account_id"), TURN.priority == sa.bindparam("priority"))
#: The lock keeps :func:`remove_passed` from removing the row before the job is visible; claims do not wait for it.
_ENTERED = sa.select(TURN.next_turn).where(*_OWN).with_for_update(read=True, key_share=True)


def enter(transaction: Transaction, account_id: uuid.UUID, priority: Priority) -> None:
    """Ensure that the account has a turn at the priority, in the transaction that queues such a job."""
    key = {"account_id": account_id, "priority": priority}
    while transaction.execute(_ENTERED, key).first() is None:
        now = virtual_time()
        transaction.execute(
            transaction.insert(QueueTurn)
            .values(
                **key,
                step=TURN_STEP[priority],
                next_turn=now + FIRST_TURN[priority],
                served_turn=now,
            )
            .on_conflict_do_nothing(index_elements=["account_id", "priority"])
        )


def enter_all(transaction: Transaction, keys: Iterable[tuple[uuid.UUID, Priority]]) -> None:
    """Call :func:`enter` for each of ``keys``, always in the same order."""
    for account_id, priority in sorted(set(keys)):
        enter(transaction, account_id, priority)


def remove_passed(database: Database) -> int:
    """Remove the rows without a queued job that virtual time has passed; return how many.

    Until virtual time passes it, a row remembers how many turns the account has had.
    """
    with database.reading() as transaction:
        passed = transaction.execute(_PASSED).all()
    if not passed:
        return 0
    with database.transaction() as transaction:
        removed = 0
        for row in passed:
            key = {"b_account": row.account_id, "b_priority": row.priority}
            # The second statement sees every job that was committed before the lock of the first.
            if transaction.execute(_LOCKED, key).first() is not None:
                removed += transaction.execute(_REMOVED, key).first() is not None
        return removed


_HAS_JOB = (
    sa.select(sa.literal(1))
    .select_from(table(Job))
    .where(waiting(), _JOB.account_id == TURN.account_id, _JOB.priority == TURN.priority)
    .correlate(table(QueueTurn))
    .exists()
)
_PASSED = (
    sa.select(TURN.account_id, TURN.priority)
    .where(TURN.next_turn < virtual_time(), ~_HAS_JOB)
    .order_by(TURN.account_id, TURN.priority)
    .limit(_BATCH)
)
_ONE = (TURN.account_id == sa.bindparam("b_account"), TURN.priority == sa.bindparam("b_priority"))
_LOCKED = sa.select(TURN.next_turn).where(*_ONE).with_for_update(skip_locked=True)
_REMOVED = sa.delete(table(QueueTurn)).where(*_ONE, ~_HAS_JOB).returning(TURN.account_id)
