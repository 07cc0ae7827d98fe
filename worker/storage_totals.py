"""Keeps the storage totals of accounts: folds changes into them, and counts accounts that have no total yet.

Every worker process has a thread of its own for this, because a count may take minutes and no sweep must wait for it.
"""

from __future__ import annotations

import random
from typing import Final

import structlog

from core import ids
from core.background import Loop
from core.database import Database, DatabaseUnavailable
from jobs.store import storage

_log = structlog.get_logger(__name__)

#: Between two folds, so that others can write.
_BREATH_SECONDS: Final = 0.02


class StorageTotals(Loop):
    """Works at an interval with jitter. Any number of processes may do so at once.

    Args:
        database: where the totals are stored.
        interval_seconds: between two looks.
        rng: for jitter, and to choose the account that is counted next, so that processes rarely choose the same one.
    """

    def __init__(self, database: Database, *, interval_seconds: float, rng: random.Random) -> None:
        def interval() -> float:
            return interval_seconds * rng.uniform(0.8, 1.2)

        super().__init__("storage-totals", self._update, every=interval, first=interval())
        self._database = database
        self._rng = rng

    def fold(self) -> None:
        """Fold all changes. Raises :class:`core.database.DatabaseUnavailable`."""
        while storage.fold(self._database) and not self.pause(_BREATH_SECONDS):
            pass

    def recount(self) -> None:
        """Count one account that has not been counted. Raises :class:`core.database.DatabaseUnavailable`."""
        waiting = storage.uncounted(self._database)
        if not waiting:
            return
        account_id = self._rng.choice(waiting)
        if storage.recount(self._database, account_id, given_up=lambda: self.stopping):
            _log.info("storage_counted", account_id=ids.show("acct", account_id))

    def _update(self) -> None:
        try:
            self.fold()
            self.recount()
        except DatabaseUnavailable:
            _log.warning("storage_count_failed")
