"""Shares: how accounts share a scarce resource, such as processes, connections or streams.

A :class:`Shares` has a fixed number of places. Each call holds one. When no place is free for a call, the call waits,
and the accounts take turns: first the account that holds the fewest places, then the account whose last turn is
the longest ago; within an account the calls keep their order. So an account that queues thousands of calls delays
another account's call by the calls that already run, and by nothing else::

    decoders = Shares(3, name="decoders", most_waiting=32, reserved=1)
    with decoders.hold(account_id, seconds=15):
        decode(image)

The number of waiting calls is bounded, in all and per account, and each has a deadline. A call that gets no place
raises :class:`core.errors.Overloaded`, which says after how many seconds a retry makes sense.
"""

from __future__ import annotations

import collections
import math
import threading
import time
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from typing import Final

from core import errors

#: An account gets one more place while it has fewer than this many times the free ones.
_SHARE: Final = 3
#: The weight of the newest call in the mean service time.
_NEWEST: Final = 0.2
#: Accounts whose last turn is remembered.
_REMEMBERED: Final = 4096
_LEAST_SECONDS: Final = 1
_MOST_SECONDS: Final = 60


def has_share(held: int, *, free: int, amount: int = 1) -> bool:
    """Whether an account that holds ``held`` may take ``amount`` of ``free``.

    An account that is alone gets three quarters of the total at most, and the last unit goes to one that has none.
    """
    return amount <= free and held + amount <= _SHARE * free


