"""The sweeper: ends expired leases and passed deadlines, repeats lost wakeups, and purges old data.

Every worker process has a thread for it.
"""

import random
import time
from collections.abc import Callable
from datetime import timedelta

import structlog

from core import write_ahead_log
from core.background import BackgroundLoop
from core.database import Database
from core.database_faults import DatabaseUnavailable
from core.wakeup import Wakeup
from jobs.store import expiry, files, holds, purge, search, turns, workers

_log = structlog.get_logger(__name__)

_FORGET = timedelta(days=1)
#: The most batches in one sweep, so that a long queue with one deadline does not take many sweeps.
_BATCHES = 20
#: Between two purges if nothing was left to do, and the longest duration of one.
_PURGE_EVERY = timedelta(minutes=1)
_PURGE_SECONDS = 1.0
#: Between two batches, so that others can write.
_PURGE_BREATH_SECONDS = 0.02
#: Between two cleanings of SQLite's index of texts, which read all of it.
_CLEAN_EVERY = timedelta(hours=1)


class Sweeper(BackgroundLoop):
    """Sweeps at an interval with jitter. Any number of processes may do so at once.

    Args:
        database: where jobs are stored.
        wakeup: wakes slots for due jobs.
        owner: the name of this process in the timeline.
        lease: after an outage or a pause no lease expires for this long, so that owners can renew first.
        interval_seconds: between two sweeps.
        alive: the greatest age of a live worker's heartbeat.
        crash_limit: how many lost leases fail a job.
        rng: for jitter.
        periods: how long data is kept after the end of a job.
        for_each_dead: see :meth:`worker.liveness.LivenessLock.for_each_dead`.
    """

    def __init__(
        self,
        database: Database,
        *,
        wakeup: Wakeup,
        owner: str,
        lease: timedelta,
        interval_seconds: float,
        alive: timedelta,
        crash_limit: int,
        rng: random.Random,
        periods: purge.Periods = purge.NO_RETENTION,
        for_each_dead: Callable[[Callable[[str], bool]], None] = lambda _end: None,
    ) -> None:
        # The first sweep starts at once, because a dead predecessor may have left work.
        super().__init__(
            "sweeper", self._sweep_and_purge, every=lambda: interval_seconds * rng.uniform(0.8, 1.2)
        )
        self._database = database
        self._wakeup = wakeup
        self._owner = owner
        self._lease = lease
        self._alive = alive
        self._crash_limit = crash_limit
        self._rng = rng
        self._periods = periods
        self._for_each_dead = for_each_dead
        self._purge_due = database.clock()
        self._clean_due = database.clock()
        self._cleaning = search.Cleaning(database)
        # At least some intervals, so that a slow or late sweep does not look like the first one after a pause.
        self._longest_gap = max(lease / 2, timedelta(seconds=3 * interval_seconds))
        #: When the last sweep ended; None if there was none since an outage or, with a server, since the start.
        self._swept_at = database.clock() if database.dialect == "sqlite" else None
        self._owners_renew_until = 0.0

    def sweep(self) -> None:
        """Sweep once. Raises :class:`core.database_faults.DatabaseUnavailable`."""
        self._for_each_dead(self._end_leases)
        leases = self._owners_had_time()
        for _ in range(_BATCHES):
            if not self._batch(leases=leases):
                break
        if leases:
            # Held jobs are renewed like leases, so their holders need the same time after an outage.
            self._cancel_dropped()
        turns.remove_passed(self._database)
        self.notify()
        workers.forget(self._database, silent=_FORGET)

    def _end_leases(self, owner: str) -> bool:
        """End the leases of a dead worker; return whether none is left."""
        for _ in range(_BATCHES):
            ended = expiry.end_leases(
                self._database,
                owner=owner,
                actor=f"sweeper:{self._owner}",
                crash_limit=self._crash_limit,
                rng=self._rng,
            )
            _log.info(
                "dead_worker_found",
                worker=owner,
                requeued=ended.requeued,
                failed=ended.failed,
                cancelled=ended.cancelled,
            )
            if not ended.more:
                return True
        return False

    def _batch(self, *, leases: bool) -> bool:
        """End one batch of expired leases and deadlines; return whether there are more."""
        swept = expiry.sweep(
            self._database,
            actor=f"sweeper:{self._owner}",
            crash_limit=self._crash_limit,
            rng=self._rng,
            leases=leases,
        )
        self._swept_at = self._database.clock()
        if swept != expiry.Expired():
            _log.info(
                "jobs_swept",
                requeued=swept.requeued,
                failed=swept.failed,
                cancelled=swept.cancelled,
                overdue=swept.overdue,
            )
        return swept.more

    def _cancel_dropped(self) -> None:
        """Cancel the jobs whose clients waited at a process that is gone."""
        cancelled = holds.lapse(self._database, actor=f"sweeper:{self._owner}")
        if cancelled:
            _log.info("dropped_jobs_cancelled", jobs=cancelled)

    def purge(self) -> None:
        """Purge old data, if a purge is due, in small batches and for about a second.

        The next sweep continues. Raises :class:`core.database_faults.DatabaseUnavailable`.
        """
        now = self._database.clock()
        if self._periods == purge.NO_RETENTION or now < self._purge_due:
            return
        deadline = time.monotonic() + _PURGE_SECONDS
        while time.monotonic() < deadline:
            purged = purge.batch(self._database, self._periods, actor=f"sweeper:{self._owner}")
            if purged != purge.Purged():
                _log.info(
                    "data_purged",
                    images=purged.images,
                    traces=purged.traces,
                    answers=purged.answers,
                    timelines=purged.timelines,
                    operations=purged.operations,
                )
            if not purged.more:
                self._purge_due = now + _PURGE_EVERY
                return
            if self.pause(_PURGE_BREATH_SECONDS):
                return

    def remove_files(self) -> None:
        """Remove expired files, and what interrupted uploads have left, for about a second.

        The next sweep continues. Raises :class:`core.database_faults.DatabaseUnavailable`.
        """
        deadline = time.monotonic() + _PURGE_SECONDS
        more = True
        while more and time.monotonic() < deadline:
            removed, more = files.purge(self._database)
            if removed:
                _log.info("files_removed", files=removed)
            if self.pause(_PURGE_BREATH_SECONDS):
                return

    def clean(self) -> None:
        """Remove the words of removed texts from the index, once an hour if there are any, for about a second.

        The next sweep continues. Raises :class:`core.database_faults.DatabaseUnavailable`.
        """
        if self._database.clock() < self._clean_due:
            return
        deadline = time.monotonic() + _PURGE_SECONDS
        more = self._cleaning.needed()
        while more and time.monotonic() < deadline:
            more = self._cleaning.step()
            if self.pause(_PURGE_BREATH_SECONDS):
                return
        if not more:
            self._clean_due = self._database.clock() + _CLEAN_EVERY

    def _owners_had_time(self) -> bool:
        """Return whether the owners of leases have had time to renew them.

        After an outage of the database every lease looks expired, and after a pause of this process, its host or the
        database as well. An owner that paused too returns at the same moment, and renews its leases.
        """
        self._database.ping()  # If the database is paused, the wait for it is part of the gap.
        if self._swept_at is None or self._database.clock() - self._swept_at > self._longest_gap:
            self._owners_renew_until = time.monotonic() + self._lease.total_seconds()
        if time.monotonic() < self._owners_renew_until:
            return False
        return self._database.dialect == "sqlite" or expiry.uptime(self._database) >= self._lease

    def notify(self) -> None:
        """Send one wakeup for each due job that has a slot, minus those that wait already.

        Raises:
            core.database_faults.DatabaseUnavailable: the database is away.
        """
        waiting = self._wakeup.waiting()
        if waiting is None:
            return
        slots = workers.workforce(self._database, alive=self._alive).slots
        due = expiry.due(self._database, limit=slots)
        self._wakeup.notify(min(due, slots) - waiting)

    def _sweep_and_purge(self) -> None:
        try:
            self.sweep()
            self.purge()
            self.remove_files()
            self.clean()
            write_ahead_log.truncate(self._database)
        except DatabaseUnavailable:
            self._swept_at = None
            _log.warning("sweep_failed")
