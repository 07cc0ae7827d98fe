"""The states of a job, the moves between them, and what decides the next one. Pure: no SQL, no clock.

::

    queued ──claim──> running ──> succeeded | failed | cancelled
       ^                 │
       └── release, retry, lost lease
    queued ──> failed (deadline before start) | cancelled

Terminal is terminal: a finished job is run again as a new one.
"""

from __future__ import annotations

import enum
import random
from datetime import timedelta


class Status(enum.StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether nothing will ever change again."""
        return not TRANSITIONS[self]


class Outcome(enum.StrEnum):
    """How an attempt ended; a running attempt has none."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    #: Given back before its end: drain, engine out of reach, engine full. Counts nowhere.
    RELEASED = "released"
    #: The engine failed and the job waits for another try. Counts as a failure.
    RETRIED = "retried"
    #: The worker was silent for longer than its lease. Counts as a crash.
    LOST = "lost"


class Priority(enum.StrEnum):
    """The classes of urgency."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    def exceeds(self, highest: Priority) -> bool:
        """Whether this class is above ``highest``."""
        order = list(Priority)
        return order.index(self) < order.index(highest)


class Role(enum.StrEnum):
    """What a key may do."""

    READ = "read"
    SUBMIT = "submit"
    OPERATE = "operate"
    ADMIN = "admin"

    @property
    def highest_priority(self) -> Priority:
        """The highest class that a key of this role may ask for unless the key says otherwise."""
        return Priority.HIGH if self in (Role.OPERATE, Role.ADMIN) else Priority.NORMAL


TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.RUNNING, Status.FAILED, Status.CANCELLED}),
    Status.RUNNING: frozenset({Status.QUEUED, Status.SUCCEEDED, Status.FAILED, Status.CANCELLED}),
    Status.SUCCEEDED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}

#: How far an account moves back in the queue when a job of the class is claimed: the inverse of the class's weight.
#: While all three wait, an account gets 16 high jobs for one normal job, and 16 normal jobs for one low job.
TURN_STEP: dict[Priority, int] = {Priority.HIGH: 1, Priority.NORMAL: 16, Priority.LOW: 256}
#: How far behind the present turn a class begins when the account has had no job of it in the queue.
#: High and normal jobs begin at once; low ones let a round of 16 normal jobs pass first.
FIRST_TURN: dict[Priority, int] = {
    Priority.HIGH: 0,
    Priority.NORMAL: 0,
    Priority.LOW: TURN_STEP[Priority.LOW],
}

#: A job of a class ranks as if it had been submitted this much earlier. Within an account and a class the rank is the
#: order of submission. Between classes it counts only for a job that has no turn; see :mod:`jobs.store.turns`.
HEAD_START: dict[Priority, timedelta] = {
    Priority.HIGH: timedelta(minutes=60),
    Priority.NORMAL: timedelta(minutes=30),
    Priority.LOW: timedelta(0),
}

_BACKOFF_BASE_SECONDS = 5.0
_BACKOFF_LIMIT_SECONDS = 60.0
#: A job given back uncounted waits this long, so that workers do not spin on a full engine.
_RELEASE_SECONDS = 1.0


def backoff(count: int, *, rng: random.Random) -> timedelta:
    """Return the wait before the next try after ``count`` counted failures: 5 s doubling to 60 s, -20 % jitter."""
    seconds = min(_BACKOFF_LIMIT_SECONDS, _BACKOFF_BASE_SECONDS * 2 ** max(0, count - 1))
    return timedelta(seconds=seconds * rng.uniform(0.8, 1.0))


def release_wait(*, rng: random.Random) -> timedelta:
    """Return the wait of a job that was given back uncounted because its engine was full or away."""
    return timedelta(seconds=_RELEASE_SECONDS * rng.uniform(0.5, 2.0))
