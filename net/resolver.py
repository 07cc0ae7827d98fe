"""Resolves names for callers that must not wait for each other: the system's resolver has no time limit.

Each look-up runs in a daemon thread, which may outlive its caller and keeps no process from ending. Concurrent callers
of one name share a look-up. A party (an account) has a bounded number of running look-ups, and fewer when other parties
have many, by the rule of :mod:`core.shares`: with names of silent servers a party delays only its own other look-ups,
and the last thread goes to a party that has none.
"""

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

#: The limit of running look-ups in a process, and for one party.
_THREADS: Final = 256
_EACH: Final = 64
#: Further callers do not wait for an older look-up: its query may have been lost.
_FRESH_SECONDS: Final = 5.0
_Key = tuple[str, int]


class _LookUp:
    """A running look-up."""

    def __init__(self, key: _Key, party: Hashable) -> None:
        self.key = key
        self.party = party
        self.began = time.monotonic()
        self.done = threading.Event()
        self.addresses: list[IP] = []
        #: The reason of its failure; None after a success.
        self.error: Exception | None = OSError("not done")


class Resolver:
    """Resolves names. Thread-safe.

    Args:
        look_up: returns the addresses of a name, for a port; by default the system's resolver.
        threads: the limit of running look-ups.
        each: the limit for one party.
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
            port: the target of the connection.
            party: the account, or None.
            until: the deadline by the monotonic clock.

        Raises:
            TimeoutError: there was no answer in time.
            OSError: the name does not exist, or cannot be resolved.
        """
        look_up = self._join((host, port), party, until)
        if not look_up.done.wait(max(0.0, until - time.monotonic())):
            raise TimeoutError
        if look_up.error is not None:
            raise OSError(f"{host} cannot be resolved") from look_up.error
        return list(look_up.addresses)

    def _join(self, key: _Key, party: Hashable, until: float) -> _LookUp:
        """Return the look-up to wait for: a recent one of the same name, or a new one."""
        with self._changed:
            while (look_up := self._fresh(key)) is None and not self._has_room(party):
                if not self._changed.wait(max(0.0, until - time.monotonic())):
                    raise TimeoutError
            if look_up is not None:
                return look_up
            look_up = _LookUp(key, party)
            self._latest[key] = look_up
            self._running[party] += 1
        thread = threading.Thread(target=self._run, args=(look_up,), name="resolver", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            look_up.error = error
            self._end(look_up)
        return look_up

    def _fresh(self, key: _Key) -> _LookUp | None:
        latest = self._latest.get(key)
        fresh = latest is not None and time.monotonic() - latest.began < _FRESH_SECONDS
        return latest if fresh else None

    def _has_room(self, party: Hashable) -> bool:
        running = self._running[party]
        return running < self._each and has_share(
            running, free=self._threads - self._running.total()
        )

    def _run(self, look_up: _LookUp) -> None:
        try:
            look_up.addresses = self._look_up(*look_up.key)
            look_up.error = None
        except (OSError, ValueError) as error:
            look_up.error = error
        finally:
            self._end(look_up)

    def _end(self, look_up: _LookUp) -> None:
        look_up.done.set()
        with self._changed:
            self._running[look_up.party] -= 1
            if not self._running[look_up.party]:
                del self._running[look_up.party]
            if self._latest.get(look_up.key) is look_up:
                del self._latest[look_up.key]
            self._changed.notify_all()


def numeric(host: str) -> IP | None:
    """Return the address that ``host`` spells in any notation (``2130706433``, ``0x7f.1``); None for a name."""
    try:
        entries = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, ValueError):  # A host that cannot be encoded is not an address.
        return None
    return ipaddress.ip_address(entries[0][4][0])


def system_addresses(host: str, port: int) -> list[IP]:
    """Return the addresses of a name from the system's resolver. Raises ``OSError`` or ``ValueError``."""
    entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ipaddress.ip_address(entry[4][0]) for entry in entries]
