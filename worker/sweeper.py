"""Picks up what was lost: dead leases, passed deadlines, bells nobody heard. A thread in every worker process."""

from __future__ import annotations

import random
import threading
import time
from datetime import timedelta
from typing import Protocol

import structlog

from jobs.database import Database, Unavailable
from jobs.store import claims, workers

_log = structlog.get_logger(__name__)

_FORGET = timedelta(days=1)


class Bell(Protocol):
    """What rings for workers, as :class:`jobs.queue.Bell` does."""

    def ring(self, times: int = 1) -> None:
        """Ask for bells and return at once."""

    def waiting(self) -> int | None:
        """Return how many bells wait to be heard, None when nobody can say."""


class Sweeper:
    """Sweeps at an interval with jitter; all of it may run in any number of processes at once.

    Args:
        database: where jobs are kept.
        bell: rung for due jobs.
        owner: the name under which the timeline knows it.
        lease: after an outage of the database no lease is ended for this long, so that owners renew first.
        interval_seconds: between two sweeps.
        alive: how recent a live worker's heartbeat is.
        crash_limit: lost leases after which a job fails.
        rng: jitter.
    """

    def __init__(
        self,
        database: Database,
        *,
        bell: Bell,
        owner: str,
        lease: timedelta,
        interval_seconds: float,
        alive: timedelta,
        crash_limit: int,
        rng: random.Random,
    ) -> None:
        self._database = database
        self._bell = bell
        self._owner = owner
        self._lease = lease
        self._interval_seconds = interval_seconds
        self._alive = alive
        self._crash_limit = crash_limit
        self._rng = rng
        self._connected_since: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def sweep(self) -> None:
        """Do it all once. Raises :class:`jobs.database.Unavailable`."""
        if self._connected_since is None:
            self._database.ping()
            self._connected_since = time.monotonic()
        swept = claims.sweep(
            self._database,
            actor=f"sweeper:{self._owner}",
            crash_limit=self._crash_limit,
            rng=self._rng,
            leases=self._leases_are_true(),
        )
        if swept != claims.Swept():
            _log.info(
                "jobs_swept",
                requeued=swept.requeued,
                failed=swept.failed,
                cancelled=swept.cancelled,
                overdue=swept.overdue,
            )
        self.ring()
        workers.forget(self._database, silent=_FORGET)

    def _leases_are_true(self) -> bool:
        """Whether owners have had the time to renew: an outage of the database makes every lease look dead."""
        if self._database.dialect == "sqlite" or self._connected_since is None:
            return True
        grace = self._lease.total_seconds()
        return time.monotonic() - self._connected_since >= grace and claims.uptime(
            self._database
        ) >= timedelta(seconds=grace)

    def ring(self) -> None:
        """Ring once for each due job, as far as there are slots for them and no bells that wait already.

        Raises:
            jobs.database.Unavailable: the database is away.
        """
        waiting = self._bell.waiting()
        if waiting is None:
            return
        slots = workers.workforce(self._database, alive=self._alive).slots
        due = claims.due(self._database, limit=slots)
        self._bell.ring(min(due, slots) - waiting)

    def _run(self) -> None:
        # The first sweep is at once: what a dead predecessor left is due already.
        pause = 0.0
        while not self._stop.wait(pause):
            try:
                self.sweep()
            except Unavailable:
                self._connected_since = None
                _log.warning("sweep_failed")
            pause = self._interval_seconds * self._rng.uniform(0.8, 1.2)
