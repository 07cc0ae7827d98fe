"""Picks up what was lost: dead leases, passed deadlines, bells nobody heard; and takes away what is old.

A thread in every worker process.
"""

from __future__ import annotations

import random
import time
from datetime import timedelta

import structlog

from core.background import BackgroundLoop
from core.database import Database, DatabaseUnavailable
from core.wakeup import Wakeup
from jobs.store import expiry, purge, turns, workers

_log = structlog.get_logger(__name__)

_FORGET = timedelta(days=1)
#: So many batches a sweep ends, at most: of a long queue with one deadline a good part at once.
_BATCHES = 20
#: Between two purges when nothing was left to do, and the longest time one may take before the next sweep.
_PURGE_EVERY = timedelta(minutes=1)
_PURGE_SECONDS = 1.0
#: Between two batches: others want to write as well.
_PURGE_BREATH_SECONDS = 0.02


class Sweeper(BackgroundLoop):
    """Sweeps at an interval with jitter; all of it may run in any number of processes at once.

    Args:
        database: where jobs are kept.
        wakeup: rung for due jobs.
        owner: the name under which the timeline knows it.
        lease: after an outage or a pause no lease is ended for this long, so that owners renew first.
        interval_seconds: between two sweeps.
        alive: how recent a live worker's heartbeat is.
        crash_limit: lost leases after which a job fails.
        rng: jitter.
        periods: how long what is kept after the end of a job.
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
    ) -> None:
        # The first sweep is at once: what a dead predecessor left is due already.
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
        self._purge_due = database.clock()
        # Some intervals at least: a sweep that is slow or late does not look like the first one after a pause.
        self._longest_gap = max(lease / 2, timedelta(seconds=3 * interval_seconds))
        #: When a sweep last came through; None: not since an outage, or (there is no server on SQLite) the start.
        self._swept_at = database.clock() if database.dialect == "sqlite" else None
        self._owners_renew_until = 0.0

    def sweep(self) -> None:
        """Do it all once. Raises :class:`core.database.DatabaseUnavailable`."""
        leases = self._leases_are_true()
        for _ in range(_BATCHES):
            if not self._batch(leases=leases):
                break
        turns.remove_passed(self._database)
        self.notify()
        workers.forget(self._database, silent=_FORGET)

    def _batch(self, *, leases: bool) -> bool:
        """End what is over; return whether there is more of it."""
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

    def purge(self) -> None:
        """Take away what is old, if it is time, in small batches and for about a second.

        What is left then is for the next sweep. Raises :class:`core.database.DatabaseUnavailable`.
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
                )
            if not purged.more:
                self._purge_due = now + _PURGE_EVERY
                return
            if self.pause(_PURGE_BREATH_SECONDS):
                return

    def _leases_are_true(self) -> bool:
        """Whether owners have had the time to renew.

        An outage of the database makes every lease look dead, and so does a pause: of this process, of its
        host, of the database. Who stood still as well comes back at the same moment, and renews.
        """
        self._database.ping()  # If it stands still, the wait for it is a part of the gap.
        if self._swept_at is None or self._database.clock() - self._swept_at > self._longest_gap:
            self._owners_renew_until = time.monotonic() + self._lease.total_seconds()
        if time.monotonic() < self._owners_renew_until:
            return False
        return self._database.dialect == "sqlite" or expiry.uptime(self._database) >= self._lease

    def notify(self) -> None:
        """Ring once for each due job, as far as there are slots for them and no bells that wait already.

        Raises:
            core.database.DatabaseUnavailable: the database is away.
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
        except DatabaseUnavailable:
            self._swept_at = None
            _log.warning("sweep_failed")
