"""Holds this process's jobs: renews their leases, watches for cancels and deadlines, stops streams from outside.

One thread with its own pace, never in a stream's loop: a stream that is silent can still be stopped.
A stop aborts by the engine's request id first, so that the engine ends the stream with its bill; only
when that does not end the reading within two seconds is the socket closed.
"""

from __future__ import annotations

import contextlib
import enum
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import structlog

from core import ids
from core.background import BackgroundLoop
from core.database import Database, DatabaseUnavailable
from jobs.store import claims
from jobs.store.traces import Holding as Key

_log = structlog.get_logger(__name__)

_ABORT_GRACE_SECONDS = 2.0
#: Threads come as they are needed: with fewer than jobs a silent engine would draw out a drain by seconds for each.
_ABORTERS = 512


class StopReason(enum.StrEnum):
    """Why a running job, or one of its streams, is stopped from outside."""

    CANCEL = "cancel"
    DEADLINE = "deadline"
    DRAIN = "drain"
    #: Another owner has it, or may have: write nothing more.
    LOST = "lost"
    #: Of one stream among several: the attempt's end does not hang on it any more.
    UNNEEDED = "unneeded"


class Lease:
    """A job this process runs, and the handle by which it can be stopped from any thread."""

    def __init__(self, claim: claims.Claim) -> None:
        self.claim = claim
        self.reason: StopReason | None = None
        self._lock = threading.Lock()
        self._abort: Callable[[], None] | None = None
        self._close: Callable[[], None] | None = None
        self._ended = threading.Event()
        self._branches: list[ChildLease] = []

    def branch(self) -> ChildLease:
        """Return the holding of one of several streams: it is stopped with this one, or by itself."""
        with self._lock:
            branch = ChildLease(self)
            self._branches.append(branch)
            return branch

    def attach(self, *, abort: Callable[[], None], close: Callable[[], None]) -> bool:
        """Say how the stream is stopped; False when the job has been stopped before it had one."""
        with self._lock:
            self._abort, self._close = abort, close
            return self.reason is None

    def stopped_within(self, seconds: float) -> bool:
        """Wait for ``seconds`` and return whether the job, or this stream of it, has been stopped."""
        time.sleep(seconds)
        return self.reason is not None

    def ended(self) -> None:
        """Say that nothing is left to stop."""
        self._ended.set()

    def mark(self, reason: StopReason) -> bool:
        """Note why it stops; the first reason stays, but a lost lease beats them all. False: nothing to stop.

        Once the stream has ended there is nothing to stop: its end is being written, and the fence
        of that write says whether it still counts.
        """
        with self._lock:
            if self._ended.is_set():
                return False
            first = self.reason is None
            if first or reason is StopReason.LOST:
                self.reason = reason
            branches = tuple(self._branches)
        for branch in branches:
            branch.mark_alone(reason)
        return first

    def end_stream(self) -> None:
        """Abort at the engine, and close the socket if that does not end the reading in time."""
        with self._lock:
            abort, close, branches = self._abort, self._close, tuple(self._branches)
        for branch in branches:
            # A silent engine must not draw out the end of one stream by that of another.
            threading.Thread(target=branch.end_stream, name="abort-branch", daemon=True).start()
        if abort is None or close is None or self._ended.is_set():
            return
        try:
            abort()
        finally:
            if not self._ended.wait(_ABORT_GRACE_SECONDS):
                close()


class ChildLease(Lease):
    """The holding of one of a job's streams that run beside each other."""

    def __init__(self, whole: Lease) -> None:
        super().__init__(whole.claim)
        self.reason = whole.reason
        self._whole = whole

    def mark(self, reason: StopReason) -> bool:
        """Note why this stream stops; what is lost, is lost as a whole."""
        return self._whole.mark(reason) if reason is StopReason.LOST else self.mark_alone(reason)

    def mark_alone(self, reason: StopReason) -> bool:
        """Note why this stream stops, without a word to the others."""
        return super().mark(reason)


class Leases(BackgroundLoop):
    """All that this process holds.

    Args:
        database: where leases are kept; best one of their own, whose connection nobody else can take.
        owner: this process's name in them, unique per start.
        lease: their length.
        renew_seconds: between two renewals.
        watch_seconds: between two looks for cancels and deadlines.
    """

    def __init__(
        self,
        database: Database,
        *,
        owner: str,
        lease: timedelta,
        renew_seconds: float,
        watch_seconds: float,
    ) -> None:
        every = min(watch_seconds, renew_seconds)
        super().__init__("leases", self._look_and_renew, every=every, first=every)
        self._database = database
        self._owner = owner
        self._lease = lease
        self._renew_seconds = renew_seconds
        self._renewed_at = time.monotonic()
        self._lock = threading.Lock()
        self._held: dict[Key, Lease] = {}
        self._aborters = ThreadPoolExecutor(_ABORTERS, thread_name_prefix="abort")

    def stop(self) -> None:
        """Stop the thread; nothing is held any more."""
        super().stop()
        self._aborters.shutdown(wait=False, cancel_futures=True)

    @property
    def held(self) -> int:
        """How many jobs are held now."""
        return len(self._held)

    @contextlib.contextmanager
    def hold(self, claim: claims.Claim) -> Iterator[Lease]:
        """Keep ``claim`` alive while the block runs."""
        key = (claim.job_id, claim.attempt)
        holding = Lease(claim)
        with self._lock:
            self._held[key] = holding
        try:
            yield holding
        finally:
            holding.ended()
            with self._lock:
                del self._held[key]

    def end(self, key: Key, reason: StopReason) -> None:
        """Stop one holding for ``reason``, from any thread, without waiting."""
        with self._lock:
            holding = self._held.get(key)
        if holding is not None and holding.mark(reason):
            _log.info(
                "job_stopping",
                job_id=ids.show("job", key[0]),
                attempt=key[1],
                reason=str(reason),
            )
            self._aborters.submit(holding.end_stream)

    def end_all(self, reason: StopReason) -> None:
        """Stop everything held."""
        for key in self._keys():
            self.end(key, reason)

    def look(self) -> None:
        """See what is asked of the jobs held, and stop those that must."""
        keys = self._keys()
        flags = claims.watch(self._database, owner=self._owner, held=keys)
        for key in keys:
            requested = flags.get(key)
            if requested is None:
                self.end(key, StopReason.LOST)
            elif requested.cancel:
                self.end(key, StopReason.CANCEL)
            elif requested.overdue:
                self.end(key, StopReason.DEADLINE)

    def renew(self) -> None:
        """Renew all leases in one statement; what is not renewed is lost."""
        keys = self._keys()
        stored = claims.renew(self._database, owner=self._owner, held=keys, lease=self._lease)
        for key in set(keys) - stored:
            self.end(key, StopReason.LOST)

    def _keys(self) -> list[Key]:
        with self._lock:
            return list(self._held)

    def _look_and_renew(self) -> None:
        try:
            self.look()
            if time.monotonic() - self._renewed_at >= self._renew_seconds:
                self.renew()
                self._renewed_at = time.monotonic()
        except DatabaseUnavailable:
            # Without the database nobody can take the leases either: the streams go on.
            _log.warning("leases_not_renewed", held=self.held)
