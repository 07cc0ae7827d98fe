"""Finds out which tries are due and hands them to threads: sleeps until the earliest of them, or until a bell.

Two rooms of threads: one for lanes that do well, one for those that failed again and again. However many
receivers are dead, they hold the threads of their own room only.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta

import structlog

from core.background import Loop
from core.database import Database, DatabaseUnavailable
from jobs import delivery
from webhooks import attempts, claims, redelivery

_log = structlog.get_logger(__name__)

#: The longest sleep: bells may be lost, and other processes may write tries or die.
_LONGEST_SECONDS = 5.0
#: The sleep while tries are due whose lanes are full; the end of any try of ours ends it too.
_FULL_SECONDS = 0.5
_UNAVAILABLE_SECONDS = 1.0

Send = Callable[[claims.DeliveryClaim], None]


class SenderPool:
    """Threads that make tries.

    Args:
        slots: how many.
        slow: for which lanes.
        send: makes a try, and writes how it ended.
        on_end: called after each.
    """

    def __init__(self, slots: int, *, slow: bool, send: Send, on_end: Callable[[], None]) -> None:
        self.slow = slow
        self._send = send
        self._on_end = on_end
        self._lock = threading.Lock()
        self._free = slots
        name = "slow-courier" if slow else "courier"
        self._threads = ThreadPoolExecutor(slots, thread_name_prefix=name)

    @property
    def free(self) -> int:
        """How many threads have nothing to do."""
        return self._free

    def take(self, claim: claims.DeliveryClaim) -> None:
        """Have a thread make a try; there has to be a free one."""
        with self._lock:
            self._free -= 1
        self._threads.submit(self._run, claim).add_done_callback(_look_for_crash)

    def close(self) -> None:
        """Wait for the tries that are being made."""
        self._threads.shutdown()

    def _run(self, claim: claims.DeliveryClaim) -> None:
        try:
            self._send(claim)
        finally:
            with self._lock:
                self._free += 1
            self._on_end()


def _look_for_crash(done: Future[None]) -> None:
    """Tell of what nobody foresaw. The try's lease runs out then, and it is made again."""
    error = done.exception()
    if error is not None:
        _log.error("delivery_crashed", exc_info=error)


class Dispatcher(Loop):
    """One thread that claims for all rooms of the process. Any number of processes may do so at once.

    Args:
        database: where tries are kept.
        owner: this process's name in their leases, unique per start.
        lease: longer than a try can take.
        send: makes a try of a lane that does well.
        send_slow: makes one of a slow lane.
    """

    def __init__(
        self,
        database: Database,
        *,
        owner: str,
        lease: timedelta,
        send: Send,
        send_slow: Send,
    ) -> None:
        super().__init__("dispatcher", self._turn)
        self._database = database
        self._owner = owner
        self._lease = lease
        self._rooms = (
            SenderPool(delivery.SLOTS, slow=False, send=send, on_end=self.wake),
            SenderPool(delivery.SLOW_SLOTS, slow=True, send=send_slow, on_end=self.wake),
        )
        self._swept_at = float("-inf")
        #: Whose recovery was worked off last.
        self._recovered_for: uuid.UUID | None = None

    def stop(self) -> None:
        """Claim nothing more, and wait for the tries that are being made: each ends within its time-out."""
        super().stop()
        for room in self._rooms:
            room.close()

    def turn(self) -> float:
        """Claim all that is due and fits; return for how many seconds nothing more will be.

        Raises:
            core.database.DatabaseUnavailable: the database does not answer.
        """
        self._sweep()
        pause = claims.pause(self._database)
        if pause is not None and pause <= timedelta():
            for room in self._rooms:
                self._fill(room)
            pause = claims.pause(self._database)
        if pause is None:
            return _LONGEST_SECONDS
        seconds = pause.total_seconds()
        return min(seconds, _LONGEST_SECONDS) if seconds > 0 else _FULL_SECONDS

    def _fill(self, room: SenderPool) -> None:
        while not self.stopping and (free := room.free):
            claimed = claims.claim(
                self._database,
                owner=self._owner,
                lease=self._lease,
                limit=free,
                slow=room.slow,
            )
            for claim in claimed:
                room.take(claim)
            if len(claimed) < free:
                return

    def _sweep(self) -> None:
        """Now and then: end what dead senders left, and work off what people want to be told again."""
        if time.monotonic() - self._swept_at >= _LONGEST_SECONDS:
            lost = attempts.expire(self._database)
            if lost:
                _log.warning("senders_lost", attempts=lost)
            self._swept_at = time.monotonic()
        recovered = redelivery.recover(self._database, after=self._recovered_for)
        self._recovered_for = recovered.account_id
        if recovered.resent:
            _log.info("deliveries_recovered", attempts=recovered.resent)
        if recovered.more:
            self.wake()

    def _turn(self) -> float:
        try:
            return self.turn()
        except DatabaseUnavailable:
            _log.warning("deliveries_not_claimed")
            return _UNAVAILABLE_SECONDS
