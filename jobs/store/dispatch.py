"""Which job is next. One indexed column, ``rank_at``, in one function; whatever else will decide goes in here."""

from __future__ import annotations

import functools
import uuid
from datetime import datetime, timedelta

import sqlalchemy as sa

from jobs.database import Now
from jobs.lifecycle import HEAD_START, Priority, Status
from jobs.records import Job, table
from jobs.store import groups, timeline

_JOB = table(Job).c


def rank_at(delta: sa.BindParameter[timedelta]) -> sa.ColumnElement[datetime]:
    """Return the rank of a job that is due now: due time minus the head start of its class, as :func:`rank_delta`."""
    return Now(delta)


def rank_delta(priority: Priority) -> timedelta:
    """Return how far the rank of a class is from its due time."""
    return -HEAD_START[priority]


def eligible() -> tuple[sa.ColumnElement[bool], ...]:
    """Return what makes a job claimable: queued, due, not past its deadline, and not waiting for its leader."""
    # As a bare column the deadline tempts SQLite to walk its index and to sort the whole queue for one job.
    deadline = sa.func.coalesce(_JOB.deadline_at, _JOB.deadline_at)
    return (
        timeline.standing(Status.QUEUED),
        _JOB.not_before <= Now(),
        deadline > Now(),
        groups.free(),
    )


@functools.cache
def best() -> sa.ScalarSelect[uuid.UUID]:
    """Return the id of the best eligible job as a sub-query, locked against other claimers on PostgreSQL."""
    choice = (
        sa.select(_JOB.id)
        .where(*eligible())
        .order_by(_JOB.rank_at, _JOB.id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .cte("best")
    )
    return sa.select(choice.c.id).scalar_subquery()


def ahead() -> sa.ColumnElement[bool]:
    """Return the condition of being claimed before the job whose ``id`` and ``rank_at`` are bound, if eligible.

    The head of the queue is named as well: PostgreSQL knows the ranks of all jobs that ever were, not of
    those that wait, and would else take the whole queue to be ahead and read it all.
    """
    head = sa.select(sa.func.min(_JOB.rank_at)).where(timeline.standing(Status.QUEUED))
    rank_at = sa.bindparam("rank_at", type_=_JOB.rank_at.type)
    job_id = sa.bindparam("id", type_=_JOB.id.type)
    return sa.and_(
        _JOB.rank_at.between(head.scalar_subquery(), rank_at),
        sa.tuple_(_JOB.rank_at, _JOB.id) < sa.tuple_(rank_at, job_id),
    )
