"""The one thread of a process that looks for new events, for all who follow jobs here."""

import itertools
import threading
import time
import uuid

import structlog

from api.framework import links
from api.schemas.jobs import Job
from api.streams import frames
from api.streams.feeds import Feed
from core import ids
from core.background import BackgroundLoop
from core.database import Database
from core.database_faults import DatabaseUnavailable
from jobs.events.live import LiveEvent, Subscriber
from jobs.store import event_log, history
from jobs.store.event_log import EventKind, JobEvent

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
        #: What Redis has brought, by job, until its shift.
        self._woken: dict[uuid.UUID, list[LiveEvent]] = {}
        self._attached = threading.Event()
        self._looked_at = 0.0
        self._shifts = itertools.cycle(range(_SHIFTS))
        self._loop = BackgroundLoop("tail", self._round, after=self._end)

    def attach(self, job_id: uuid.UUID) -> Feed:
        """Begin to follow a job; to be ended by :meth:`detach`."""
        with self._lock:
            feed = self._feeds.setdefault(job_id, Feed())
            feed.followers += 1
            if self._loop.stopping:
                feed.end()
            else:
                self._loop.start()
        self._attached.set()
        self._loop.wake()
        return feed

    def detach(self, job_id: uuid.UUID, feed: Feed) -> None:
        """End to follow a job."""
        with self._lock:
            feed.followers -= 1
            if not feed.followers and self._feeds.get(job_id) is feed:
                del self._feeds[job_id]

    def close(self) -> None:
        """Let all followers go, soon. A signal handler may call it: no lock is taken here."""
        self._loop.request_stop()

    def _followed(self) -> dict[uuid.UUID, Feed]:
        with self._lock:
            return dict(self._feeds)

    def _round(self) -> float | None:
        attached = self._attached.is_set()
        self._attached.clear()
        feeds = self._followed()
        self._subscriber.want(feeds)
        self._on_note(feeds, next(self._shifts))
        if attached or time.monotonic() - self._looked_at >= _LOOK_SECONDS:
            self._looked_at = time.monotonic()
            self._look(feeds)
        if not feeds:
            return None
        self._loop.pause(_ROUND_SECONDS)
        return 0.0

    def _end(self) -> None:
        self._subscriber.close()
        for feed in self._followed().values():
            feed.end()

    def _on_note(self, feeds: dict[uuid.UUID, Feed], shift: int) -> None:
        for reported in self._subscriber.hear():
            self._woken.setdefault(reported.job_id, []).append(reported)
        for job_id in [one for one in self._woken if one.int % _SHIFTS == shift]:
            events = self._woken.pop(job_id)
            if feed := feeds.get(job_id):
                feed.add_live(events)

    def _look(self, feeds: dict[uuid.UUID, Feed]) -> None:
        try:
            positions = event_log.standings(self._database, list(feeds))
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
