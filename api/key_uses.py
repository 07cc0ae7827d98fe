"""Notes when keys were last used. One write a minute stores it for all keys in use, outside of requests."""

import threading
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import structlog

from core import peppers
from core.background import BackgroundLoop
from core.database import Database
from core.database_faults import DatabaseUnavailable
from jobs.store import accounts

_log = structlog.get_logger(__name__)

#: Keys of one transaction.
_BATCH: Final = 100
_JOIN_SECONDS: Final = 5.0


class KeyUses:
    """Collects uses of keys, and stores them in the background; may be used by any number of threads.

    What is collected when the process is killed is lost: a use of the last minute may be missing.

    Args:
        database: where keys are stored. While it does not answer, uses wait.
        every_seconds: the time between two writes.
        timer: seconds that never go back.
    """

    def __init__(
        self,
        database: Database,
        *,
        every_seconds: float = accounts.USE_EVERY.total_seconds(),
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._every_seconds = every_seconds
        self._timer = timer
        self._lock = threading.Lock()
        #: When each key was used, and its hash with the newest pepper if it has an older one.
        self._uses: dict[uuid.UUID, tuple[float, bytes | None, str | None]] = {}
        self._loop = BackgroundLoop("key-uses", self._round, first=None, join_seconds=_JOIN_SECONDS)

    def note(
        self, principal: accounts.Principal, *, key: str | None = None, pepper: bytes | None = None
    ) -> None:
        """Note that a key was used; it is hashed again if it is not hashed with the newest pepper.

        Args:
            principal: the key's owner.
            key: the key, if the caller sent it.
            pepper: the newest pepper, with the key.
        """
        if self._loop.stopping:
            return
        digest = pepper_id = None
        if key is not None and pepper is not None:
            newest = peppers.identify(pepper)
            if principal.pepper_id != newest:
                digest, pepper_id = accounts.digest(key, pepper=pepper), newest
        with self._lock:
            _, known, known_id = self._uses.get(principal.key_id, (0.0, None, None))
            first = not self._uses
            self._uses[principal.key_id] = (self._timer(), digest or known, pepper_id or known_id)
        if first:
            self._loop.start()
            self._loop.wake()

    def request_stop(self) -> None:
        """Collect nothing more. A signal handler may call it: no lock is taken here."""
        self._loop.request_stop()

    def close(self) -> None:
        """Store what is collected, if the database answers."""
        self._loop.stop()
        self._write()

    def _round(self) -> float | None:
        if self._loop.pause(self._every_seconds):
            return None
        return None if self._write() else 0.0

    def _write(self) -> bool:
        """Store what is collected; return whether the database answered."""
        with self._lock:
            uses, self._uses = self._uses, {}
        if not uses:
            return True
        now = self._timer()
        listed = [
            accounts.KeyUse(key_id, timedelta(seconds=now - at), digest, pepper_id)
            for key_id, (at, digest, pepper_id) in uses.items()
        ]
        try:
            for start in range(0, len(listed), _BATCH):
                accounts.note_uses(self._database, listed[start : start + _BATCH])
        except DatabaseUnavailable:
            _log.warning("key_uses_not_stored", keys=len(uses))
            with self._lock:
                self._uses = uses | self._uses
            return False
        return True
