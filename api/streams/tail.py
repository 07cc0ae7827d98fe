"""The thread of a process that gets new events, for all followers of jobs."""

from __future__ import annotations

import itertools
import threading
import time
import uuid

import structlog

from api.schemas.jobs import Job
from api.streams import frames
from api.streams.feeds import Feed
from core import ids
from core.database import Database, DatabaseUnavailable
from jobs.events.live import LiveEvent, Subscriber
from jobs.store import event_log, history
from jobs.store.event_log import EventKind, JobEvent

_log = structlog.get_logger(__name__)

#: Seconds per round. In each round, one of the shifts of feeds gets its live events since its last round together.
#: Each follower is a thread to wake: ten times a second is enough for hundreds of them, and not all at once.
_ROUND_SECONDS = 0.025
_SHIFTS = 4
#: Seconds between two reads of SQL; each one is one query for all followed jobs.
_READ_SECONDS = 0.25


class Tail:
    """Maintains a :class:`Feed` for each followed job.

    Redis delivers the deltas of running generations immediately; SQL is read a few times a second and has all other
    events, and those that Redis lost. Without Redis, all events come from SQL.
    """

    def __init__(self, database: Database, *, subscriber: Subscriber) -> None:
        self._database = database
        self._subscriber = subscriber
        self._lock = threading.Lock()
        self._feeds: dict[uuid.UUID, Feed] = {}
        #: Live events from Redis, by job, until the round of its shift.
        self._live: dict[uuid.UUID, list[LiveEvent]] = {}
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def attach(self, job_id: uuid.UUID) -> Feed:
        """Start to follow a job, until :meth:`detach`."""
        with self._lock:
            feed = self._feeds.setdefault(job_id, Feed())
            feed.followers += 1
            if self._closed.is_set():
                feed.end()
            elif self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="tail", daemon=True)
                self._thread.start()
        self._wake.set()
        return feed

    def detach(self, job_id: uuid.UUID, feed: Feed) -> None:
        """Stop following a job."""
        with self._lock:
            feed.followers -= 1
            if not feed.followers and self._feeds.get(job_id) is feed:
                del self._feeds[job_id]

    def close(self) -> None:
        """End all followers soon. Safe in a signal handler: it takes no lock."""
        self._closed.set()
        self._wake.set()

    def _followed(self) -> dict[uuid.UUID, Feed]:
        with self._lock:
            return dict(self._feeds)

    def _run(self) -> None:
        read_at = 0.0
        for shift in itertools.cycle(range(_SHIFTS)):
            if self._closed.is_set():
                break
            new = self._wake.is_set()
            self._wake.clear()
            feeds = self._followed()
            self._subscriber.want(feeds)
            self._distribute(feeds, shift)
            if new or time.monotonic() - read_at >= _READ_SECONDS:
                read_at = time.monotonic()
                self._read_all(feeds)
            if feeds:
                self._closed.wait(_ROUND_SECONDS)
            else:
                self._wake.wait()
        self._subscriber.close()
        for feed in self._followed().values():
            feed.end()

    def _distribute(self, feeds: dict[uuid.UUID, Feed], shift: int) -> None:
        for event in self._subscriber.hear():
            self._live.setdefault(event.job_id, []).append(event)
        for job_id in [job_id for job_id in self._live if job_id.int % _SHIFTS == shift]:
            events = self._live.pop(job_id)
            if feed := feeds.get(job_id):
                feed.add_live(events)

    def _read_all(self, feeds: dict[uuid.UUID, Feed]) -> None:
        try:
            positions = event_log.standings(self._database, list(feeds))
            for job_id, feed in feeds.items():
                position = positions.get(job_id)
                if position is None:
                    feed.end()
                elif feed.stale(position):
                    self._update(job_id, feed)
        except DatabaseUnavailable:
            # A failed read does not harm followers; the next one may succeed.
            _log.warning("events_not_read", jobs=len(feeds))

    def _update(self, job_id: uuid.UUID, feed: Feed) -> None:
        """Add the events in SQL to a feed. A job that fails, as of a later version, ends only its own streams."""
        try:
            self._read(job_id, feed)
        except DatabaseUnavailable:
            raise
        except Exception:  # noqa: BLE001 - the boundary: this thread serves other jobs, too
            _log.exception("events_failed", job_id=ids.show("job", job_id))
            feed.end()

    def _read(self, job_id: uuid.UUID, feed: Feed) -> None:
        page = event_log.read(self._database, job_id, after=feed.last)
        events = [(event.number, self.frame(job_id, event)) for event in page.events]
        through = events[-1][0] if page.more else page.through
        feed.add_read(events, through=through, over=page.finished and not page.more)

    def frame(self, job_id: uuid.UUID, event: JobEvent) -> bytes:
        """Return an event of a job as a frame."""
        if event.kind is not EventKind.FINISHED:
            return frames.frame(event)
        view = history.get(self._database, job_id, account_id=None)
        job = None if view is None else Job.of(view).model_dump_json().encode()
        return frames.frame(event, job=job)
