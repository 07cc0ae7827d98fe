"""The position of a queued job: how many jobs are claimed before it, and when it may start.

A position is what :mod:`jobs.store.dispatch` would do if no job came in and none ended. Followers count although their
leaders may hold them for a while; jobs that wait for another attempt do not.
"""

from __future__ import annotations

import functools
import math
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import sqlalchemy as sa

from core.database import Now, Transaction
from jobs.lifecycle import FIRST_TURN, TURN_STEP, Priority, Status
from jobs.records.declarative import table
from jobs.records.jobs import Job
from jobs.records.queue import QueueTurn
from jobs.store import pauses, timeline, turns

#: At most this many jobs are counted for a position, and about as many for all other accounts together.
LIMIT = 2_000
#: The same for the response to a submission.
_LIMIT_AT_ONCE = 100
#: An estimate needs this many finished jobs.
_PACE_JOBS = 20
_KEEP_SECONDS = 1.0
#: A count is repeated after this many times its own duration.
_KEEP_SHARE = 20

_T = TypeVar("_T")
Timer = Callable[[], float]


@dataclass(frozen=True)
class QueuePosition:
    """The position of a queued job.

    Attributes:
        position: 1 is next.
        at_least: whether the count stopped at its limit, and there may be more jobs before it.
        eta_seconds: seconds until the job may start, None when unknown; with ``at_least`` it may take longer.
        paused: whether the job is paused; then there is no estimate.
    """

    position: int
    eta_seconds: int | None
    at_least: bool = False
    paused: bool = False


@dataclass(frozen=True)
class Pace:
    """How fast the queue moves: the mean seconds of the last runs, and how many jobs run at once."""

    seconds: float
    running: int

    def eta(self, position: int) -> int:
        """Return the seconds until the job at ``position`` may start.

        While jobs are queued, the engines are full: the running jobs are how many start in the time of one run.
        """
        return round(math.ceil(position / max(1, self.running)) * self.seconds)


def of(transaction: Transaction, job: Job) -> QueuePosition:
    """Return the position of ``job``, which is queued."""
    counted = _count(transaction, job, limit=LIMIT)
    if _paused(pauses.active_in(transaction), job):
        return QueuePosition(counted.position, None, counted.at_least, paused=True)
    pace = _pace(transaction)
    eta = pace.eta(counted.position) if pace else None
    return QueuePosition(counted.position, eta, counted.at_least)


def _paused(active: Sequence[pauses.PauseView], job: Job) -> bool:
    return any(pause.covers(job.account_id, job.priority) for pause in active)


class PositionForecast:
    """The positions of jobs that were just submitted, at a cost that does not grow with the queue.

    Positions beyond about a hundred are lower bounds. Their estimates come from counts of the whole queue, which this
    process repeats about once a second.

    Args:
        timer: returns seconds, by a clock that never goes back.
    """

    def __init__(self, *, timer: Timer = time.monotonic) -> None:
        self._pace: _Recent[Pace | None] = _Recent(_pace, None, timer=timer)
        self._pauses: _Recent[list[pauses.PauseView]] = _Recent(pauses.active_in, [], timer=timer)
        self._queue: _Recent[_Queue] = _Recent(_Queue.read, _Queue(0, {}), timer=timer)

    def of(self, transaction: Transaction, job: Job, *, behind: int = 0) -> QueuePosition:
        """Return the position of the ``behind``-th job after ``job``; both were just submitted."""
        counted = _count(transaction, job, limit=_LIMIT_AT_ONCE, behind=behind)
        if _paused(self._pauses.get(transaction), job):
            return QueuePosition(counted.position, None, counted.at_least, paused=True)
        pace = self._pace.get(transaction)
        if pace is None:
            return QueuePosition(counted.position, None, counted.at_least)
        position = counted.position
        if counted.at_least:
            position = max(position, self._queue.get(transaction).position(job))
        return QueuePosition(counted.position, pace.eta(position), counted.at_least)


class _Recent(Generic[_T]):
    """A value that is read again about once a second, and less often when reading takes long. Thread-safe."""

    def __init__(self, read: Callable[[Transaction], _T], first: _T, *, timer: Timer) -> None:
        self._read = read
        self._timer = timer
        self._lock = threading.Lock()
        self._value, self._due = first, -math.inf

    def get(self, transaction: Transaction) -> _T:
        with self._lock:
            started = self._timer()
            if started < self._due:
                return self._value
            # One thread reads; the others use the old value meanwhile.
            self._due = started + _KEEP_SECONDS
        value = self._read(transaction)
        ended = self._timer()
        with self._lock:
            self._value = value
            self._due = ended + max(_KEEP_SECONDS, _KEEP_SHARE * (ended - started))
        return value


