"""Fans out the outbox, and passes due attempts to threads; sleeps until the next one is due, or until a wakeup.

There are two pools of threads: one for healthy queues, one for queues that failed repeatedly. So dead receivers,
however many, hold threads of the second pool only.
"""

import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta

import structlog

from core.background import BackgroundLoop
from core.database import Database
from core.database_faults import DatabaseUnavailable
from jobs.store import retention
from jobs.store.purge import NO_RETENTION, Periods
from webhooks import attempts, claims, outbox, policy, purge, redelivery

_log = structlog.get_logger(__name__)

#: The longest sleep: a wakeup may be lost, and other processes may write attempts or die.
_LONGEST_SECONDS = 5.0
#: The sleep while the queues of due attempts are full; the end of an attempt of this process ends it, too.
_FULL_SECONDS = 0.5
_UNAVAILABLE_SECONDS = 1.0
#: Between two purges when nothing is left to remove.
_PURGE_EVERY_SECONDS = 60.0

Send = Callable[[claims.DeliveryClaim], None]


class SenderPool:
    """Threads that make attempts.

    Args:
        slots: the number of threads.
        slow: whether they are for slow queues.
        send: makes an attempt, and writes its result.
        on_end: called after each.
    """

    def __init__(self, slots: int, *, slow: bool, send: Send, on_end: Callable[[], None]) -> None:
        self.slow = slow
        self._send = send
        self._on_end = on_end
        self._lock = threading.Lock()
        self._free = slots
        name = "slow-sender" if slow else "sender"
        self._threads = ThreadPoolExecutor(slots, thread_name_prefix=name)

    @property
    def free(self) -> int:
        """The number of idle threads."""
        return self._free

    def take(self, claim: claims.DeliveryClaim) -> None:
        """Have a thread make an attempt; one must be idle."""
        with self._lock:
            self._free -= 1
        self._threads.submit(self._run, claim).add_done_callback(_log_crash)

    def close(self) -> None:
        """Wait for the attempts that are under way."""
        self._threads.shutdown()

    def _run(self, claim: claims.DeliveryClaim) -> None:
        try:
            self._send(claim)
        finally:
            with self._lock:
                self._free += 1
            self._on_end()


def _log_crash(done: Future[None]) -> None:
    """Log an unexpected error. The lease of the attempt runs out, and it is made again."""
    error = done.exception()
    if error is not None:
        _log.error("delivery_crashed", exc_info=error)


class Dispatcher(BackgroundLoop):
    """One thread that claims for both pools of the process. Any number of processes may do so at once.

    Args:
        database: where attempts are stored.
        owner: the name of this process in their leases, unique per start.
        lease: longer than an attempt can take.
        send: makes an attempt of a healthy queue.
        periods: the retention periods of notifications and their answers.
    """

    def __init__(
        self,
        database: Database,
        *,
        owner: str,
        lease: timedelta,
        send: Send,
        periods: Periods = NO_RETENTION,
    ) -> None:
        super().__init__("dispatcher", self._turn)
        self._database = database
        self._owner = owner
        self._lease = lease
        self._pools = (
            SenderPool(policy.SLOTS, slow=False, send=send, on_end=self.wake),
            SenderPool(policy.SLOW_SLOTS, slow=True, send=send, on_end=self.wake),
        )
        self._periods = periods
        self._swept_at = float("-inf")
        self._purge_due = float("-inf")
        #: The account whose entries of the outbox were read last.
        self._fanned_out_for: uuid.UUID | None = None
        #: The account whose recovery was served last.
        self._recovered_for: uuid.UUID | None = None

    def stop(self) -> None:
        """Claim nothing more, and wait for the attempts that are under way: each ends within its timeout."""
        super().stop()
        for pool in self._pools:
            pool.close()

    def turn(self) -> float:
        """Fan out a batch of the outbox, then claim all that is due and fits; return the seconds until more is due.

        Raises:
            core.database_faults.DatabaseUnavailable: the database does not answer.
        """
        fanned_out = outbox.fan_out(self._database, after=self._fanned_out_for)
        self._fanned_out_for = fanned_out.account_id
        if fanned_out.more:
            self.wake()
        self._sweep()
        self._purge()
        pause = claims.pause(self._database)
        if pause is not None and pause <= timedelta():
            for pool in self._pools:
                self._fill(pool)
            pause = claims.pause(self._database)
        if pause is None:
            return _LONGEST_SECONDS
        seconds = pause.total_seconds()
        return min(seconds, _LONGEST_SECONDS) if seconds > 0 else _FULL_SECONDS

    def _fill(self, pool: SenderPool) -> None:
        while not self.stopping and (free := pool.free):
            claimed = claims.claim(
                self._database,
                owner=self._owner,
                lease=self._lease,
                limit=free,
                slow=pool.slow,
            )
            for claim in claimed:
                pool.take(claim)
            if len(claimed) < free:
                return

    def _sweep(self) -> None:
        """End what dead senders left, if it is time, and do a batch of a recovery."""
        if time.monotonic() - self._swept_at >= _LONGEST_SECONDS:
            lost = attempts.expire(self._database)
            if lost:
                _log.warning("senders_lost", attempts=lost)
            self._discard()
            self._swept_at = time.monotonic()
        recovered = redelivery.recover(self._database, after=self._recovered_for)
        self._recovered_for = recovered.account_id
        if recovered.resent:
            _log.info("deliveries_recovered", attempts=recovered.resent)
        if recovered.more:
            self.wake()

    def _discard(self) -> None:
        """Remove a batch of content that is not to be stored, here, where its copies in notifications are known."""
        discarded = retention.discard(
            self._database, actor=f"sweeper:{self._owner}", remove_copies=purge.reduce_jobs
        )
        if discarded:
            _log.info("content_discarded", jobs=discarded)

    def _purge(self) -> None:
        """Remove a batch of what is old, if it is time."""
        if self._periods == NO_RETENTION or time.monotonic() < self._purge_due:
            return
        purged = purge.batch(self._database, self._periods)
        if purged != purge.WebhooksPurged():
            _log.info(
                "webhooks_purged",
                reduced=purged.reduced,
                removed=purged.removed,
                queues=purged.queues,
            )
        if purged.more:
            self.wake()
        else:
            self._purge_due = time.monotonic() + _PURGE_EVERY_SECONDS

    def _turn(self) -> float:
        try:
            return self.turn()
        except DatabaseUnavailable:
            _log.warning("deliveries_not_claimed")
            return _UNAVAILABLE_SECONDS
