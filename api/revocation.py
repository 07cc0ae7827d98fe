"""Ends the streams and waits of a key once the key is revoked. One query per second checks all keys in use."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable

import structlog

from core import errors
from core.background import BackgroundLoop
from core.closing import Closing
from core.database import Database
from core.database_faults import DatabaseUnavailable
from jobs.store import accounts

_log = structlog.get_logger(__name__)

_CHECK_SECONDS = 1.0


class RevocationWatch(Closing):
    """One request that a key holds open. Closing it ends the look."""

    def __init__(self, revocation: Revocation, key_id: uuid.UUID, end: Callable[[], None]) -> None:
        self._revocation = revocation
        self.key_id = key_id
        self._end = end
        self.revoked = False

    def check(self) -> None:
        """Raise :class:`core.errors.Unauthenticated` when the key was revoked meanwhile."""
        if self.revoked:
            raise errors.Unauthenticated("This API key is not known here.")

    def revoke(self) -> None:
        """End the request."""
        self.revoked = True
        self._end()

    def close(self) -> None:
        """Look for the key no longer. Idempotent."""
        self._revocation.forget(self)


class Revocation:
    """Looks for revoked keys among those that hold requests open; may be used by any number of threads.

    Args:
        database: where keys are kept. While it does not answer, everything stays open.
        check_seconds: the time between two looks, each of which is one query.
    """

    def __init__(self, database: Database, *, check_seconds: float = _CHECK_SECONDS) -> None:
        self._database = database
        self._check_seconds = check_seconds
        self._lock = threading.Lock()
        self._watches: set[RevocationWatch] = set()
        self._loop = BackgroundLoop("revocation", self._round)

    def watch(self, key_id: uuid.UUID, end: Callable[[], None]) -> RevocationWatch:
        """Call ``end``, from another thread, when the key is revoked before the watch is closed."""
        watch = RevocationWatch(self, key_id, end)
        with self._lock:
            self._watches.add(watch)
        self._loop.start()
        self._loop.wake()
        return watch

    def forget(self, watch: RevocationWatch) -> None:
        """End what :meth:`watch` began."""
        with self._lock:
            self._watches.discard(watch)

    def close(self) -> None:
        """Stop looking. A signal handler may call it: no lock is taken here."""
        self._loop.request_stop()

    def _round(self) -> float | None:
        if not (watches := self._open()):
            return None
        self._look(watches)
        self._loop.pause(self._check_seconds)
        return 0.0

    def _open(self) -> set[RevocationWatch]:
        with self._lock:
            return set(self._watches)

    def _look(self, watches: set[RevocationWatch]) -> None:
        wanted = {watch.key_id for watch in watches}
        try:
            live = accounts.live_keys(self._database, wanted)
        except DatabaseUnavailable:
            _log.warning("keys_not_looked_at", keys=len(wanted))
            return
        for watch in watches:
            if watch.key_id not in live:
                watch.revoke()
                self.forget(watch)
