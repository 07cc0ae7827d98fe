"""The choice of the next job: the account and priority with the next turn, and of their jobs the first one.

The order of an account's jobs of one priority is ``ordering_at``.
"""

import functools
import uuid
from datetime import datetime, timedelta

import sqlalchemy as sa

from core.database import Now
from jobs.lifecycle import HEAD_START, TURN_STEP, Priority, Status
from jobs.records.declarative import table
from jobs.records.jobs import Job
from jobs.records.queue import QueueTurn
from jobs.store import groups, pauses, timeline, turns

_JOB = table(Job).c
#: Written out: PostgreSQL takes a limit that is a parameter for a tenth of the rows, and plans each claim anew.
_ONE = sa.literal_column("1", sa.Integer())


def ordering_at(delta: sa.BindParameter[timedelta]) -> sa.ColumnElement[datetime]:
    """Return ``ordering_at`` of a job that is due now; ``delta`` is bound to the :func:`ordering_delta`."""
    return Now(delta)


def ordering_delta(priority: Priority) -> timedelta:
    """Return the difference of ``ordering_at`` from the due time: the head start of ``priority``, negated."""
    return -HEAD_START[priority]


def eligible(
    queued: sa.ColumnElement[bool] | None = None,
) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the conditions of a claim: the job is queued, due, not past its deadline, and not held by its leader.

    ``queued`` is the condition of being queued; by default it tests the status.
    """
    # With a bare column SQLite may read its index and sort the whole queue for one job.
    deadline = sa.func.coalesce(_JOB.deadline_at, _JOB.deadline_at)
    due = sa.func.coalesce(_JOB.not_before, _JOB.not_before)
    return (
        timeline.standing(Status.QUEUED) if queued is None else queued,
        due <= Now(),
        deadline > Now(),
        groups.free(),
    )


#: The order of turns. Of two with the same number the higher priority is first: its step is shorter.
TURN_ORDER = (turns.TURN.next_turn, turns.TURN.step, turns.TURN.account_id)


def _has_job() -> sa.ColumnElement[bool]:
    """Return the condition of a turn to have an eligible job."""
    # A subquery with a limit instead of EXISTS, for which PostgreSQL may read the whole queue.
    return (
        sa.select(_JOB.id)
        .where(_JOB.account_id == turns.TURN.account_id, _JOB.priority == turns.TURN.priority)
        .where(*eligible(turns.waiting()))
        .order_by(_JOB.ordering_at, _JOB.id)
        .limit(_ONE)
        .correlate(table(QueueTurn))
        .scalar_subquery()
    ).is_not(None)


def _unpaused() -> sa.ColumnElement[bool]:
    """Return the condition of a turn not to be paused."""
    return pauses.free(turns.TURN.account_id, turns.TURN.priority)


@functools.cache
def unpaused_jobs(limit: int) -> sa.Select[int]:
    """Return how many jobs could be claimed, counted up to ``limit`` per turn, without those that are paused."""
    claimable = (
        sa.select(sa.literal(1).label("one"))
        .where(_JOB.account_id == turns.TURN.account_id, _JOB.priority == turns.TURN.priority)
        .where(*eligible(turns.waiting()))
        .limit(limit)
        .correlate(table(QueueTurn))
        .subquery()
    )
    of_turn = sa.select(sa.func.count()).select_from(claimable).scalar_subquery()
    return (
        sa.select(sa.func.coalesce(sa.func.sum(of_turn), 0))
        .select_from(table(QueueTurn))
        .where(_unpaused())
    )


@functools.cache
def any_turn() -> sa.Select[uuid.UUID, Priority]:
    """Return the statement that finds a turn with an eligible job, including turns that other claims are taking."""
    return (
        sa.select(turns.TURN.account_id, turns.TURN.priority)
        .where(_unpaused(), _has_job())
        .order_by(*TURN_ORDER)
        .limit(_ONE)
    )


@functools.cache
def turn() -> sa.Update:
    """Return the statement that takes the first turn with an eligible job, and returns its account and priority.

    On PostgreSQL it skips turns that another claim is taking at this moment: no claim waits, and two claims at once
    serve two accounts.
    """
    now = turns.virtual_time()
    latest = sa.select(sa.func.max(table(QueueTurn).alias("latest").c.next_turn)).scalar_subquery()
    step = TURN_STEP[Priority.NORMAL]
    chosen = (
        sa.select(
            turns.TURN.account_id,
            turns.TURN.priority,
            # An account whose jobs could not run for a while does not make up for the turns that it missed. When all
            # turns are near it missed at most one: then the query need not compute the virtual time.
            sa.case(
                (latest <= turns.TURN.next_turn + step, turns.TURN.next_turn),
                (turns.TURN.next_turn < now, now),
                else_=turns.TURN.next_turn,
            ).label("served"),
        )
        .where(_unpaused(), _has_job())
        .order_by(*TURN_ORDER)
        .limit(_ONE)
        # Not FOR UPDATE: submissions lock the row during their transaction, and a claim must not skip it for that.
        .with_for_update(skip_locked=True, key_share=True, of=table(QueueTurn))
        .cte("chosen")
    )
    return (
        sa.update(table(QueueTurn))
        .where(
            turns.TURN.account_id == chosen.c.account_id,
            turns.TURN.priority == chosen.c.priority,
        )
        .values(served_turn=chosen.c.served, next_turn=chosen.c.served + turns.TURN.step)
        .returning(turns.TURN.account_id, turns.TURN.priority)
    )


@functools.cache
def best(*, of_turn: bool) -> sa.ScalarSelect[uuid.UUID]:
    """Return the id of the best eligible job as a subquery, locked against other claims on PostgreSQL.

    With ``of_turn`` it is the best job of the account and the priority that are bound as ``b_account`` and
    ``b_class``, otherwise of all jobs.
    """
    mine = (
        _JOB.account_id == sa.bindparam("b_account", type_=_JOB.account_id.type),
        _JOB.priority == sa.bindparam("b_class", type_=_JOB.priority.type),
        *eligible(turns.waiting()),
    )
    choice = (
        sa.select(_JOB.id)
        .where(*(mine if of_turn else eligible()))
        .order_by(_JOB.ordering_at, _JOB.id)
        .limit(_ONE)
        .with_for_update(skip_locked=True)
        .cte("best")
    )
    return sa.select(choice.c.id).scalar_subquery()
