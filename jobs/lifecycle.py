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


class Role(enum.StrEnum):
    """What a key may do; each includes the ones before it."""

    READ = "read"
    SUBMIT = "submit"
    OPERATE = "operate"
    ADMIN = "admin"

    def reaches(self, needed: Role) -> bool:
        """Whether this role includes ``needed``."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.RUNNING, Status.FAILED, Status.CANCELLED}),
    Status.RUNNING: frozenset({Status.QUEUED, Status.SUCCEEDED, Status.FAILED, Status.CANCELLED}),
    Status.SUCCEEDED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}

#: A job of a class ranks as if it had been submitted this much earlier. So the class decides at first,
#: and age in the end: a low job waits at most an hour longer than a high one submitted at its side.
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
