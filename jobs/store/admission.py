"""Admission of jobs: room in the queue, and free space on the disk of an SQLite database."""

import shutil
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from core import errors
from core.database import Database
from core.database_faults import DiskFull
from core.settings import Settings
from jobs.lifecycle import Status
from jobs.records.jobs import Job
from jobs.store import timeline

Timer = Callable[[], float]

_LOOK_SECONDS = 1.0
#: A count is repeated after this many times its own duration: a huge queue costs at most 5 % of a thread.
_COUNT_SHARE = 20
_QUEUE_RETRY_SECONDS = 10
_DISK_RETRY_SECONDS = 60


@dataclass
class _Count:
    """The number of queued jobs: the last count, plus those that this process has accepted since."""

    jobs: int
    #: When to count again, by the timer.
    due: float


class Admission:
    """Limits the queue, per account and in total.

    To count a long queue takes longer than to accept a job, so it is counted about once a second, and the jobs that
    this process accepts are added. The limits are therefore soft: jobs that other processes accept within that second
    may exceed them. A job that returns to the queue for another attempt is never refused.

    Args:
        database: where jobs are stored.
        settings: the limits.
        timer: returns seconds, by a clock that never goes back.
    """

    def __init__(
        self, database: Database, settings: Settings, *, timer: Timer = time.monotonic
    ) -> None:
        self._database = database
        self._per_account = settings.queued_jobs_per_account
        self._total = settings.queued_jobs_total
        self._timer = timer
        self._lock = threading.Lock()
        #: By account; None: all accounts together.
        self._counts: dict[uuid.UUID | None, _Count] = {}

    def check(self, account_id: uuid.UUID, *, jobs: int = 1) -> None:
        """Return when the queue has room for ``jobs`` more jobs of ``account_id``.

        Raises:
            core.errors.QueueFull: the queue has reached a limit, or the jobs would exceed it.
            core.database_faults.DatabaseUnavailable: the database does not answer.
        """
        queued = self._queued(None, cap=self._total)
        if queued + jobs > self._total:
            raise errors.QueueFull(
                f"The queue is full: it has {queued} jobs.{_wanted(jobs)}",
                retry_after=_QUEUE_RETRY_SECONDS,
            )
        # An account cannot have more jobs than the queue.
        if queued + jobs <= self._per_account:
            return
        queued = self._queued(account_id, cap=self._per_account)
        if queued + jobs > self._per_account:
            raise errors.QueueFull(
                f"The account's queue is full: it has {queued} jobs.{_wanted(jobs)}",
                retry_after=_QUEUE_RETRY_SECONDS,
            )

    def took(self, account_id: uuid.UUID, *, jobs: int = 1) -> None:
        """Add ``jobs`` of ``account_id``, which this process has accepted, to the counts."""
        with self._lock:
            for key in (account_id, None):
                if key in self._counts:
                    self._counts[key].jobs += jobs

    def _queued(self, account_id: uuid.UUID | None, *, cap: int) -> int:
        """Return how many jobs are queued, counted up to ``cap``."""
        started = self._timer()
        with self._lock:
            known = self._counts.get(account_id)
            if known is not None:
                if started < known.due:
                    return known.jobs
                # One thread counts; the others use the old count meanwhile.
                known.due = started + _LOOK_SECONDS
        counted = _count(self._database, account_id, limit=cap)
        ended = self._timer()
        pause = max(_LOOK_SECONDS, _COUNT_SHARE * (ended - started))
        with self._lock:
            self._counts[account_id] = _Count(jobs=counted, due=ended + pause)
        return counted


class Disk:
    """Watches the free space of the disk with SQLite's file; with PostgreSQL this host stores nothing.

    When the disk of either database is full, :class:`core.database_faults.DiskFull` is raised by the write.

    Args:
        database: the database.
        floor_mb: free space, in MiB, below which nothing is accepted.
        timer: returns seconds, by a clock that never goes back.
    """

    def __init__(self, database: Database, *, floor_mb: int, timer: Timer = time.monotonic) -> None:
        self._folder = (
            Path(database.url.database or "").absolute().parent
            if database.dialect == "sqlite"
            else None
        )
        self._floor = floor_mb * 2**20
        self._timer = timer
        self._due = 0.0
        self._has_room = True

    @property
    def has_room(self) -> bool:
        """Whether the free space is above the floor, as of at most a second ago."""
        now = self._timer()
        if self._folder is not None and now >= self._due:
            self._due = now + _LOOK_SECONDS
            existing = next(path for path in (self._folder, *self._folder.parents) if path.exists())
            self._has_room = shutil.disk_usage(existing).free >= self._floor
        return self._has_room

    def check(self) -> None:
        """Return when the free space is above the floor. Raises :class:`core.database_faults.DiskFull`."""
        if not self.has_room:
            raise DiskFull(
                "There is too little free disk space to accept requests.",
                retry_after=_DISK_RETRY_SECONDS,
            )


def _count(database: Database, account_id: uuid.UUID | None, *, limit: int) -> int:
    queued = sa.select(sa.literal(1)).select_from(Job).where(timeline.standing(Status.QUEUED))
    if account_id is not None:
        queued = queued.where(Job.account_id == account_id)
    with database.reading() as transaction:
        return transaction.scalar(
            sa.select(sa.func.count()).select_from(queued.limit(limit).subquery())
        )


def _wanted(jobs: int) -> str:
    """Return a second sentence for several jobs at once: the queue may have room for some of them."""
    return f" There is no room for {jobs} more." if jobs > 1 else ""
