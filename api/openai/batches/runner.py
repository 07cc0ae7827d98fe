"""The thread of the API that works on batches: in slices, so that several take turns.

The API has it, because it has what submits jobs. One process works on a batch at a time: see :mod:`jobs.store.batches`.

A slice that submits lines may wait for the servers of images, for as long as a line takes. So it has a thread of its
own, of which accounts have shares, and everything else is done by one thread that waits for the database alone: a
batch with slow images delays the other batches of its account at most, and not its own end.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import flask
import structlog

from api.openai.batches.endpoints import BatchEndpoints
from api.openai.batches.slices import BatchSlices, Notify
from api.submission import SubmissionService
from core import ids
from core.background import BackgroundLoop
from core.database import Database
from core.database_faults import DatabaseUnavailable
from core.settings import Settings
from core.shares import Shares
from jobs.store import batches
from jobs.store.batches import BatchClaim, Feeding
from jobs.store.storage import Quota

_log = structlog.get_logger(__name__)

_EVERY_SECONDS: Final = 0.5
#: Batches that are fed at once, and how many of these places only accounts without one get.
_FEEDERS: Final = 8
_RESERVED: Final = 2


class BatchRunner(BackgroundLoop):
    """Works on batches. Any number of processes may do so at once.

    Args:
        app: its context holds what a line takes while it is submitted.
        database: where batches are stored.
        settings: limits.
        owner: the id of the process.
        service: submits jobs.
        quota: the storage quota of accounts.
        endpoints: the routes whose requests batches may have.
        notify: tells receivers of the end of a batch.
        timer: a monotonic clock, in seconds.

    Attributes:
        slices: does the work.
        feeders: the places of slices that submit lines.
    """

    def __init__(
        self,
        app: flask.Flask,
        database: Database,
        settings: Settings,
        *,
        owner: str,
        service: SubmissionService,
        quota: Quota,
        endpoints: BatchEndpoints,
        notify: Notify = lambda _transaction, _batch: None,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            "batches",
            self._work,
            every=_EVERY_SECONDS,
            after=self._hand_over,
            join_seconds=10.0,
        )
        self._database = database
        self._owner = owner
        self._lease = timedelta(seconds=settings.lease_seconds)
        self.slices = BatchSlices(
            app,
            database,
            settings,
            service=service,
            quota=quota,
            endpoints=endpoints,
            stopping=lambda: self.stopping,
            notify=notify,
            timer=timer,
        )
        self.feeders = Shares(_FEEDERS, name="batches that submit lines", reserved=_RESERVED)
        self._lock = threading.Lock()
        #: The batches that are fed now, by their ids.
        self._fed: dict[uuid.UUID, BatchClaim] = {}

    def run_slice(self) -> bool:
        """Work a while on the batch whose turn it is, in this thread; return whether there was one.

        Raises:
            core.database_faults.DatabaseUnavailable: the database does not answer; the next call continues.
        """
        held = self._claim()
        if held is not None:
            self.slices.run(held)
        return held is not None

    def _work(self) -> None:
        try:
            while not self.stopping and (held := self._claim()) is not None:
                if not held.feeding:
                    self.slices.run(held)
                elif self.feeders.take(held.batch.account_id):
                    self._feed(held)
        except DatabaseUnavailable:
            _log.warning("batches_not_continued")
        except Exception:  # noqa: BLE001 - the API serves requests, whatever happens to batches
            _log.exception("batches_failed")

    def _claim(self) -> BatchClaim | None:
        with self._lock:
            fed = dict(self._fed)
        accounts = {held.batch.account_id for held in fed.values()}
        limits = Feeding(
            batches=fed.keys(),
            accounts={each for each in accounts if not self.feeders.may_take(each)},
            none=self.feeders.held >= self.feeders.capacity,
        )
        return batches.claim(self._database, owner=self._owner, lease=self._lease, feeding=limits)

    def _feed(self, held: BatchClaim) -> None:
        """Do a slice in a thread of its own, which has a place."""
        with self._lock:
            self._fed[held.id] = held
        # A daemon: the end of the process waits for no server of images.
        threading.Thread(target=self._fed_aside, args=(held,), name="batch", daemon=True).start()

    def _fed_aside(self, held: BatchClaim) -> None:
        try:
            self.slices.run(held)
        except DatabaseUnavailable:
            _log.warning("batch_not_continued", batch=ids.show("batch", held.id))
        except Exception:  # noqa: BLE001 - the API serves requests, whatever happens to a batch
            _log.exception("batch_failed", batch=ids.show("batch", held.id))
        finally:
            with self._lock:
                del self._fed[held.id]
            self.feeders.give_back(held.batch.account_id)
            self.wake()

    def _hand_over(self) -> None:
        """Give back what is fed, so that another process continues at once; what still waits is lost."""
        with self._lock:
            fed = list(self._fed.values())
        try:
            for held in fed:
                batches.release(self._database, held, pause=timedelta(0))
        except DatabaseUnavailable:
            _log.warning("batches_not_released")


def owner() -> str:
    """Return an id for a process that works on batches."""
    return f"api:{uuid.uuid4().hex[:12]}"
