"""Following a job: everything from any number on, first from SQL, then as it happens, until its end."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator

import structlog

from api.permits import Permits
from api.serving import current
from api.streams import frames
from api.streams.feeds import Feed
from api.streams.tail import Subscriber, Tail
from jobs import errors, ids
from jobs.database import Database, Unavailable
from jobs.store import streams

_log = structlog.get_logger(__name__)

#: A follower whose host has vanished is noticed when this cannot be written; one that hangs up, at once.
_HEARTBEAT_SECONDS = 5.0
#: Until what SQL does not have yet is asked for again.
_PAUSE_SECONDS = 0.25
#: Reads of the past at once: however many come back after a break, they leave connections to everybody else.
_REPLAYS = 4
_BUSY_SECONDS = 5


class Streams:
    """Opens streams, as many at once as there are permits.

    Args:
        database: where events are kept.
        subscriber: the hot path.
        permits: shared with those who wait.
        heartbeat_seconds: the longest silence of a stream.
    """

    def __init__(
        self,
        database: Database,
        *,
        subscriber: Subscriber,
        permits: Permits,
        heartbeat_seconds: float = _HEARTBEAT_SECONDS,
    ) -> None:
        self._database = database
        self._permits = permits
        self._heartbeat_seconds = heartbeat_seconds
        self._tail = Tail(database, subscriber=subscriber)
        self._replays = threading.BoundedSemaphore(_REPLAYS)
        self._lock = threading.Lock()
        self._open = 0

    @property
    def open(self) -> int:
        """How many streams are open now."""
        return self._open

    def follow(self, job_id: uuid.UUID, *, account_id: uuid.UUID, after: int) -> Stream:
        """Return the stream of a job's events beyond the number ``after``; it has to be closed.

        Raises:
            jobs.errors.StreamsInUse: there is no permit for the account that follows.
        """
        if not self._permits.take(account_id):
            raise errors.StreamsInUse(
                "As many streams and waits are open as may be, of this account or of all.",
                retry_after=_BUSY_SECONDS,
            )
        self._count(1)
        stream = Stream(self, job_id, account_id=account_id, after=after)
        current.hold(stream.hang_up)
        return stream

    def close(self) -> None:
        """End all streams, soon. A signal handler may call it."""
        self._tail.close()

    def attach(self, job_id: uuid.UUID) -> Feed:
        """Return the feed of a job."""
        return self._tail.attach(job_id)

    def let_go(self, job_id: uuid.UUID, feed: Feed | None, *, account_id: uuid.UUID) -> None:
        """End what :meth:`follow` and :meth:`attach` began."""
        if feed is not None:
            self._tail.detach(job_id, feed)
        self._count(-1)
        self._permits.give_back(account_id)

    def frames(
        self, job_id: uuid.UUID, feed: Feed, *, after: int, left: threading.Event
    ) -> Iterator[bytes]:
        """Yield frames and heartbeats until the end of the job, or of the service, or until the follower has left."""
        # At once, so that the answer's headers go out.
        yield frames.HEARTBEAT
        position, over = after, False
        while not over and not left.is_set():
            taken = feed.take(position, seconds=self._heartbeat_seconds, left=left)
            position, over = taken.position, taken.over
            if not taken.behind:
                if taken.data or not over:
                    yield taken.data or frames.HEARTBEAT
                continue
            try:
                page = self._replay(job_id, after=position)
            except Unavailable:
                _log.warning("events_not_read", job_id=ids.show("job", job_id))
                page = None
            if page is None or (not page.events and page.through <= position):
                # The feed is ahead of SQL, or there is no SQL.
                feed.pause(_PAUSE_SECONDS)
                yield frames.HEARTBEAT
                continue
            yield b"".join(self._tail.frame(job_id, event) for event in page.events)
            if page.events:
                position = page.events[-1].number
            if not page.more:
                position = max(position, page.through)
                over = page.finished

    def _replay(self, job_id: uuid.UUID, *, after: int) -> streams.Page:
        with self._replays:
            return streams.read(self._database, job_id, after=after)

    def _count(self, change: int) -> None:
        with self._lock:
            self._open += change


class Stream:
    """One follower of a job; iterating blocks. Closing it frees its permit, whether it was read or not."""

    def __init__(
        self, streams: Streams, job_id: uuid.UUID, *, account_id: uuid.UUID, after: int
    ) -> None:
        self._streams = streams
        self._job_id = job_id
        self._account_id = account_id
        self._feed: Feed | None = None
        self._after = after
        self._began = time.monotonic()
        self._left = threading.Event()
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        self._feed = self._streams.attach(self._job_id)
        return self._streams.frames(self._job_id, self._feed, after=self._after, left=self._left)

    def hang_up(self) -> None:
        """End the stream, for its follower has left. Called by any thread."""
        self._left.set()
        if self._feed is not None:
            self._feed.wake()

    def close(self) -> None:
        """Let go of everything. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._streams.let_go(self._job_id, self._feed, account_id=self._account_id)
        _log.info(
            "stream_closed",
            job_id=ids.show("job", self._job_id),
            seconds=round(time.monotonic() - self._began, 1),
        )
