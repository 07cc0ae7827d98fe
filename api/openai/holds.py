"""Renews the holds of the jobs whose clients wait at this process; see :mod:`jobs.store.holds`."""

from __future__ import annotations

import collections
import threading
import uuid

import structlog

from core import errors
from core.background import BackgroundLoop
from core.database import Database
from jobs.store import holds

_log = structlog.get_logger(__name__)

_RENEW_SECONDS = holds.LEASE.total_seconds() / 4


class HeldJobs:
    """The jobs that this process holds; two connections may hold one job. For any number of threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._held: collections.Counter[uuid.UUID] = collections.Counter()
        self._loop = BackgroundLoop("holds", self._round)

    def add(self, job_id: uuid.UUID, *, again: bool) -> None:
        """Renew the hold of a job from now on.

        Args:
            job_id: the job.
            again: whether an earlier request has created it, so that its hold may lapse soon.
        """
        if again:
            self._renew([job_id])
        with self._lock:
            first = not self._held
            self._held[job_id] += 1
        self._loop.start()
        if first:
            self._loop.wake()

    def remove(self, job_id: uuid.UUID) -> None:
        """Renew the hold no more."""
        with self._lock:
            self._held[job_id] -= 1
            if not self._held[job_id]:
                del self._held[job_id]

    def end(self, job_id: uuid.UUID) -> None:
        """End the hold of a finished job. One that is left lapses."""
        try:
            holds.end(self._database, job_id)
        except errors.Unavailable:
            _log.warning("hold_not_ended")

    def close(self) -> None:
        """Stop renewing. A signal handler may call it: it takes no lock."""
        self._loop.request_stop()

    def _round(self) -> float | None:
        with self._lock:
            held = list(self._held)
        if not held:
            return None
        self._renew(held)
        return _RENEW_SECONDS

    def _renew(self, job_ids: list[uuid.UUID]) -> None:
        try:
            holds.renew(self._database, job_ids)
        except errors.Unavailable:
            _log.warning("holds_not_renewed", jobs=len(job_ids))
