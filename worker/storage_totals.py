"""Folds the changes of what accounts store into their totals, in a thread of every worker process."""

from __future__ import annotations

import random
import threading
from typing import Final

import structlog

from core.database import Database, DatabaseUnavailable
from jobs.store import storage

_log = structlog.get_logger(__name__)

#: Between two folds: others want to write as well.
_BREATH_SECONDS: Final = 0.02


class StorageTotals:
    """Works at an interval with jitter; any number of processes may do it at once.

    Args:
        database: where the count is kept.
        interval_seconds: between two looks.
        rng: jitter.
    """

    def __init__(self, database: Database, *, interval_seconds: float, rng: random.Random) -> None:
        self._database = database
        self._interval_seconds = interval_seconds
        self._rng = rng
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bookkeeper", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def fold(self) -> None:
        """Fold all changes. Raises :class:`core.database.DatabaseUnavailable`."""
        while storage.fold(self._database) and not self._stop.wait(_BREATH_SECONDS):
            pass

    def _run(self) -> None:
        while not self._stop.wait(self._interval_seconds * self._rng.uniform(0.8, 1.2)):
            try:
                self.fold()
            except DatabaseUnavailable:
                _log.warning("storage_count_failed")
