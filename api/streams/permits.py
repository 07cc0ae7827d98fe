"""How many requests may be held open at once. Each takes a thread."""

from __future__ import annotations

import threading


class Permits:
    """A fixed number of permits, shared by all that holds requests open."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Take one; False, at once, when there is none."""
        with self._lock:
            if self._left <= 0:
                return False
            self._left -= 1
            return True

    def give_back(self) -> None:
        """Give one back."""
        with self._lock:
            self._left += 1
