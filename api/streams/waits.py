"""Requests that are held open until their job has finished. One thread a process looks for all of them."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable

import structlog

from api.serving import current
from core import errors
from core.background import BackgroundLoop
from core.closing import Closing
from core.database import Database
from core.shares import Shares
from jobs.store import history

_log = structlog.get_logger(__name__)

#: Between two looks at the jobs that are waited for.
_CHECK_SECONDS = 0.1


class HeldWait(Closing):
    """A wait for one job. Closing it ends it."""

    def __init__(self, ended: threading.Event, *, close: Callable[[], None]) -> None:
        self._ended = ended
        self._close: Callable[[], None] | None = close

    def over(self, seconds: float) -> bool:
        """Wait for up to ``seconds``; return whether the wait is over."""
        return self._ended.wait(seconds)

    def close(self) -> None:
        """End the wait. Idempotent."""
        close, self._close = self._close, None
        if close is not None:
            close()


class Waits:
    """Lets requests wait for jobs, a fixed number at once.

    Args:
        database: where to look.
        shares: the places of open requests; a wait without a place is refused.
        check_seconds: the time between two looks, each one query for all who wait.
    """

    def __init__(
        self, database: Database, *, shares: Shares, check_seconds: float = _CHECK_SECONDS
    ) -> None:
        self._database = database
        self._shares = shares
        self._check_seconds = check_seconds
        self._lock = threading.Lock()
        self._waiting: dict[uuid.UUID, list[threading.Event]] = {}
        self._loop = BackgroundLoop(
            "waits", self._round, after=lambda: self._record(self._wanted())
        )

    @property
    def open(self) -> int:
        """How many wait now."""
        with self._lock:
            return sum(map(len, self._waiting.values()))

    def wait(
        self,
        job_id: uuid.UUID,
        *,
        account_id: uuid.UUID,
        seconds: float,
        ended: threading.Event | None = None,
    ) -> bool:
        """Return when the job has finished or ``seconds`` are over.

        It returns earlier when ``ended`` is set, the client hangs up or the service stops.

        Args:
            job_id: what is waited for.
            account_id: who waits.
            seconds: for how long at most.
            ended: set to end this wait early.

        Returns:
            False, at once, when there was no place for the account.
        """
        if not self._shares.take(account_id):
            return False
        finished = ended or threading.Event()
        # A client that has hung up waits no longer.
        current.hold(finished.set)
        with self.hold(job_id, account_id=account_id, ended=finished) as wait:
            wait.over(seconds)
        return True

    def hold(self, job_id: uuid.UUID, *, account_id: uuid.UUID, ended: threading.Event) -> HeldWait:
        """Begin a wait in a place that the account has taken; closing the wait gives the place back.

        Args:
            job_id: what is waited for.
            account_id: who waits.
            ended: set when the job has finished or the service stops; set it to end the wait early.
        """
        self._enter(job_id, ended)
        return HeldWait(ended, close=lambda: self._end(job_id, account_id, ended))

    def close(self) -> None:
        """End all waits and refuse new ones. A signal handler may call it: it takes no lock."""
        self._loop.request_stop()

    def _enter(self, job_id: uuid.UUID, finished: threading.Event) -> None:
        with self._lock:
            self._waiting.setdefault(job_id, []).append(finished)
            if self._loop.stopping:
                finished.set()
            else:
                self._loop.start()
        self._loop.wake()

    def _end(self, job_id: uuid.UUID, account_id: uuid.UUID, finished: threading.Event) -> None:
        self._leave(job_id, finished)
        self._shares.give_back(account_id)

    def _leave(self, job_id: uuid.UUID, finished: threading.Event) -> None:
        with self._lock:
            self._waiting[job_id].remove(finished)
            if not self._waiting[job_id]:
                del self._waiting[job_id]

    def _round(self) -> float | None:
        if not (wanted := self._wanted()):
            return None
        self._record(self._finished(wanted))
        self._loop.pause(self._check_seconds)
        return 0.0

    def _wanted(self) -> list[uuid.UUID]:
        with self._lock:
            return list(self._waiting)

    def _finished(self, job_ids: list[uuid.UUID]) -> list[uuid.UUID]:
        try:
            statuses = history.status(self._database, job_ids)
        except errors.Unavailable:
            # A failed check harms no wait: the next one may succeed.
            _log.warning("waits_not_checked", jobs=len(job_ids))
            return []
        return [job_id for job_id, status in statuses.items() if status.terminal]

    def _record(self, job_ids: list[uuid.UUID]) -> None:
        with self._lock:
            for job_id in job_ids:
                for finished in self._waiting.get(job_id, ()):
                    finished.set()
