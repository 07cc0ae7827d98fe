"""The leases of this process: renews them, watches for cancels and deadlines, and stops generations.

One thread does this at its own pace, outside the loops that read streams, so that a silent stream can be stopped too.
A stop first aborts by the engine's request id, so that the engine ends the stream with its bill; the socket is closed
only if that does not end the stream within two seconds.
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
from core.database import Database
from core.database_faults import DatabaseUnavailable
from jobs.store import claims
from jobs.store.traces import Holding as Key

_log = structlog.get_logger(__name__)

_ABORT_GRACE_SECONDS = 2.0
#: Threads start when they are needed. With fewer threads than jobs, a silent engine would delay a drain by two seconds
#: for each job.
_ABORTERS = 512


class StopReason(enum.StrEnum):
    """Why a running job, or one of its streams, is stopped from outside."""

    CANCEL = "cancel"
    DEADLINE = "deadline"
    DRAIN = "drain"
    #: Another process owns the job, or may own it: nothing more may be written.
    LOST = "lost"
    #: The attempt no longer needs this one of its generations.
    UNNEEDED = "unneeded"


class Lease:
    """A job that this process runs, and the handle to stop it from any thread."""

    def __init__(self, claim: claims.Claim) -> None:
        self.claim = claim
        self.reason: StopReason | None = None
        self._lock = threading.Lock()
        self._abort: Callable[[], None] | None = None
        self._close: Callable[[], None] | None = None
        self._ended = threading.Event()
        self._children: list[ChildLease] = []

    def child(self) -> ChildLease:
        """Return the lease of one of several generations, which is stopped with this one or alone."""
        with self._lock:
            child = ChildLease(self)
            self._children.append(child)
            return child

    def attach(self, *, abort: Callable[[], None], close: Callable[[], None]) -> bool:
        """Set how the running generation is stopped; return False if the job was stopped before."""
        with self._lock:
            self._abort, self._close = abort, close
            return self.reason is None

    def stopped_within(self, seconds: float) -> bool:
        """Wait for ``seconds`` and return whether the job, or this generation of it, was stopped."""
        time.sleep(seconds)
        return self.reason is not None

    def ended(self) -> None:
        """Note that nothing is left to stop."""
        self._ended.set()

    def mark(self, reason: StopReason) -> bool:
        """Note why the job stops. The first reason stays, unless the lease is lost.

        After the last generation has ended there is nothing to stop: its end is being written, and the fence of that
        write decides whether it counts.

        Returns:
            Whether there is something to stop.
        """
        with self._lock:
            if self._ended.is_set():
                return False
            first = self.reason is None
            if first or reason is StopReason.LOST:
                self.reason = reason
            children = tuple(self._children)
        for child in children:
            child.mark_alone(reason)
        return first

    def end_stream(self) -> None:
        """Abort at the engine, and close the socket if that does not end the stream in time."""
        with self._lock:
            abort, close, children = self._abort, self._close, tuple(self._children)
        for child in children:
            # A silent engine must not delay the end of one stream by that of another.
            threading.Thread(target=child.end_stream, name="abort-child", daemon=True).start()
        if abort is None or close is None or self._ended.is_set():
            return
        try:
            abort()
        finally:
            if not self._ended.wait(_ABORT_GRACE_SECONDS):
                close()


class ChildLease(Lease):
    """The lease of one of several generations of a job that run at the same time."""

    def __init__(self, parent: Lease) -> None:
        super().__init__(parent.claim)
        self.reason = parent.reason
        self._parent = parent

    def mark(self, reason: StopReason) -> bool:
        """Note why this generation stops; a lost lease stops all of them."""
        return self._parent.mark(reason) if reason is StopReason.LOST else self.mark_alone(reason)

    def mark_alone(self, reason: StopReason) -> bool:
        """Note why this generation stops, without stopping the others."""
        return super().mark(reason)


class Leases(BackgroundLoop):
    """All leases of this process.

    Args:
        database: where leases are stored; best with a connection that nothing else uses.
        owner: the name of this process in leases, unique for each start.
        lease: the length of a lease.
        renew_seconds: between two renewals.
        watch_seconds: between two checks for cancels and deadlines.
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
        """Stop the thread. No job must run any more."""
        super().stop()
        self._aborters.shutdown(wait=False, cancel_futures=True)

    @property
    def held(self) -> int:
        """How many jobs this process runs now."""
        return len(self._held)

    @contextlib.contextmanager
    def hold(self, claim: claims.Claim) -> Iterator[Lease]:
        """Renew the lease of ``claim`` while the block runs."""
        key = (claim.job_id, claim.attempt)
        lease = Lease(claim)
        with self._lock:
            self._held[key] = lease
        try:
            yield lease
        finally:
            lease.ended()
            with self._lock:
                del self._held[key]

    def end(self, key: Key, reason: StopReason) -> None:
        """Stop one job for ``reason``, from any thread, without waiting."""
        with self._lock:
            lease = self._held.get(key)
        if lease is not None and lease.mark(reason):
            _log.info(
                "job_stopping",
                job_id=ids.show("job", key[0]),
                attempt=key[1],
                reason=str(reason),
            )
            self._aborters.submit(lease.end_stream)

    def end_all(self, reason: StopReason) -> None:
        """Stop every job of this process."""
        for key in self._keys():
            self.end(key, reason)

    def look(self) -> None:
        """Stop the jobs that were cancelled, passed their deadline, or belong to another process now."""
        keys = self._keys()
        flags = claims.watch(self._database, owner=self._owner, held=keys)
        for key in keys:
            job = flags.get(key)
            if job is None:
                self.end(key, StopReason.LOST)
            elif job.cancel:
                self.end(key, StopReason.CANCEL)
            elif job.overdue:
                self.end(key, StopReason.DEADLINE)

    def renew(self) -> None:
        """Renew all leases in one statement; a lease that is not renewed is lost."""
        keys = self._keys()
        renewed = claims.renew(self._database, owner=self._owner, held=keys, lease=self._lease)
        for key in set(keys) - renewed:
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
            # Without the database no other process can take the leases: the generations go on.
            _log.warning("leases_not_renewed", held=self.held)
