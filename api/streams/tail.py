"""The one thread of a process that looks for new events, for all who follow jobs here."""

import itertools
import threading
import time
import uuid
from collections.abc import Callable
from typing import TypeVar

import structlog

from api.framework import links
from api.schemas.jobs import Job
from api.streams import frames
from api.streams.feeds import Feed, StoredFeed
from core import ids
from core.background import BackgroundLoop
from core.database import Database
from core.database_faults import DatabaseUnavailable
from jobs.events.live import LiveEvent, StoredThrough, Subscriber
from jobs.store import event_log, history
from jobs.store.event_log import EventKind, JobEvent

T = TypeVar("T", Feed, StoredFeed)

_log = structlog.get_logger(__name__)

#: Between two rounds, in each of which one of the shifts of feeds gets what Redis has brought meanwhile, in one piece.
#: Each follower is a thread to wake: hundreds of them ten times a second are enough, and not all at the same moment.
_ROUND_SECONDS = 0.025
_SHIFTS = 4
#: Between two looks into SQL, each one query for all jobs that are followed.
_LOOK_SECONDS = 0.25


class Tail:
    """Keeps a :class:`Feed` for each job that is followed.

    Redis brings the running texts at once; SQL is looked at a few times a second and has everything else, and
    what Redis lost. Without Redis all of it comes from SQL.
    """

    def __init__(self, database: Database, *, subscriber: Subscriber) -> None:
        self._database = database
        self._subscriber = subscriber
        self._lock = threading.Lock()
        self._feeds: dict[uuid.UUID, Feed] = {}
        self._stored: dict[uuid.UUID, StoredFeed] = {}
        #: What Redis has brought, by job, until its shift.
        self._woken: dict[uuid.UUID, list[LiveEvent]] = {}
        self._attached = threading.Event()
        self._looked_at = 0.0
        self._shifts = itertools.cycle(range(_SHIFTS))
        self._loop = BackgroundLoop("tail", self._round, after=self._end)

    def attach(self, job_id: uuid.UUID) -> Feed:
        """Begin to follow a job; to be ended by :meth:`detach`."""
        return self._attach(self._feeds, job_id, Feed)

    def detach(self, job_id: uuid.UUID, feed: Feed) -> None:
        """End to follow a job."""
        self._detach(self._feeds, job_id, feed)

    def attach_stored(self, job_id: uuid.UUID) -> StoredFeed:
        """Begin to follow how far the events of a job are stored; to be ended by :meth:`detach_stored`."""
        return self._attach(self._stored, job_id, StoredFeed)

    def detach_stored(self, job_id: uuid.UUID, feed: StoredFeed) -> None:
        """End to follow how far the events of a job are stored."""
        self._detach(self._stored, job_id, feed)

    def _attach(self, feeds: dict[uuid.UUID, T], job_id: uuid.UUID, new: Callable[[], T]) -> T:
        with self._lock:
            if (feed := feeds.get(job_id)) is None:
                feed = feeds[job_id] = new()
            feed.followers += 1
            if self._loop.stopping:
                feed.end()
            else:
                self._loop.start()
        self._attached.set()
        self._loop.wake()
        return feed

    def _detach(self, feeds: dict[uuid.UUID, T], job_id: uuid.UUID, feed: T) -> None:
        with self._lock:
            feed.followers -= 1
            if not feed.followers and feeds.get(job_id) is feed:
                del feeds[job_id]

    def close(self) -> None:
        """Let all followers go, soon. A signal handler may call it: no lock is taken here."""
        self._loop.request_stop()

    def _followed(self) -> tuple[dict[uuid.UUID, Feed], dict[uuid.UUID, StoredFeed]]:
        with self._lock:
            return dict(self._feeds), dict(self._stored)

    def _round(self) -> float | None:
        attached = self._attached.is_set()
        self._attached.clear()
        feeds, stored = self._followed()
        self._subscriber.want(feeds, stored=stored)
        self._on_note(feeds, stored, next(self._shifts))
        if attached or time.monotonic() - self._looked_at >= _LOOK_SECONDS:
            self._looked_at = time.monotonic()
            self._look(feeds, stored)
        if not feeds and not stored:
            return None
        self._loop.pause(_ROUND_SECONDS)
        return 0.0

    def _end(self) -> None:
        self._subscriber.close()
        feeds, stored = self._followed()
        for feed in feeds.values():
            feed.end()
        for follows in stored.values():
            follows.end()

    def _on_note(
        self, feeds: dict[uuid.UUID, Feed], stored: dict[uuid.UUID, StoredFeed], shift: int
    ) -> None:
        for reported in self._subscriber.hear():
            if isinstance(reported, StoredThrough):
                if follows := stored.get(reported.job_id):
                    follows.advance(reported.number)
                continue
            self._woken.setdefault(reported.job_id, []).append(reported)
        for job_id in [one for one in self._woken if one.int % _SHIFTS == shift]:
            events = self._woken.pop(job_id)
            if feed := feeds.get(job_id):
                feed.add_live(events)

    def _look(self, feeds: dict[uuid.UUID, Feed], stored: dict[uuid.UUID, StoredFeed]) -> None:
        try:
            positions = event_log.standings(self._database, list(feeds.keys() | stored.keys()))
            for job_id, follows in stored.items():
                if (standing := positions.get(job_id)) is None:
                    follows.end()
                else:
                    follows.advance(standing.number)
            for job_id, feed in feeds.items():
                standing = positions.get(job_id)
                if standing is None:
                    feed.end()
                elif feed.stale(standing):
                    self._bring(job_id, feed)
        except DatabaseUnavailable:
            # Who follows is not harmed by a look that failed; the next one may not.
            _log.warning("events_not_looked_at", jobs=len(feeds))

    def _bring(self, job_id: uuid.UUID, feed: Feed) -> None:
        """Give a feed the events in SQL. A job that cannot be read (a later version's) ends only its own streams."""
        try:
            self._read(job_id, feed)
        except DatabaseUnavailable:
            raise
        except Exception:  # noqa: BLE001 - the boundary: the others are followed by this thread too
            _log.exception("events_not_told", job_id=ids.show("job", job_id))
            feed.end()

    def _read(self, job_id: uuid.UUID, feed: Feed) -> None:
        page = event_log.read(self._database, job_id, after=feed.last)
        reported = [(event.number, self.frame(job_id, event)) for event in page.events]
        through = reported[-1][0] if page.more else page.through
        feed.add_read(reported, through=through, over=page.finished and not page.more)

    def frame(self, job_id: uuid.UUID, event: JobEvent) -> bytes:
        """Return an event of a job as it goes to a follower."""
        if event.kind is not EventKind.FINISHED:
            return frames.frame(event)
        view = history.get(self._database, job_id, account_id=None)
        # The followers may have come through different proxies.
        with links.based_on(self._database.public_url or links.PLACEHOLDER):
            job = None if view is None else Job.of(view).model_dump_json().encode()
        return frames.frame(event, job=job)
