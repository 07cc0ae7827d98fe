"""The states of a job, the transitions between them, and the rules for its place in the queue. Pure: no SQL, no clock.

::

    queued ──claim──> running ──> succeeded | failed | cancelled
       ^                 │
       └── release, retry, lost lease
    queued ──> failed (deadline before start) | cancelled

Terminal states are final: a rerun of a finished job is a new job.
"""

from __future__ import annotations

import enum
import random
from datetime import timedelta


class Status(enum.StrEnum):
    """The state of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether the job cannot leave this state."""
        return not TRANSITIONS[self]


class Outcome(enum.StrEnum):
    """The result of an attempt; a running attempt has no outcome."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    #: The worker released the job early: drain, unreachable engine, or full engine. Does not count as a failure.
    RELEASED = "released"
    #: The engine failed and the job waits for the next attempt. Counts as a failure.
    RETRIED = "retried"
    #: The worker did not renew its lease in time. Counts as a crash.
    LOST = "lost"


class Priority(enum.StrEnum):
    """The priority classes of jobs."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    def exceeds(self, highest: Priority) -> bool:
        """Whether this class is above ``highest``."""
        order = list(Priority)
        return order.index(self) < order.index(highest)


class Role(enum.StrEnum):
    """The permissions of an API key; each role includes the roles before it."""

    READ = "read"
    SUBMIT = "submit"
    OPERATE = "operate"
    ADMIN = "admin"

    def reaches(self, needed: Role) -> bool:
        """Whether this role includes ``needed``."""
        order = list(Role)
        return order.index(self) >= order.index(needed)

    @property
    def highest_priority(self) -> Priority:
        """The highest priority that a key of this role may request if the key sets no other limit."""
        return Priority.HIGH if self.reaches(Role.OPERATE) else Priority.NORMAL


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
#: How far behind the current turn a class starts if the account has no job of the class in the queue.
#: High and normal jobs start immediately; low ones wait for a round of 16 normal jobs.
FIRST_TURN: dict[Priority, int] = {
    Priority.HIGH: 0,
    Priority.NORMAL: 0,
    Priority.LOW: TURN_STEP[Priority.LOW],
}

#: A job ranks as if it had been submitted this much earlier. Within an account and a class, the rank is the
#: order of submission. Between classes it matters only for a job without a turn; see :mod:`jobs.store.turns`.
HEAD_START: dict[Priority, timedelta] = {
    Priority.HIGH: timedelta(minutes=60),
    Priority.NORMAL: timedelta(minutes=30),
    Priority.LOW: timedelta(0),
}

_BACKOFF_BASE_SECONDS = 5.0
_BACKOFF_LIMIT_SECONDS = 60.0
#: Wait after a release that does not count as a failure, so that workers do not busy-wait for a full engine.
_RELEASE_SECONDS = 1.0


def backoff(count: int, *, rng: random.Random) -> timedelta:
    """Return the wait before the next attempt after ``count`` failures: 5 s, doubled up to 60 s, minus 0 to 20 %."""
    seconds = min(_BACKOFF_LIMIT_SECONDS, _BACKOFF_BASE_SECONDS * 2 ** max(0, count - 1))
    return timedelta(seconds=seconds * rng.uniform(0.8, 1.0))


def release_wait(*, rng: random.Random) -> timedelta:
    """Return the wait of a job that was released because its engine was full or unreachable."""
    return timedelta(seconds=_RELEASE_SECONDS * rng.uniform(0.5, 2.0))
