"""Whose turn it is: one row for each account and class that has queued jobs.

This is start-time fair queuing. Virtual time is the number of the turn that was served last. A claim takes the row
with the lowest ``next_turn`` that has an eligible job, and moves that row ``step`` further. The step of a class is the
inverse of its weight. A row that is new starts at the present virtual time, so the first job of an account never waits
for the backlog of another one, and an account that was idle neither gains nor loses.

Rows may outlive their jobs (:func:`tidy` removes them), but each queued job must have its row: :func:`enter` makes it
in the transaction that queues the job. A process of an older version makes none; :func:`tidy` adds those, and until
then a claim finds such a job by its rank alone.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable

import sqlalchemy as sa

from core.database import Database, Transaction
from jobs.lifecycle import FIRST_TURN, TURN_STEP, Priority
from jobs.records import Job, QueueTurn, table

TURN = table(QueueTurn).c
_JOB = table(Job).c
#: Rows that one tidying removes, at most.
_BATCH = 500


def waiting() -> sa.ColumnElement[bool]:
    """Return the condition of being queued, in the words of ``ix_jobs_turn``.

    By the constraints of the table it is the same as the status. But with the status both databases may take the
    index of all accounts' ranks, or sort an account's whole queue, and read 50,000 jobs of one account for the single
    one of another.
    """
    return sa.and_(_JOB.lease_owner.is_(None), _JOB.finished_at.is_(None))


def virtual_time() -> sa.ColumnElement[int]:
    """Return the turn that was served last, 0 before the first, as a sub-query.

    It reads all rows: an index would have to be written by each claim, for a value that few claims need.
    """
    served = table(QueueTurn).alias("served").c.served_turn
    return sa.func.coalesce(sa.select(sa.func.max(served)).scalar_subquery(), 0)


_OWN = (TURN.account_id == sa.bindparam("account_id"), TURN.priority == sa.bindparam("priority"))
#: The lock keeps :func:`tidy` from removing the row before the job is visible; claims do not wait for it.
_ENTERED = sa.select(TURN.next_turn).where(*_OWN).with_for_update(read=True, key_share=True)


def enter(transaction: Transaction, account_id: uuid.UUID, priority: Priority) -> None:
    """Make sure that the account has a turn in the class, in the transaction that queues a job of it."""
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
    """Do :func:`enter` for each of ``keys``, always in the same order."""
    for account_id, priority in sorted(set(keys)):
        enter(transaction, account_id, priority)


def tidy(database: Database) -> int:
    """Add the rows that queued jobs lack and remove rows without a queued job; return how many changed.

    A row is removed only once virtual time has passed it: until then it remembers what the account has had.
    """
    with database.reading() as transaction:
        missing = transaction.execute(_MISSING).all()
        passed = transaction.execute(_PASSED).all()
    if not missing and not passed:
        return 0
    with database.transaction() as transaction:
        enter_all(transaction, [(row.account_id, row.priority) for row in missing])
        removed = 0
        for row in passed:
            key = {"b_account": row.account_id, "b_priority": row.priority}
            # The second statement sees every job that was committed before the lock of the first.
            if transaction.execute(_LOCKED, key).first() is not None:
                removed += transaction.execute(_REMOVED, key).first() is not None
        return len(missing) + removed


_HAS_JOB = (
    sa.select(sa.literal(1))
    .select_from(table(Job))
    .where(waiting(), _JOB.account_id == TURN.account_id, _JOB.priority == TURN.priority)
    .correlate(table(QueueTurn))
    .exists()
)
_KEYS = sa.select(_JOB.account_id, _JOB.priority).where(waiting()).distinct().subquery()
_MISSING = (
    sa.select(_KEYS.c.account_id, _KEYS.c.priority)
    .outerjoin(
        table(QueueTurn),
        sa.and_(TURN.account_id == _KEYS.c.account_id, TURN.priority == _KEYS.c.priority),
    )
    .where(TURN.account_id.is_(None))
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
