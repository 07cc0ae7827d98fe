"""Folds the changes of what accounts store into their totals, in a thread of every worker process."""

import random
from typing import Final

import structlog

from core.background import BackgroundLoop
from core.database import Database
from core.database_faults import DatabaseUnavailable
from jobs.store import storage

_log = structlog.get_logger(__name__)

#: Between two folds, so that others can write.
_BREATH_SECONDS: Final = 0.02


class StorageTotals(BackgroundLoop):
    """Works at an interval with jitter. Any number of processes may do so at once.

    Args:
        database: where the totals are stored.
        interval_seconds: between two looks.
        rng: for jitter.
    """

    def __init__(self, database: Database, *, interval_seconds: float, rng: random.Random) -> None:
        def interval() -> float:
            return interval_seconds * rng.uniform(0.8, 1.2)

        super().__init__("storage-totals", self._fold, every=interval, first=interval())
        self._database = database

    def fold(self) -> None:
        """Fold all changes. Raises :class:`core.database_faults.DatabaseUnavailable`."""
        while storage.fold(self._database) and not self.pause(_BREATH_SECONDS):
            pass

    def _fold(self) -> None:
        try:
            self.fold()
        except DatabaseUnavailable:
            _log.warning("storage_count_failed")
