"""The live path of events: from the workers through Redis to the streams of the API, as they happen.

It is fast and unreliable, and nothing depends on it: a stream reads a lost event from SQL a moment later.
Each event has the number of its predecessor, so that a gap is noticed. Redis stores none of them.

Some streams show only stored events. On a second channel they hear how far the events are stored, and Redis tells the
publisher whether a stream has heard it: such a job is watched, and its text is stored more often.
"""

import contextlib
import queue
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
import redis

from core import errors, redis_check
from core.outage import Outage
from core.redis_url import RedisURL
from jobs.events.index import IndexEntry

#: After the prefix of the installation; the id of the job follows.
_CHANNEL = "live:"
_STORED_CHANNEL = "stored:"
#: A job is watched for so long after a reader was heard of. A running job is announced each second.
_WATCHED_SECONDS: Final = 5.0
#: The limit of batches that wait for a slow Redis; further ones are dropped.
_WAITING = 20
_SOCKET_SECONDS = 1.0
#: The limit of messages per call, so that the caller gets to pass them on.
_WOKEN_AT_ONCE = 5_000


@dataclass(frozen=True)
class LiveEvent:
    """An event on the live path: ``previous`` is the number of the job's event before it."""

    job_id: uuid.UUID
    attempt: int
    generation: int
    previous: int
    mark: IndexEntry
    delta: str = field(repr=False)


@dataclass(frozen=True)
class StoredThrough:
    """The note that the events of a job are stored up to ``number``, which may be too low."""

    job_id: uuid.UUID
    number: int


