"""Limits requests without a valid key, per client address.

Behind a proxy many clients may have one address, so only these requests count and only these are refused. The limit
bounds their cost: a query each.
"""

import collections
import math
import threading
import time
from collections.abc import Callable
from typing import Final

_WINDOW_SECONDS: Final = 60
_ADDRESSES: Final = 10_000
#: The bucket of all addresses together, and how many times the limit of one address it holds.
_ALL: Final = ""
_TOGETHER: Final = 20


class UnknownKeys:
    """A token bucket of failures for each address. Thread-safe.

    One more bucket counts the failures of all addresses together, so a client with very many addresses costs no more
    than one with twenty. That bucket refuses no request, because other clients would suffer.

    Args:
        per_minute: failures that an address may have per minute.
        addresses: maximum number of buckets; the address that failed longest ago is dropped first.
        timer: a monotonic clock, in seconds.
    """

    def __init__(
        self,
        *,
        per_minute: int,
        addresses: int = _ADDRESSES,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self.per_minute = per_minute
        self._addresses = addresses
        self._timer = timer
        self._lock = threading.Lock()
        #: The rest of each bucket, and its time; the latest failure is last.
        self._buckets: collections.OrderedDict[str, tuple[float, float]] = collections.OrderedDict()

    def __len__(self) -> int:
        """The number of buckets."""
        return len(self._buckets)

    def is_exhausted(self, address: str) -> bool:
        """Whether one more failure of ``address``, or of all addresses together, exceeds the limit."""
        if _ALL not in self._buckets:
            return False
        with self._lock:
            return self._left(address) < 1 or self._left(_ALL) < 1

    def fail(self, address: str) -> int | None:
        """Count a failure of ``address``; if it exceeds the limit, return the seconds until the next one."""
        with self._lock:
            left = self._left(address)
            if left < 1:
                return math.ceil((1 - left) * _WINDOW_SECONDS / self.per_minute)
            self._buckets[address] = (left - 1, self._timer())
            self._buckets[_ALL] = (max(0.0, self._left(_ALL) - 1), self._timer())
            self._buckets.move_to_end(address)
            self._buckets.move_to_end(_ALL)
            if len(self._buckets) > self._addresses:
                self._buckets.popitem(last=False)
            return None

    def _left(self, address: str) -> float:
        now = self._timer()
        full = self.per_minute * (_TOGETHER if address == _ALL else 1.0)
        left, since = self._buckets.get(address, (full, now))
        return min(full, left + (now - since) * full / _WINDOW_SECONDS)