class Shares:
    """A fixed number of places that accounts share. Thread-safe.

    An account gets one more place while it has fewer than three times the free ones. So an account that is alone
    gets three quarters of them, two that want all get three sevenths each, and the last place goes to an account
    that has none: no account keeps the others out. Of up to three places one account can have all, unless some are
    ``reserved``. The places to wait in are shared by the same rule.

    Args:
        capacity: places that are held at once.
        name: what is shared, in the plural, for error messages and metrics: ``searches``.
        most_waiting: calls that wait at once; with 0, none waits.
        per_account_waiting: calls of one account that wait at once; by default only the rule above limits them.
        reserved: places that only accounts without a place get.
        timer: a monotonic clock, in seconds.
    """

    def __init__(
        self,
        capacity: int,
        *,
        name: str,
        most_waiting: int = 0,
        per_account_waiting: int | None = None,
        reserved: int = 0,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.capacity = capacity
        self._most_waiting = most_waiting
        self._per_account_waiting = (
            most_waiting if per_account_waiting is None else per_account_waiting
        )
        self._reserved = reserved
        self._timer = timer
        self._lock = threading.Lock()
        self._free = capacity
        self._held: collections.Counter[Hashable] = collections.Counter()
        #: The waiting calls of each account that has any.
        self._queues: dict[Hashable, collections.deque[_Waiter]] = {}
        #: The number of each account's last turn; the account whose turn is the longest ago comes first.
        self._turns: collections.OrderedDict[Hashable, int] = collections.OrderedDict()
        self._turn = 0
        self._waiting = 0
        self._refused = 0
        #: When the calls that hold a place got it.
        self._began: dict[_Waiter, float] = {}
        self._mean_seconds: float | None = None

    @property
    def held(self) -> int:
        """How many places are held now."""
        return self.capacity - self._free

    @property
    def waiting(self) -> int:
        """How many calls wait now."""
        return self._waiting

    @property
    def refused(self) -> int:
        """How many calls have got no place so far."""
        return self._refused

    def hold(self, account_id: Hashable, *, seconds: float) -> AbstractContextManager[None]:
        """Hold a place during the block.

        Args:
            account_id: the account of the call.
            seconds: the longest wait for the place; zero or less: the call does not wait.

        Raises:
            core.errors.Overloaded: there was no place in time, or too many calls wait already.
        """
        return _Waiter(self, account_id, seconds)

    def take(self, account_id: Hashable) -> bool:
        """Take a place without waiting and keep it until :meth:`give_back`; return whether there was one."""
        with self._lock:
            if not self._may_hold(account_id):
                self._refused += 1
                return False
            self._grant(account_id)
            return True

    def may_take(self, account_id: Hashable) -> bool:
        """Return whether :meth:`take` would get a place now."""
        with self._lock:
            return self._may_hold(account_id)

    def give_back(self, account_id: Hashable) -> None:
        """Give a place back that the account took."""
        with self._lock:
            self._release(account_id)

    def enter(self, call: _Waiter, *, seconds: float) -> None:
        """Have ``call`` hold a place; see :meth:`hold`."""
        with self._lock:
            if self._may_hold(call.account_id) and call.account_id not in self._queues:
                self._admit(call)
                return
            may_wait = seconds > 0 and self._may_wait(call.account_id)
            call.granted = threading.Event()
            self._queues.setdefault(call.account_id, collections.deque()).append(call)
            self._waiting += 1
            self._serve()
            if not may_wait:
                self._insist(call)
        call.granted.wait(seconds)
        with self._lock:
            self._insist(call)

    def leave(self, call: _Waiter) -> None:
        """Have ``call`` neither hold a place nor wait for one."""
        with self._lock:
            if call.holds:
                self._finish(call)
            elif call in self._queues.get(call.account_id, ()):
                self._withdraw(call)

    def _insist(self, call: _Waiter) -> None:
        """Return if ``call`` holds a place, or else refuse it."""
        if call.holds:
            return
        self._withdraw(call)
        self._refused += 1
        raise errors.Overloaded(
            f"Too many {self.name} at once: {self.held} of {self.capacity} places are held, "
            f"{self._waiting} other calls wait.",
            retry_after=self._retry_after(),
        )

    def _finish(self, call: _Waiter) -> None:
        took = self._timer() - self._began.pop(call)
        mean = self._mean_seconds
        self._mean_seconds = took if mean is None else mean + _NEWEST * (took - mean)
        self._release(call.account_id)

    def _serve(self) -> None:
        """Grant free places to waiting calls, in their order, until none of them can get one."""
        while ready := [account_id for account_id in self._queues if self._may_hold(account_id)]:
            account_id = min(ready, key=self._order)
            call = self._queues[account_id][0]
            self._withdraw(call)
            self._admit(call)

    def _admit(self, call: _Waiter) -> None:
        self._grant(call.account_id)
        self._began[call] = self._timer()
        call.holds = True
        if call.granted is not None:
            call.granted.set()

    def _order(self, account_id: Hashable) -> tuple[int, int]:
        return self._held[account_id], self._turns.get(account_id, 0)

    def _may_hold(self, account_id: Hashable) -> bool:
        has = self._held[account_id]
        if not has:
            return self._free > 0
        return self._free > self._reserved and has_share(has, free=self._free)

    def _may_wait(self, account_id: Hashable) -> bool:
        free = self._most_waiting - self._waiting
        queue = self._queues.get(account_id)
        if not queue:
            return free > 0 and self._per_account_waiting > 0
        return free > 1 and len(queue) < min(self._per_account_waiting, _SHARE * free)

    def _grant(self, account_id: Hashable) -> None:
        self._free -= 1
        self._held[account_id] += 1
        self._turn += 1
        self._turns[account_id] = self._turn
        self._turns.move_to_end(account_id)
        if len(self._turns) > _REMEMBERED:
            self._turns.popitem(last=False)

    def _release(self, account_id: Hashable) -> None:
        self._free += 1
        self._held[account_id] -= 1
        if not self._held[account_id]:
            del self._held[account_id]
        self._serve()

    def _withdraw(self, call: _Waiter) -> None:
        queue = self._queues[call.account_id]
        queue.remove(call)
        self._waiting -= 1
        if not queue:
            del self._queues[call.account_id]

    def _retry_after(self) -> int:
        # A long first call must count before it has ended.
        now = self._timer()
        running = [now - began for began in self._began.values()]
        mean = max(self._mean_seconds or 0.0, sum(running) / len(running) if running else 0.0)
        seconds = mean * (self._waiting + 1) / max(1, self.capacity)
        return min(_MOST_SECONDS, max(_LEAST_SECONDS, math.ceil(seconds)))


class _Waiter(AbstractContextManager[None]):
    """A call that waits for a place or holds one, during a block."""

    def __init__(self, shares: Shares, account_id: Hashable, seconds: float) -> None:
        self.account_id = account_id
        self.holds = False
        #: Set when it gets its place; only calls that wait need one.
        self.granted: threading.Event | None = None
        self._shares = shares
        self._seconds = seconds

    def __enter__(self) -> None:
        try:
            self._shares.enter(self, seconds=self._seconds)
        except BaseException:
            self._shares.leave(self)
            raise

    def __exit__(self, *_: object) -> None:
        self._shares.leave(self)
