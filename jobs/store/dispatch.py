"""Which job is next: the account and class whose turn it is, and of these the job with the lowest ``ordering_at``."""

from __future__ import annotations

import functools
import uuid
from datetime import datetime, timedelta

import sqlalchemy as sa

from core.database import Now
from jobs.lifecycle import HEAD_START, TURN_STEP, Priority, Status
from jobs.records import Job, QueueTurn, table
from jobs.store import groups, timeline, turns

_JOB = table(Job).c
#: Written out: PostgreSQL takes a limit that is a parameter for a tenth of the rows, and plans each claim anew.
_ONE = sa.literal_column("1", sa.Integer())


def ordering_at(delta: sa.BindParameter[timedelta]) -> sa.ColumnElement[datetime]:
    """Return the rank of a job that is due now: due time minus the head start of its class, as :func:`rank_delta`."""
    return Now(delta)


def rank_delta(priority: Priority) -> timedelta:
    """Return how far the rank of a class is from its due time."""
    return -HEAD_START[priority]


def eligible(
    queued: sa.ColumnElement[bool] | None = None,
) -> tuple[sa.ColumnElement[bool], ...]:
    """Return what makes a job claimable: queued, due, not past its deadline, and not waiting for its leader.

    ``queued`` is the condition of being queued, by default that of the status.
    """
    # As a bare column the deadline tempts SQLite to walk its index and to sort the whole queue for one job.
    deadline = sa.func.coalesce(_JOB.deadline_at, _JOB.deadline_at)
    return (
        timeline.standing(Status.QUEUED) if queued is None else queued,
        _JOB.not_before <= Now(),
        deadline > Now(),
        groups.free(),
    )


#: The order of turns. Of two at the same turn the higher class is first, its step is the shorter one.
TURN_ORDER = (turns.TURN.next_turn, turns.TURN.step, turns.TURN.account_id)


def _has_job() -> sa.ColumnElement[bool]:
    """Return the condition of having an eligible job, for a turn."""
    # A value with a limit rather than EXISTS, which PostgreSQL may answer by reading the whole queue at once.
    return (
        sa.select(_JOB.id)
        .where(_JOB.account_id == turns.TURN.account_id, _JOB.priority == turns.TURN.priority)
        .where(*eligible(turns.waiting()))
        .order_by(_JOB.ordering_at, _JOB.id)
        .limit(_ONE)
        .correlate(table(QueueTurn))
        .scalar_subquery()
    ).is_not(None)


@functools.cache
def any_turn() -> sa.Select[uuid.UUID]:
    """Return the statement that finds a turn with an eligible job, also one that another claim is taking."""
    return sa.select(turns.TURN.account_id).where(_has_job()).order_by(*TURN_ORDER).limit(_ONE)


@functools.cache
def turn() -> sa.Update:
    """Return the statement that takes the first turn with an eligible job, and gives account and class of it.

    On PostgreSQL it passes turns that another claim is taking at this moment: nobody waits, and two claims at once
    serve two accounts.
    """
    now = turns.virtual_time()
    latest = sa.select(sa.func.max(table(QueueTurn).alias("latest").c.next_turn)).scalar_subquery()
    step = TURN_STEP[Priority.NORMAL]
    chosen = (
        sa.select(
            turns.TURN.account_id,
            turns.TURN.priority,
            # An account whose jobs could not run for a while does not make up for the turns that it missed. It missed
            # none, or one, when all turns are near: then the present one need not be looked for.
            sa.case(
                (latest <= turns.TURN.next_turn + step, turns.TURN.next_turn),
                (turns.TURN.next_turn < now, now),
                else_=turns.TURN.next_turn,
            ).label("served"),
        )
        .where(_has_job())
        .order_by(*TURN_ORDER)
        .limit(_ONE)
        # Not FOR UPDATE: submissions hold the row for their transaction, and are not to make a claim pass it.
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
    """Return the id of the best eligible job as a sub-query, locked against other claimers on PostgreSQL.

    With ``of_turn``, of the account and the class that are bound as ``b_account`` and ``b_class``; else of all.
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
