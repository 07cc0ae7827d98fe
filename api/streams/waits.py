"""Requests that wait until their job has finished. One thread per process checks all their jobs."""

from __future__ import annotations

import threading
import uuid

import structlog

from api.serving import current
from core import errors
from core.database import Database
from core.shares import Shares
from jobs.store import history

_log = structlog.get_logger(__name__)

#: Seconds between two checks of the jobs.
_CHECK_SECONDS = 0.1


class Waits:
    """Lets a limited number of requests wait for jobs.

    Args:
        database: stores jobs.
        shares: the places of open requests.
        check_seconds: the time between two checks; each one is one query for all waits.
    """

    def __init__(
        self, database: Database, *, shares: Shares, check_seconds: float = _CHECK_SECONDS
    ) -> None:
        self._database = database
        self._shares = shares
        self._check_seconds = check_seconds
        self._lock = threading.Lock()
        self._waiting: dict[uuid.UUID, list[threading.Event]] = {}
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def open(self) -> int:
        """The number of waiting requests."""
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
        """Return once the job has finished, at most after ``seconds``.

        It returns earlier if ``ended`` is set, the client disconnects or the service stops.

        Args:
            job_id: the job.
            account_id: the account of the request.
            seconds: the maximum time.
            ended: set by another thread to end the wait.

        Returns:
            False, immediately, if the account has no free place.
        """
        if not self._shares.take(account_id):
            return False
        finished = ended or threading.Event()
        # The wait ends if the client disconnects.
        current.hold(finished.set)
        try:
            self._enter(job_id, finished)
            finished.wait(seconds)
        finally:
            self._leave(job_id, finished)
            self._shares.give_back(account_id)
        return True

    def close(self) -> None:
        """End all waits, and refuse new ones. Safe in a signal handler: it takes no lock."""
        self._closed.set()
        self._wake.set()

    def _enter(self, job_id: uuid.UUID, finished: threading.Event) -> None:
        with self._lock:
            self._waiting.setdefault(job_id, []).append(finished)
            if self._closed.is_set():
                finished.set()
            elif self._thread is None:
                self._thread = threading.Thread(target=self._run, name="waits", daemon=True)
                self._thread.start()
        self._wake.set()

    def _leave(self, job_id: uuid.UUID, finished: threading.Event) -> None:
        with self._lock:
            self._waiting[job_id].remove(finished)
            if not self._waiting[job_id]:
                del self._waiting[job_id]

    def _run(self) -> None:
        while not self._closed.is_set():
            self._wake.wait()
            self._wake.clear()
            while (wanted := self._wanted()) and not self._closed.is_set():
                self._finish(self._finished(wanted))
                self._closed.wait(self._check_seconds)
        self._finish(self._wanted())

    def _wanted(self) -> list[uuid.UUID]:
        with self._lock:
            return list(self._waiting)

    def _finished(self, job_ids: list[uuid.UUID]) -> list[uuid.UUID]:
        try:
            statuses = history.status(self._database, job_ids)
        except errors.Unavailable:
            # A failed check does not harm the waits; the next one may succeed.
            _log.warning("waits_not_checked", jobs=len(job_ids))
            return []
        return [job_id for job_id, status in statuses.items() if status.terminal]

    def _finish(self, job_ids: list[uuid.UUID]) -> None:
        with self._lock:
            for job_id in job_ids:
                for finished in self._waiting.get(job_id, ()):
                    finished.set()
