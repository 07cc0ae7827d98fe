"""Ends the streams and waits of revoked keys. One query a second checks all keys with open requests."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Self

import structlog

from core import errors
from core.database import Database, DatabaseUnavailable
from jobs.store import accounts

_log = structlog.get_logger(__name__)

_CHECK_SECONDS = 1.0


class RevocationWatch:
    """One open request of a key. Close it when the request ends."""

    def __init__(self, revocation: Revocation, key_id: uuid.UUID, end: Callable[[], None]) -> None:
        self._revocation = revocation
        self.key_id = key_id
        self._end = end
        self.revoked = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def check(self) -> None:
        """Raise :class:`core.errors.Unauthenticated` if the key has been revoked."""
        if self.revoked:
            raise errors.Unauthenticated("This API key is unknown.")

    def revoke(self) -> None:
        """End the request."""
        self.revoked = True
        self._end()

    def close(self) -> None:
        """Stop watching the key. Idempotent."""
        self._revocation.forget(self)


class Revocation:
    """Checks the keys of open requests for revocation. Thread-safe.

    Args:
        database: stores keys. While it is unavailable, all requests stay open.
        check_seconds: the time between two checks; each one is one query.
    """

    def __init__(self, database: Database, *, check_seconds: float = _CHECK_SECONDS) -> None:
        self._database = database
        self._check_seconds = check_seconds
        self._lock = threading.Lock()
        self._watches: set[RevocationWatch] = set()
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, key_id: uuid.UUID, end: Callable[[], None]) -> RevocationWatch:
        """Call ``end``, from another thread, if the key is revoked before the watch is closed."""
        watch = RevocationWatch(self, key_id, end)
        with self._lock:
            self._watches.add(watch)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="revocation", daemon=True)
                self._thread.start()
        self._wake.set()
        return watch

    def forget(self, watch: RevocationWatch) -> None:
        """End a watch."""
        with self._lock:
            self._watches.discard(watch)

    def close(self) -> None:
        """Stop checking. Safe in a signal handler: it takes no lock."""
        self._closed.set()
        self._wake.set()

    def _run(self) -> None:
        while not self._closed.is_set():
            self._wake.wait()
            self._wake.clear()
            while (watches := self._open()) and not self._closed.is_set():
                self._check(watches)
                self._closed.wait(self._check_seconds)

    def _open(self) -> set[RevocationWatch]:
        with self._lock:
            return set(self._watches)

    def _check(self, watches: set[RevocationWatch]) -> None:
        wanted = {watch.key_id for watch in watches}
        try:
            live = accounts.live_keys(self._database, wanted)
        except DatabaseUnavailable:
            _log.warning("keys_not_checked", keys=len(wanted))
            return
        for watch in watches:
            if watch.key_id not in live:
                watch.revoke()
                self.forget(watch)
