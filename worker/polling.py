"""Claims without bells: when jobs are due and none has been heard for a while, Redis or Celery has gone silent.

Bells are how work starts at once; they are never needed for it to start at all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from core.background import BackgroundLoop
from core.database import Database, DatabaseUnavailable
from jobs.store import expiry

_log = structlog.get_logger(__name__)


class PollingFallback(BackgroundLoop):
    """Runs slots of its own while the bells are silent.

    Args:
        database: where due jobs are seen.
        work: a slot's work; it returns when nothing is left for it.
        slots: how many jobs the process runs at once, at most.
        held: how many it runs now. While its slots are busy no bell is heard, and none is missed.
        silence_seconds: so long nothing may be heard, while jobs are due, before it steps in.
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
        """Say that a bell was heard."""
        self._woken_at = self._now()

    def look(self) -> None:
        """Step in if the bells are silent and jobs are due. Raises :class:`core.database.DatabaseUnavailable`."""
        if self._now() - self._woken_at < self._silence_seconds:
            return
        due = expiry.due(self._database, limit=self._slots)
        with self._changed:
            # A slot that has just begun holds nothing yet.
            wanted = min(due, self._slots - max(self._busy, self._held()))
            self._busy += max(0, wanted)
        if wanted > 0:
            _log.warning("bells_silent", due=due, slots=wanted)
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
            _log.warning("standby_failed")