class Publisher:
    """Publishes events from its own thread, so that its callers never wait for Redis. Drops what it cannot send.

    Args:
        redis_url: of the server.
        prefix: returns the prefix of all channels.
        timer: a monotonic clock, in seconds.
    """

    def __init__(
        self,
        redis_url: str,
        prefix: Callable[[], str],
        *,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = _client(redis_url)
        self._prefix = prefix
        self._timer = timer
        self._batches: queue.Queue[Sequence[LiveEvent | StoredThrough] | None] = queue.Queue(
            _WAITING
        )
        #: When a reader of the stored events of a job was last heard of.
        self._watched: dict[uuid.UUID, float] = {}
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._outage = Outage("redis", use="live_events")

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def record(self, events: Sequence[LiveEvent]) -> None:
        """Publish ``events`` in their order, soon or never; return at once."""
        with contextlib.suppress(queue.Full):
            self._batches.put_nowait(events)

    def announce(self, stored: Sequence[StoredThrough]) -> None:
        """Publish how far the events of jobs are stored, soon or never; return at once."""
        with contextlib.suppress(queue.Full):
            self._batches.put_nowait(stored)

    def watched(self) -> set[uuid.UUID]:
        """Return the announced jobs whose stored events a stream follows."""
        since = self._timer() - _WATCHED_SECONDS
        return {job_id for job_id, at in list(self._watched.items()) if at > since}

    def stop(self) -> None:
        """Stop the thread and close the connection to Redis."""
        if self._thread.is_alive():
            with contextlib.suppress(queue.Full):
                self._batches.put(None, timeout=_SOCKET_SECONDS)
            self._thread.join(timeout=3 * _SOCKET_SECONDS)
        with contextlib.suppress(redis.RedisError):
            self._redis.close()

    def _run(self) -> None:
        while (batch := self._batches.get()) is not None:
            if self._outage.may_try():
                self._publish(batch)

    def _publish(self, batch: Sequence[LiveEvent | StoredThrough]) -> None:
        by_job: dict[uuid.UUID, list[LiveEvent]] = {}
        stored: list[StoredThrough] = []
        for event in batch:
            if isinstance(event, StoredThrough):
                stored.append(event)
            else:
                by_job.setdefault(event.job_id, []).append(event)
        try:
            prefix = self._prefix()
            pipeline = self._redis.pipeline(transaction=False)
            for job_id, events in by_job.items():
                pipeline.publish(prefix + _CHANNEL + job_id.hex, encode(events))
            for note in stored:
                pipeline.publish(prefix + _STORED_CHANNEL + note.job_id.hex, str(note.number))
            heard = pipeline.execute()[len(by_job) :]
            self._outage.back()
        except (errors.Unavailable, redis.RedisError, OSError) as error:
            self._outage.lost(_reason(error))
            return
        now = self._timer()
        for note, count in zip(stored, heard, strict=True):
            if count:
                self._watched[note.job_id] = now
        for job_id in [one for one, at in self._watched.items() if at <= now - _WATCHED_SECONDS]:
            del self._watched[job_id]


class Subscriber:
    """Receives the events of some jobs. Not thread-safe. Without Redis it receives nothing and tries again.

    Args:
        redis_url: of the server.
        prefix: returns the prefix of all channels.
    """

    def __init__(self, redis_url: str, prefix: Callable[[], str]) -> None:
        self._url = redis_url
        self._prefix = prefix
        self._channels = ""
        self._redis: redis.Redis | None = None
        self._pubsub: Any = None
        self._woken: set[str] = set()
        self._outage = Outage("redis", use="streams")

    def want(self, job_ids: Collection[uuid.UUID], *, stored: Collection[uuid.UUID] = ()) -> None:
        """Receive the events of exactly these jobs from now on, and how far those of ``stored`` are stored."""
        wanted = {_CHANNEL + job_id.hex for job_id in job_ids}
        wanted.update(_STORED_CHANNEL + job_id.hex for job_id in stored)
        if wanted == self._woken or not self._outage.may_try():
            return
        with self._faults_noted():
            if self._pubsub is None:
                self._channels = self._prefix()
                self._redis = _client(self._url)
                self._pubsub = self._redis.pubsub(  # type: ignore[no-untyped-call] # redis has no types here
                    ignore_subscribe_messages=True
                )
            if more := wanted - self._woken:
                self._pubsub.subscribe(*map(self._channel, more))
            if fewer := self._woken - wanted:
                self._pubsub.unsubscribe(*map(self._channel, fewer))
            self._woken = wanted
            self._outage.back()

    def hear(self) -> list[LiveEvent | StoredThrough]:
        """Return the events and notes that have arrived, without waiting for more."""
        events: list[LiveEvent | StoredThrough] = []
        if not self._woken:
            return events
        with self._faults_noted():
            for _ in range(_WOKEN_AT_ONCE):
                message = self._pubsub.get_message(timeout=0)
                if message is None and not self._pubsub.connection.can_read(timeout=0):
                    break
                if message is not None and message["type"] == "message":
                    events += decode(message["channel"], message["data"])
        return events

    def close(self) -> None:
        """Close the connection to Redis."""
        with contextlib.suppress(redis.RedisError, OSError):
            if self._pubsub is not None:
                self._pubsub.close()
            if self._redis is not None:
                self._redis.close()
        self._pubsub, self._redis = None, None
        self._woken = set()

    @contextlib.contextmanager
    def _faults_noted(self) -> Iterator[None]:
        try:
            yield
        except (errors.Unavailable, redis.RedisError, OSError) as error:
            self._outage.lost(_reason(error))
            self.close()

    def _channel(self, name: str) -> str:
        return self._channels + name


def encode(events: Iterable[LiveEvent]) -> bytes:
    """Return events of one job as a message."""
    rows = []
    for event in events:
        mark = event.mark
        row = [event.attempt, event.generation, event.previous, mark.number, mark.at, event.delta]
        rows.append(row if mark.finding is None else [*row, mark.finding])
    return orjson.dumps(rows)


def decode(channel: bytes, message: bytes) -> list[LiveEvent | StoredThrough]:
    """Return what a message says; a message in the format of another version is empty."""
    try:
        kind, _, digits = channel.decode().rpartition(":")
        job_id = uuid.UUID(hex=digits)
        if kind.endswith(_STORED_CHANNEL.removesuffix(":")):
            return [StoredThrough(job_id, int(message))]
        return [
            LiveEvent(
                job_id,
                int(attempt),
                int(generation),
                int(previous),
                IndexEntry(int(number), len(delta), int(at), rest[0] if rest else None),
                delta,
            )
            for attempt, generation, previous, number, at, delta, *rest in orjson.loads(message)
        ]
    except (ValueError, TypeError):
        return []


def _reason(error: Exception) -> str:
    if isinstance(error, errors.Unavailable):
        return redis_check.UNKNOWN_PREFIX
    return redis_check.meaning(error)


def _client(redis_url: str) -> redis.Redis:
    return RedisURL.parse(redis_url).client(seconds=_SOCKET_SECONDS, health_check_interval=10)
