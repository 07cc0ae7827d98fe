"""Keys that are remembered for a limited time, such as the hashes of inputs that were too costly."""

import collections
import threading
import time
from collections.abc import Callable, Hashable


class Recent:
    """Keys that were added recently. Thread-safe.

    Args:
        most: the number of keys that are kept; a new one replaces the oldest.
        seconds: how long a key is kept after it was last added.
        timer: a monotonic clock, in seconds.
    """

    def __init__(
        self, most: int, *, seconds: float, timer: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = most
        self._seconds = seconds
        self._timer = timer
        self._lock = threading.Lock()
        #: When each key expires, the earliest first.
        self._expiry: collections.OrderedDict[Hashable, float] = collections.OrderedDict()

    def add(self, key: Hashable) -> None:
        """Remember ``key`` from now on."""
        with self._lock:
            self._expiry[key] = self._timer() + self._seconds
            self._expiry.move_to_end(key)
            if len(self._expiry) > self._most:
                self._expiry.popitem(last=False)

    def __contains__(self, key: Hashable) -> bool:
        """Whether ``key`` is still remembered."""
        with self._lock:
            expiry = self._expiry.get(key)
            return expiry is not None and self._timer() < expiry
