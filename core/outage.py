"""The loss of a service that this process can do without: logged once, like its return, and tried at growing pauses."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

_log = structlog.get_logger(__name__)

#: The pauses between two attempts, in seconds; each is twice the one before.
_FIRST_SECONDS: Final = 1.0
_LONGEST_SECONDS: Final = 8.0


class Outage:
    """Remembers whether a service works. Thread-safe.

    Args:
        service: the start of the events in the log: ``<service>_lost`` and ``<service>_back``.
        use: what this process needs it for, a key of both lines.
        timer: a monotonic clock, in seconds.
    """

    def __init__(
        self, service: str, *, use: str, timer: Callable[[], float] = time.monotonic
    ) -> None:
        self._service = service
        self._use = use
        self._timer = timer
        self._lock = threading.Lock()
        self._lost = False
        self._pause = _FIRST_SECONDS
        self._rest_until = 0.0

    def may_try(self) -> bool:
        """Whether the service works, or it is time for an attempt; then no other caller attempts it meanwhile."""
        if not self._lost:
            return True
        with self._lock:
            if self._timer() < self._rest_until:
                return False
            self._rest_until = self._timer() + self._pause
            return True

    def lost(self, reason: str) -> float:
        """Note a failure, and log the first one; return the seconds until the next attempt."""
        with self._lock:
            first, self._lost = not self._lost, True
            pause = self._pause
            self._rest_until = self._timer() + pause
            self._pause = min(2 * pause, _LONGEST_SECONDS)
        if first:
            _log.warning(f"{self._service}_lost", use=self._use, reason=reason)
        return pause

    def back(self) -> None:
        """Note a success, and log it after a failure."""
        if not self._lost:
            return
        with self._lock:
            first, self._lost = self._lost, False
            self._pause = _FIRST_SECONDS
        if first:
            _log.info(f"{self._service}_back", use=self._use)
