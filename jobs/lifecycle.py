"""The states of a job, their transitions, priorities, roles and retry delays. Pure: no SQL, no clock.

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
        """Whether the state is final."""
        return not TRANSITIONS[self]


class Outcome(enum.StrEnum):
    """The result of an attempt; a running attempt has none."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    #: Returned to the queue before its end: drain, engine unreachable, engine full. Does not count.
    RELEASED = "released"
    #: The engine failed and the job waits for the next attempt. Counts as a failure.
    RETRIED = "retried"
    #: The worker did not renew its lease in time. Counts as a crash.
    LOST = "lost"


class Priority(enum.StrEnum):
    """The priority of a job."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    def exceeds(self, highest: Priority) -> bool:
        """Whether this priority is above ``highest``."""
        order = list(Priority)
        return order.index(self) < order.index(highest)


class OperationAction(enum.StrEnum):
    """What an operation does to each of its jobs."""

    RERUN = "rerun"
    CANCEL = "cancel"
    DELETE = "delete"
    RUN_NOW = "run_now"


class OperationResult(enum.StrEnum):
    """What came of one job of an operation; a job that the operation has not reached has none."""

    DONE = "done"
    #: There was nothing to do, such as to cancel a job that had ended.
    SKIPPED = "skipped"
    FAILED = "failed"


class Role(enum.StrEnum):
    """The role of an API key."""

    READ = "read"
    SUBMIT = "submit"
    OPERATE = "operate"
    ADMIN = "admin"

    @property
    def highest_priority(self) -> Priority:
        """The default of the highest priority that a key of this role may use."""
        return Priority.HIGH if self in (Role.OPERATE, Role.ADMIN) else Priority.NORMAL


TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.RUNNING, Status.FAILED, Status.CANCELLED}),
    Status.RUNNING: frozenset({Status.QUEUED, Status.SUCCEEDED, Status.FAILED, Status.CANCELLED}),
    Status.SUCCEEDED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}

#: How far an account moves back in the queue when a job of the priority is claimed: the inverse of its weight. While
#: jobs of all priorities wait, an account gets 16 high jobs per normal job, and 16 normal jobs per low job.
TURN_STEP: dict[Priority, int] = {Priority.HIGH: 1, Priority.NORMAL: 16, Priority.LOW: 256}
#: Distance from the current turn at which a priority starts if the account had no job of it in the queue.
#: High and normal jobs start at once; low ones start after 16 normal jobs.
FIRST_TURN: dict[Priority, int] = {
    Priority.HIGH: 0,
    Priority.NORMAL: 0,
    Priority.LOW: TURN_STEP[Priority.LOW],
}

#: A job ranks as if it had been submitted this much earlier. Within one account and priority, the rank is the order of
#: submission. Between priorities it matters only for jobs without a turn; see :mod:`jobs.store.turns`.
HEAD_START: dict[Priority, timedelta] = {
    Priority.HIGH: timedelta(minutes=60),
    Priority.NORMAL: timedelta(minutes=30),
    Priority.LOW: timedelta(0),
}

_BACKOFF_BASE_SECONDS = 5.0
_BACKOFF_LIMIT_SECONDS = 60.0
#: Delay of a released job, so that workers do not spin on a full engine.
_RELEASE_SECONDS = 1.0


def backoff(count: int, *, rng: random.Random) -> timedelta:
    """Return the delay of the next attempt after ``count`` failures: 5 s, doubling to 60 s, with -20% jitter."""
    seconds = min(_BACKOFF_LIMIT_SECONDS, _BACKOFF_BASE_SECONDS * 2 ** max(0, count - 1))
    return timedelta(seconds=seconds * rng.uniform(0.8, 1.0))


def release_wait(*, rng: random.Random) -> timedelta:
    """Return the delay of a job that was released because its engine was full or unreachable."""
    return timedelta(seconds=_RELEASE_SECONDS * rng.uniform(0.5, 2.0))
