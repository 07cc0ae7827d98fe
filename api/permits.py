"""How many requests may take something at once that there is little of, such as a thread: some for everybody."""

from __future__ import annotations

import collections
import threading
import uuid
from typing import Final

#: An account may have so many times what it leaves free.
_SHARE: Final = 3


class Permits:
    """A fixed number of permits, for many threads. Nobody can take them all.

    An account gets one more while it has less than three times those that are free. So one that is alone has three
    quarters at the most, two that want all have three sevenths each, and to one that has none the last one is given:
    whoever holds hundreds keeps nobody else out.

    Args:
        count: how many there are; of up to three a single account may have all.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._lock = threading.Lock()
        #: Those that are out, by account.
        self._held: collections.Counter[uuid.UUID] = collections.Counter()

    def take(self, account_id: uuid.UUID) -> bool:
        """Take one for an account; False, at once, when there is none for it."""
        with self._lock:
            if self._held[account_id] >= _SHARE * self._free:
                return False
            self._free -= 1
            self._held[account_id] += 1
            return True

    def give_back(self, account_id: uuid.UUID) -> None:
        """Give one back that the account took."""
        with self._lock:
            self._free += 1
            self._held[account_id] -= 1
            if not self._held[account_id]:
                del self._held[account_id]
