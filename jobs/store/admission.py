"""Whether more can be taken in: room in the queue, and room on the disk that SQLite lies on."""

from __future__ import annotations

import shutil
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from core import errors
from core.database import Database, DiskFull
from core.settings import Settings
from jobs.lifecycle import Status
from jobs.records import Job
from jobs.store import timeline

Timer = Callable[[], float]

_LOOK_SECONDS = 1.0
#: A count is not repeated before this many times its own duration: a huge queue costs 5 % of a thread at most.
_COUNT_SHARE = 20
_QUEUE_RETRY_SECONDS = 10
_DISK_RETRY_SECONDS = 60


@dataclass
class _Count:
    """Queued jobs as they were counted, and those that came in here since."""

    jobs: int
    #: When to count again, by the timer.
    due: float


class Admission:
    """Caps the queue, for each account and in all.

    Counting a long queue takes longer than taking a job in, so it is counted about once a second and what
    this process takes in is added. The caps are therefore soft: what other processes take in within that
    second, and what is being taken in while one looks, may come on top. Jobs that go back to the queue for
    another try are never refused.

    Args:
        database: where jobs are kept.
        settings: the caps.
        timer: seconds, by any clock that never goes back.
    """

    def __init__(
        self, database: Database, settings: Settings, *, timer: Timer = time.monotonic
    ) -> None:
        self._database = database
        self._per_account = settings.queued_jobs_per_account
        self._total = settings.queued_jobs_total
        self._timer = timer
        self._lock = threading.Lock()
        #: By account; under None all together.
        self._counts: dict[uuid.UUID | None, _Count] = {}

    def check(self, account_id: uuid.UUID, *, jobs: int = 1) -> None:
        """Return when so many more ``jobs`` of ``account_id`` may come in, all of them.

        Raises:
            core.errors.QueueFull: as many wait as may.
            core.database.DatabaseUnavailable: the database does not answer.
        """
        queued = self._queued(None, cap=self._total)
        if queued + jobs > self._total:
            raise errors.QueueFull(
                f"The queue is full: {queued} jobs wait.{_wanted(jobs)}",
                retry_after=_QUEUE_RETRY_SECONDS,
            )
        # No account can have more than there are.
        if queued + jobs <= self._per_account:
            return
        queued = self._queued(account_id, cap=self._per_account)
        if queued + jobs > self._per_account:
            raise errors.QueueFull(
                f"The account's queue is full: {queued} of its jobs wait.{_wanted(jobs)}",
                retry_after=_QUEUE_RETRY_SECONDS,
            )

    def took(self, account_id: uuid.UUID, *, jobs: int = 1) -> None:
        """Note that ``jobs`` of ``account_id`` have come in."""
        with self._lock:
            for whose in (account_id, None):
                if whose in self._counts:
                    self._counts[whose].jobs += jobs

    def _queued(self, account_id: uuid.UUID | None, *, cap: int) -> int:
        """Return how many jobs wait, counted up to ``cap``."""
        began = self._timer()
        with self._lock:
            known = self._counts.get(account_id)
            if known is not None:
                if began < known.due:
                    return known.jobs
                # One thread counts; the others go by the old count meanwhile.
                known.due = began + _LOOK_SECONDS
        counted = _count(self._database, account_id, limit=cap)
        ended = self._timer()
        pause = max(_LOOK_SECONDS, _COUNT_SHARE * (ended - began))
        with self._lock:
            self._counts[account_id] = _Count(jobs=counted, due=ended + pause)
        return counted


class Disk:
    """Watches the free space where SQLite's file lies; with PostgreSQL nothing is kept on this host.

    PostgreSQL's own full disk is told by :class:`core.database.DiskFull`, as SQLite's is should the floor be passed.

    Args:
        database: whose file it is.
        floor_mb: free space, in MiB, below which nothing more is taken in.
        timer: seconds, by any clock that never goes back.
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
        """Whether there was more than the floor when it was last looked at, a second ago at most."""
        now = self._timer()
        if self._folder is not None and now >= self._due:
            self._due = now + _LOOK_SECONDS
            existing = next(path for path in (self._folder, *self._folder.parents) if path.exists())
            self._has_room = shutil.disk_usage(existing).free >= self._floor
        return self._has_room

    def check(self) -> None:
        """Return when there is room. Raises :class:`core.database.DiskFull`."""
        if not self.has_room:
            raise DiskFull(
                "There is too little disk space left to take anything in.",
                retry_after=_DISK_RETRY_SECONDS,
            )


def _count(database: Database, account_id: uuid.UUID | None, *, limit: int) -> int:
    queued = sa.select(sa.literal(1)).select_from(Job).where(timeline.standing(Status.QUEUED))
    if account_id is not None:
        queued = queued.where(Job.account_id == account_id)
    with database.reading() as transaction:
        counted: int = transaction.execute(
            sa.select(sa.func.count()).select_from(queued.limit(limit).subquery())
        ).scalar_one()
        return counted


def _wanted(jobs: int) -> str:
    """Return what several jobs at once are told besides: there may be room for some of them."""
    return f" There is no room for {jobs} more." if jobs > 1 else ""
