"""Idle connections that are kept between requests. The one used last is used next."""

import math
import threading
import time
from collections import defaultdict
from typing import Final

from net.connection import Connection, Origin

#: Servers close idle connections after a minute or so.
_IDLE_SECONDS: Final = 30.0


class Pool:
    """Keeps a limited number of idle connections. Thread-safe.

    Args:
        limit: of idle connections to all origins; above it the connection that is idle for longest is closed.
        limit_each: the same for one origin.
        idle_seconds: how long a connection may be idle.
    """

    def __init__(
        self, *, limit: int, limit_each: float = math.inf, idle_seconds: float = _IDLE_SECONDS
    ) -> None:
        self._limit = limit
        self._limit_each = limit_each
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._idle: defaultdict[Origin, list[Connection]] = defaultdict(list)
        #: The same connections and since when they are idle, the one that is idle for longest first.
        self._idle_since: dict[Connection, float] = {}

    def take(self, origin: Origin) -> Connection | None:
        """Return an idle connection that can be used, or None."""
        while True:
            with self._lock:
                surplus = self._remove_surplus()
                idle = self._idle.get(origin)
                connection = self._remove(idle[-1]) if idle else None
            _close(surplus)
            if connection is None or not connection.stale():
                return connection
            connection.close()

    def give_back(self, connection: Connection) -> None:
        """Keep ``connection``, whose response has been read to its end, or close it."""
        with self._lock:
            idle = self._idle[connection.origin]
            idle.append(connection)
            self._idle_since[connection] = time.monotonic()
            surplus = self._remove_surplus()
            if len(idle) > self._limit_each:
                surplus.append(self._remove(idle[0]))
        _close(surplus)

    def close(self) -> None:
        """Close the idle connections and keep no more."""
        with self._lock:
            self._limit = 0
            surplus = self._remove_surplus()
        _close(surplus)

    def _remove_surplus(self) -> list[Connection]:
        """Remove and return the connections that are idle for too long or exceed the limit."""
        surplus = []
        now = time.monotonic()
        while self._idle_since:
            connection, since = next(iter(self._idle_since.items()))
            if now - since < self._idle_seconds and len(self._idle_since) <= self._limit:
                break
            surplus.append(self._remove(connection))
        return surplus

    def _remove(self, connection: Connection) -> Connection:
        del self._idle_since[connection]
        idle = self._idle[connection.origin]
        idle.remove(connection)
        if not idle:
            del self._idle[connection.origin]
        return connection


def _close(connections: list[Connection]) -> None:
    for connection in connections:
        connection.close()
