"""Limits requests without a valid key by the address that they come from.

Behind a proxy many clients may have one address, so only such requests count and only they are refused. What is
limited is what they cost: a look into the database.
"""

from __future__ import annotations

import collections
import math
import threading
import time
from collections.abc import Callable
from typing import Final

_WINDOW_SECONDS: Final = 60
_ADDRESSES: Final = 10_000
#: No address: the bucket of all together, which holds so many times what one address has.
_ALL: Final = ""
_TOGETHER: Final = 20


class UnknownKeys:
    """A bucket for each address, which holds a minute's failures and is filled all the time. For many threads.

    One more holds the failures of all addresses together: who has very many of them costs no more than twenty do. It
    refuses nobody, for others would pay for it.

    Args:
        per_minute: failures that an address may have.
        addresses: buckets that are kept; the address that failed longest ago is forgotten first.
        timer: seconds, by any clock that never goes back.
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
        #: What was left in each bucket, and when; those that failed last come last.
        self._buckets: collections.OrderedDict[str, tuple[float, float]] = collections.OrderedDict()

    def __len__(self) -> int:
        """The addresses that are kept."""
        return len(self._buckets)

    def is_exhausted(self, address: str) -> bool:
        """Whether one more failure of ``address``, or of all addresses together, is too much."""
        if _ALL not in self._buckets:
            return False
        with self._lock:
            return self._left(address) < 1 or self._left(_ALL) < 1

    def fail(self, address: str) -> int | None:
        """Count a failure of ``address``; return the seconds until it may have another when this was too much."""
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
