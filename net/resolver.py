"""Looks names up for many who must not wait for each other: a system's resolver has no time limit of its own.

Each look-up runs in a daemon thread, which may outlive whoever asked and keeps no process from ending. A name that
is being looked up is looked up once for all who want it. A party has a bounded number of look-ups under way, and fewer
when other parties have many, by the rule of :mod:`core.shares`: with names whose servers are silent a party delays its
own other look-ups, and the last thread goes to a party that has none.
"""

from __future__ import annotations

import collections
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Hashable
from typing import Final

from core.shares import has_share

IP = ipaddress.IPv4Address | ipaddress.IPv6Address
LookUp = Callable[[str, int], list[IP]]

#: Look-ups under way at once in a process, and for one party.
_THREADS: Final = 256
_EACH: Final = 64
#: A look-up that is older is not waited for by others: its question may have been lost on the way.
_FRESH_SECONDS: Final = 5.0
_Key = tuple[str, int]


class _LookUp:
    """One that is under way."""

    def __init__(self, key: _Key, party: Hashable) -> None:
        self.key = key
        self.party = party
        self.began = time.monotonic()
        self.done = threading.Event()
        self.found: list[IP] = []
        #: What it failed by; until it is done, that it is not.
        self.error: Exception | None = OSError("not done")


class Resolver:
    """Looks names up; may be used by any number of threads.

    Args:
        look_up: returns the addresses of a name, for a port; by default the system's resolver.
        threads: look-ups under way at once.
        each: of these, for one party at the most.
    """

    def __init__(
        self, look_up: LookUp | None = None, *, threads: int = _THREADS, each: int = _EACH
    ) -> None:
        self._look_up = look_up or system_addresses
        self._threads = threads
        self._each = each
        self._changed = threading.Condition()
        self._latest: dict[_Key, _LookUp] = {}
        self._running: collections.Counter[Hashable] = collections.Counter()

    def resolve(self, host: str, port: int, *, party: Hashable, until: float) -> list[IP]:
        """Return the addresses of ``host``.

        Args:
            host: a name.
            port: what will be connected to.
            party: on whose behalf.
            until: when to give up, by the monotonic clock.

        Raises:
            TimeoutError: no answer came until then.
            OSError: there is no such name, or none that can be looked up.
        """
        requested = self._join((host, port), party, until)
        if not requested.done.wait(max(0.0, until - time.monotonic())):
            raise TimeoutError
        if requested.error is not None:
            raise OSError(f"{host} cannot be looked up") from requested.error
        return list(requested.found)

    def _join(self, key: _Key, party: Hashable, until: float) -> _LookUp:
        """Return the look-up to wait for: one that has just begun, or a new one."""
        with self._changed:
            while (requested := self._fresh(key)) is None and not self._has_room(party):
                if not self._changed.wait(max(0.0, until - time.monotonic())):
                    raise TimeoutError
            if requested is not None:
                return requested
            requested = _LookUp(key, party)
            self._latest[key] = requested
            self._running[party] += 1
        thread = threading.Thread(target=self._run, args=(requested,), name="resolver", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            requested.error = error
            self._end(requested)
        return requested

    def _fresh(self, key: _Key) -> _LookUp | None:
        found = self._latest.get(key)
        fresh = found is not None and time.monotonic() - found.began < _FRESH_SECONDS
        return found if fresh else None

    def _has_room(self, party: Hashable) -> bool:
        running = self._running[party]
        return running < self._each and has_share(
            running, free=self._threads - self._running.total()
        )

    def _run(self, requested: _LookUp) -> None:
        try:
            requested.found = self._look_up(*requested.key)
            requested.error = None
        except (OSError, ValueError) as error:
            requested.error = error
        finally:
            self._end(requested)

    def _end(self, requested: _LookUp) -> None:
        requested.done.set()
        with self._changed:
            self._running[requested.party] -= 1
            if not self._running[requested.party]:
                del self._running[requested.party]
            if self._latest.get(requested.key) is requested:
                del self._latest[requested.key]
            self._changed.notify_all()


def numeric(host: str) -> IP | None:
    """Return the address that ``host`` is, however it is written (``2130706433`` and ``0x7f.1`` too); None: a name."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, ValueError):  # What cannot be asked for is no address either.
        return None
    return ipaddress.ip_address(found[0][4][0])


def system_addresses(host: str, port: int) -> list[IP]:
    """Return the addresses of a name from the system's resolver. Raises ``OSError`` or ``ValueError``."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ipaddress.ip_address(entry[4][0]) for entry in found]
