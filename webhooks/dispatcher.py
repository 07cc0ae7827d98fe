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

from core.database import Database, DatabaseUnavailable
from jobs.store.purge import FOR_EVER, Periods
from webhooks import attempts, claims, outbox, policy, purge, redelivery

_log = structlog.get_logger(__name__)

#: The longest sleep: bells may be lost, and other processes may write tries or die.
_LONGEST_SECONDS = 5.0
#: The sleep while tries are due whose lanes are full; the end of any try of ours ends it too.
_FULL_SECONDS = 0.5
_UNAVAILABLE_SECONDS = 1.0
#: Between two purges when nothing is left to remove.
_PURGE_EVERY_SECONDS = 60.0

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


class Dispatcher:
    """One thread that claims for all rooms of the process. Any number of processes may do so at once.

    Args:
        database: where tries are kept.
        owner: this process's name in their leases, unique per start.
        lease: longer than a try can take.
        send: makes a try of a lane that does well.
        send_slow: makes one of a slow lane.
        periods: how long notifications and their answers are kept.
    """

    def __init__(
        self,
        database: Database,
        *,
        owner: str,
        lease: timedelta,
        send: Send,
        send_slow: Send,
        periods: Periods = FOR_EVER,
    ) -> None:
        self._database = database
        self._owner = owner
        self._lease = lease
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._rooms = (
            SenderPool(policy.SLOTS, slow=False, send=send, on_end=self._wake.set),
            SenderPool(policy.SLOW_SLOTS, slow=True, send=send_slow, on_end=self._wake.set),
        )
        self._periods = periods
        self._swept_at = float("-inf")
        self._purge_due = float("-inf")
        #: Whose recovery was worked off last.
        self._recovered_for: uuid.UUID | None = None
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Look at once whether something is due: a bell was heard."""
        self._wake.set()

    def drain(self) -> None:
        """Claim nothing more; safe in a signal handler."""
        self._stopping.set()
        self._wake.set()

    def stop(self) -> None:
        """Drain, and wait for the tries that are being made: each ends within its time-out."""
        self.drain()
        if self._thread.is_alive():
            self._thread.join()
        for room in self._rooms:
            room.close()

    def turn(self) -> float:
        """Fan out a batch of the outbox, then claim all that is due and fits; return the seconds until more is due.

        Raises:
            core.database.DatabaseUnavailable: the database does not answer.
        """
        if outbox.fan_out(self._database).more:
            self._wake.set()
        self._sweep()
        self._purge()
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
        while not self._stopping.is_set() and (free := room.free):
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
            self._wake.set()

    def _purge(self) -> None:
        """Remove a batch of what is old, if it is time."""
        if self._periods == FOR_EVER or time.monotonic() < self._purge_due:
            return
        purged = purge.batch(self._database, self._periods)
        if purged != purge.WebhooksPurged():
            _log.info("webhooks_purged", reduced=purged.reduced, removed=purged.removed)
        if purged.more:
            self._wake.set()
        else:
            self._purge_due = time.monotonic() + _PURGE_EVERY_SECONDS

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                pause = self.turn()
            except DatabaseUnavailable:
                _log.warning("deliveries_not_claimed")
                pause = _UNAVAILABLE_SECONDS
            self._wake.wait(pause)
