"""The polling fallback: if jobs are due and no wakeup has arrived for a while, Redis or Celery has gone silent.

Wakeups start work at once, but work starts without them too.
"""

import threading
import time
from collections.abc import Callable

import structlog

from core.background import BackgroundLoop
from core.database import Database
from core.database_faults import DatabaseUnavailable
from jobs.store import expiry

_log = structlog.get_logger(__name__)


class PollingFallback(BackgroundLoop):
    """Runs slots of its own while no wakeups arrive.

    Args:
        database: shows due jobs.
        work: the work of a slot; returns when no job is left for it.
        slots: the most jobs that the process runs at once.
        held: how many it runs now. While its slots are busy it receives no wakeups and needs none.
        silence_seconds: how long no wakeup may arrive, while jobs are due, before it runs slots.
        now: a monotonic clock, in seconds.
    """

    def __init__(
        self,
        database: Database,
        *,
        work: Callable[[], int],
        slots: int,
        held: Callable[[], int],
        silence_seconds: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        every = silence_seconds / 3
        super().__init__("polling", self._poll, every=every, first=every)
        self._database = database
        self._work = work
        self._slots = slots
        self._held = held
        self._silence_seconds = silence_seconds
        self._now = now
        self._woken_at = now()
        self._busy = 0
        self._changed = threading.Condition()

    def stop(self) -> None:
        """Stop the thread and wait for the slots it runs, which end because the process drains."""
        super().stop()
        with self._changed:
            self._changed.wait_for(lambda: not self._busy)

    def woken(self) -> None:
        """Note that a wakeup arrived."""
        self._woken_at = self._now()

    def look(self) -> None:
        """Run slots if no wakeups arrive and jobs are due. Raises :class:`core.database_faults.DatabaseUnavailable`."""
        if self._now() - self._woken_at < self._silence_seconds:
            return
        due = expiry.due(self._database, limit=self._slots)
        with self._changed:
            # A slot that has just started has no job yet.
            wanted = min(due, self._slots - max(self._busy, self._held()))
            self._busy += max(0, wanted)
        if wanted > 0:
            _log.warning("wakeups_silent", due=due, slots=wanted)
        for _ in range(wanted):
            threading.Thread(target=self._slot, name="polling-slot", daemon=True).start()

    def _slot(self) -> None:
        try:
            self._work()
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()

    def _poll(self) -> None:
        try:
            self.look()
        except DatabaseUnavailable:
            _log.warning("polling_failed")
