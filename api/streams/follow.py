"""Event streams: all events of a job from any number on, first from SQL, then live, until its end."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator

import structlog

from api.framework import links
from api.revocation import Revocation
from api.serving import current
from api.streams import frames
from api.streams.feeds import Feed
from api.streams.opened import OpenStream
from api.streams.stored import StoredStream
from api.streams.tail import Tail
from core import errors, ids
from core.database import Database
from core.shares import Shares
from jobs.events.live import Subscriber
from jobs.store import event_log

_log = structlog.get_logger(__name__)

#: A failed write of this detects a client whose host has vanished; a disconnect is detected immediately.
_HEARTBEAT_SECONDS = 5.0
#: The wait before another read of events that SQL does not have yet.
_PAUSE_SECONDS = 0.25
#: Maximum concurrent replays, so that many reconnecting clients leave database connections to others.
_REPLAYS = 4
#: Maximum waiting replays, and the maximum wait, after which a stream sends another heartbeat.
_REPLAYS_WAITING = 4096
_REPLAY_SECONDS = 5.0
_BUSY_SECONDS = 5


class Streams:
    """Opens a limited number of event streams.

    Args:
        database: stores events.
        subscriber: receives live events.
        shares: the places of open requests, shared with waits.
        revocation: ends the streams of revoked keys.
        heartbeat_seconds: the maximum silence of a stream.
    """

    def __init__(
        self,
        database: Database,
        *,
        subscriber: Subscriber,
        shares: Shares,
        revocation: Revocation,
        heartbeat_seconds: float = _HEARTBEAT_SECONDS,
    ) -> None:
        self._database = database
        self._shares = shares
        self._revocation = revocation
        self._heartbeat_seconds = heartbeat_seconds
        self._tail = Tail(database, subscriber=subscriber)
        self.replays = Shares(_REPLAYS, name="replays", most_waiting=_REPLAYS_WAITING, reserved=1)
        self._lock = threading.Lock()
        self._open = 0

    @property
    def open(self) -> int:
        """The number of open streams."""
        return self._open

    def take(self, account_id: uuid.UUID) -> None:
        """Take a place for a stream or a wait.

        Raises:
            core.errors.StreamsInUse: the account has no free place.
        """
        if not self._shares.take(account_id):
            raise errors.StreamsInUse(
                "Too many streams and waits are open, for this account or for this process.",
                retry_after=_BUSY_SECONDS,
            )

    def give_back(self, account_id: uuid.UUID) -> None:
        """Give back a place that nothing was opened in."""
        self._shares.give_back(account_id)

    def follow(
        self,
        job_id: uuid.UUID,
        *,
        account_id: uuid.UUID,
        key_id: uuid.UUID,
        after: int,
        taken: bool = False,
    ) -> EventStream:
        """Return the stream of a job's events beyond the number ``after``. The caller must close it.

        Args:
            job_id: the job.
            account_id: the account of the client.
            key_id: ends the stream when it is revoked.
            after: a number, of an event or not.
            taken: whether the account has taken a place for the stream, which closing the stream gives back.

        Raises:
            core.errors.StreamsInUse: the account has no free place.
        """
        stream = EventStream(
            self,
            self._tail,
            job_id,
            release=self._place(account_id, taken=taken),
            account_id=account_id,
            after=after,
        )
        stream.watch = self._revocation.watch(key_id, stream.end)
        return stream

    def follow_stored(
        self, job_id: uuid.UUID, *, account_id: uuid.UUID, key_id: uuid.UUID, taken: bool = False
    ) -> StoredStream:
        """Return a stream that waits for stored events; see :meth:`follow`. The caller must close it."""
        stream = StoredStream(
            self._tail,
            job_id,
            release=self._place(account_id, taken=taken),
            silence_seconds=self._heartbeat_seconds,
        )
        stream.watch = self._revocation.watch(key_id, stream.end)
        return stream

    def _place(self, account_id: uuid.UUID, *, taken: bool) -> Callable[[], None]:
        """Take a place for a stream, unless it was ``taken`` before, and return what gives it back."""
        if not taken:
            self.take(account_id)
        self._count(1)

        def release() -> None:
            self._count(-1)
            self._shares.give_back(account_id)

        return release

    def close(self) -> None:
        """End all streams soon. Safe in a signal handler."""
        self._tail.close()

    def frames(
        self,
        job_id: uuid.UUID,
        feed: Feed,
        *,
        account_id: uuid.UUID,
        after: int,
        ended: threading.Event,
        wait: Callable[[], None],
    ) -> Iterator[bytes]:
        """Yield frames and heartbeats until the job or the service ends, or ``ended`` is set.

        Calls ``wait`` once, after all existing events, before the first wait for more.
        """
        position, over, seconds = after, False, 0.0
        while not over:
            batch = feed.take(position, seconds=seconds, ended=ended.is_set)
            if ended.is_set():
                return
            position, over = batch.position, batch.over
            if not seconds and not (batch.behind or batch.data or over):
                wait()
                seconds = self._heartbeat_seconds
                # Immediately, so that the headers of the response are sent.
                yield frames.HEARTBEAT
                continue
            if not batch.behind:
                if batch.data or not over:
                    yield batch.data or frames.HEARTBEAT
                continue
            try:
                page = self._replay(job_id, account_id=account_id, after=position)
            except errors.Unavailable:
                _log.warning("events_not_read", job_id=ids.show("job", job_id))
                page = None
            if page is None or (not page.events and page.through <= position):
                # The feed is ahead of SQL, or SQL is unavailable.
                feed.pause(_PAUSE_SECONDS)
                yield frames.HEARTBEAT
                continue
            yield b"".join(self._tail.frame(job_id, event) for event in page.events)
            if page.events:
                position = page.events[-1].number
            if not page.more:
                position = max(position, page.through)
                over = page.finished

    def _replay(
        self, job_id: uuid.UUID, *, account_id: uuid.UUID, after: int
    ) -> event_log.EventPage:
        with self.replays.hold(account_id, seconds=_REPLAY_SECONDS):
            return event_log.read(self._database, job_id, after=after)

    def _count(self, change: int) -> None:
        with self._lock:
            self._open += change


class EventStream(OpenStream[Feed]):
    """The stream of one follower of all events. Iterating blocks."""

    def __init__(
        self,
        streams: Streams,
        tail: Tail,
        job_id: uuid.UUID,
        *,
        release: Callable[[], None],
        account_id: uuid.UUID,
        after: int,
    ) -> None:
        super().__init__(job_id, attach=tail.attach, detach=tail.detach, release=release)
        self._streams = streams
        self._account_id = account_id
        self._after = after
        #: Where its follower finds the API; the thread that reads the stream may have left the request.
        self._base = links.base().encode()

    def __iter__(self) -> Iterator[bytes]:
        data = self._streams.frames(
            self.job_id,
            self._follow(),
            account_id=self._account_id,
            after=self._after,
            ended=self._ended,
            wait=self._wait,
        )
        return (links.resolved(frame, self._base) for frame in data)

    def _wait(self) -> None:
        """Free the place of the request among the threads: the stream only waits from now on."""
        current.hold(self.end)