@dataclass(frozen=True)
class _Turn:
    """A turn and the number of its queued jobs."""

    step: int
    next_turn: int
    jobs: int

    def before(self, turn: int, now: int) -> int:
        """Return how many of its jobs are claimed before the number ``turn``; the virtual time is ``now``."""
        if self.next_turn >= turn:
            return 0
        return min(self.jobs, 1 + max(0, turn - 1 - max(self.next_turn, now)) // self.step)


@dataclass(frozen=True)
class _Queue:
    """The number of jobs of each turn of the queue."""

    now: int
    turns: dict[tuple[uuid.UUID, Priority], _Turn]

    @classmethod
    def read(cls, transaction: Transaction) -> _Queue:
        """Count the queue by accounts and priorities."""
        now = transaction.scalar(sa.select(turns.virtual_time()))
        rows = transaction.execute(_BY_TURN)
        by_key = {
            (row.account_id, row.priority): _Turn(row.step, row.next_turn, row.jobs) for row in rows
        }
        return cls(now, by_key)

    def position(self, job: Job) -> int:
        """Return the position of the last job of the account and priority of ``job``."""
        key = (job.account_id, job.priority)
        mine = self.turns.get(key)
        if mine is None:
            return 1
        turn = max(mine.next_turn, self.now) + max(0, mine.jobs - 1) * mine.step
        others = (
            other.before(turn, self.now) for its_key, other in self.turns.items() if its_key != key
        )
        return max(1, mine.jobs) + sum(others)


@dataclass(frozen=True)
class _Counted:
    position: int
    at_least: bool


def _count(transaction: Transaction, job: Job, *, limit: int, behind: int = 0) -> _Counted:
    """Return the position of the ``behind``-th job after ``job`` in its account and priority, up to about ``limit``."""
    key = {"account_id": job.account_id, "priority": job.priority}
    mine = transaction.execute(
        _MINE, key | {"ordering_at": job.ordering_at, "id": job.id, "most": limit}
    ).one()
    own = mine.ahead + behind
    bounded = mine.ahead >= limit
    if mine.turns == (mine.next_turn is not None):
        # No other account or priority has a turn.
        return _Counted(1 + own, bounded)
    step = TURN_STEP[job.priority]
    first = mine.next_turn
    if first is None:
        # The job was claimed after it was read, and its turn removed: return the position that a new one would get.
        first = mine.now + FIRST_TURN[job.priority]
    turn = first if own == 0 else max(first, mine.now) + own * step
    # No turn needs a count beyond the jobs that a turn of the highest priority could have before this one.
    most = max(1, min(limit // min(limit, mine.turns), 2 + turn - min(first, mine.now)))
    others = transaction.execute(
        _OTHERS,
        key | {"turn": turn, "step": step, "now": mine.now, "most": most, "rows": limit},
    ).one()
    at_least = bounded or bool(others.cut) or others.rows >= limit
    return _Counted(1 + own + int(others.ahead), at_least)


_JOB = table(Job).c


def _standing(
    account_id: sa.ColumnElement[uuid.UUID], priority: sa.ColumnElement[Priority]
) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the condition of a job to count among the queued jobs of an account at a priority."""
    return (
        turns.waiting(),
        _JOB.account_id == account_id,
        _JOB.priority == priority,
        _JOB.not_before <= Now(),
        # With the bare column SQLite may read its index.
        sa.func.coalesce(_JOB.deadline_at, _JOB.deadline_at) > Now(),
    )


def _bound(name: str, column: sa.ColumnElement[_T]) -> sa.BindParameter[_T]:
    return sa.bindparam(name, type_=column.type)


_ACCOUNT = _bound("account_id", _JOB.account_id)
_PRIORITY = _bound("priority", _JOB.priority)
_MOST = sa.bindparam("most", type_=sa.Integer())
_AHEAD = (
    sa.select(sa.literal(1).label("one"))
    .where(
        *_standing(_ACCOUNT, _PRIORITY),
        # The next condition implies this one, but neither database uses an index for it and the other columns together.
        _JOB.ordering_at <= _bound("ordering_at", _JOB.ordering_at),
        sa.tuple_(_JOB.ordering_at, _JOB.id)
        < sa.tuple_(_bound("ordering_at", _JOB.ordering_at), _bound("id", _JOB.id)),
    )
    .limit(_MOST)
    .subquery()
)
#: The turn of a job's account and priority, the virtual time, the number of turns, and the jobs before it.
_MINE = sa.select(
    sa.select(turns.TURN.next_turn)
    .where(turns.TURN.account_id == _ACCOUNT, turns.TURN.priority == _PRIORITY)
    .scalar_subquery()
    .label("next_turn"),
    turns.virtual_time().label("now"),
    sa.select(sa.func.count()).select_from(table(QueueTurn)).scalar_subquery().label("turns"),
    sa.select(sa.func.count()).select_from(_AHEAD).scalar_subquery().label("ahead"),
)


@functools.cache
def _others() -> sa.Select[int, int, int]:
    """Return the statement that counts the jobs of other turns before the turn that is bound."""
    turn = sa.bindparam("turn", type_=sa.BigInteger())
    now = sa.bindparam("now", type_=sa.BigInteger())
    own = sa.tuple_(_bound("step", turns.TURN.step), _ACCOUNT)
    # At the same turn the order of dispatch decides.
    limit = sa.case((sa.tuple_(turns.TURN.step, turns.TURN.account_id) < own, turn + 1), else_=turn)
    before = (
        sa.select(
            turns.TURN.account_id,
            turns.TURN.priority,
            turns.TURN.next_turn,
            turns.TURN.step,
            limit.label("limit"),
        )
        .where(
            turns.TURN.next_turn < limit,
            sa.or_(turns.TURN.account_id != _ACCOUNT, turns.TURN.priority != _PRIORITY),
        )
        .order_by(turns.TURN.next_turn)
        .limit(sa.bindparam("rows", type_=sa.Integer()))
        .subquery("before")
    )
    waiting = (
        sa.select(sa.literal(1).label("one"))
        .where(*_standing(before.c.account_id, before.c.priority))
        .limit(_MOST)
        .correlate(before)
        .subquery()
    )
    base = sa.case((before.c.next_turn < now, now), else_=before.c.next_turn)
    rest = before.c.limit - 1 - base
    fitting = 1 + sa.case((rest > 0, rest), else_=0) // before.c.step
    counted = (
        sa.select(
            sa.select(sa.func.count())
            .select_from(waiting)
            .correlate(before)
            .scalar_subquery()
            .label("jobs"),
            fitting.label("fitting"),
        )
        .cte("counted")
        .prefix_with("MATERIALIZED")
    )  # Otherwise SQLite counts three times.
    jobs, fits = counted.c.jobs, counted.c.fitting
    return sa.select(
        sa.func.coalesce(sa.func.sum(sa.case((jobs < fits, jobs), else_=fits)), 0).label("ahead"),
        sa.func.count().label("rows"),
        sa.func.coalesce(
            sa.func.max(sa.case((sa.and_(jobs >= _MOST, fits > _MOST), 1), else_=0)), 0
        ).label("cut"),
    )


_OTHERS = _others()
_BY_TURN = (
    sa.select(
        turns.TURN.account_id,
        turns.TURN.priority,
        turns.TURN.step,
        turns.TURN.next_turn,
        sa.func.count().label("jobs"),
    )
    .join(
        table(Job),
        sa.and_(_JOB.account_id == turns.TURN.account_id, _JOB.priority == turns.TURN.priority),
    )
    .where(turns.waiting())
    .group_by(turns.TURN.account_id, turns.TURN.priority, turns.TURN.step, turns.TURN.next_turn)
)
_RECENT = (
    sa.select(_JOB.started_at, _JOB.finished_at)
    .where(timeline.standing(Status.SUCCEEDED))
    .order_by(_JOB.finished_at.desc())
    .limit(_PACE_JOBS)
)
_RUNNING = (
    sa.select(sa.func.count()).select_from(table(Job)).where(timeline.standing(Status.RUNNING))
)


def _pace(transaction: Transaction) -> Pace | None:
    """Return how fast the queue moves; None until enough jobs have finished."""
    recent = transaction.execute(_RECENT).all()
    if len(recent) < _PACE_JOBS:
        return None
    running = transaction.scalar(_RUNNING)
    seconds: float = sum((row.finished_at - row.started_at).total_seconds() for row in recent)
    return Pace(seconds / _PACE_JOBS, running)
