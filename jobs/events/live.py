"""The live path of events: from the workers through Redis to the streams of the API, as they happen.

It is fast and unreliable, and nothing depends on it: a stream reads a lost event from SQL a moment later.
Each event has the number of its predecessor, so that a gap is noticed. Redis stores none of them.
"""

import contextlib
import queue
import threading
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import redis

from core import errors, redis_check
from core.outage import Outage
from core.redis_url import RedisURL
from jobs.events.index import IndexEntry

#: After the prefix of the installation; the id of the job follows.
_CHANNEL = "live:"
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


class Publisher:
    """Publishes events from its own thread, so that its callers never wait for Redis. Drops what it cannot send.

    Args:
        redis_url: of the server.
        prefix: returns the prefix of all channels.
    """

    def __init__(self, redis_url: str, prefix: Callable[[], str]) -> None:
        self._redis = _client(redis_url)
        self._prefix = prefix
        self._batches: queue.Queue[Sequence[LiveEvent] | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._outage = Outage("redis", use="live_events")

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def record(self, events: Sequence[LiveEvent]) -> None:
        """Publish ``events`` in their order, soon or never; return at once."""
        with contextlib.suppress(queue.Full):
            self._batches.put_nowait(events)

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

    def _publish(self, batch: Sequence[LiveEvent]) -> None:
        by_job: dict[uuid.UUID, list[LiveEvent]] = {}
        for event in batch:
            by_job.setdefault(event.job_id, []).append(event)
        try:
            channels = self._prefix() + _CHANNEL
            pipeline = self._redis.pipeline(transaction=False)
            for job_id, events in by_job.items():
                pipeline.publish(channels + job_id.hex, encode(events))
            pipeline.execute()
            self._outage.back()
        except (errors.Unavailable, redis.RedisError, OSError) as error:
            self._outage.lost(_reason(error))


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
        self._woken: set[uuid.UUID] = set()
        self._outage = Outage("redis", use="streams")

    def want(self, job_ids: Collection[uuid.UUID]) -> None:
        """Receive the events of exactly these jobs from now on."""
        wanted = set(job_ids)
        if wanted == self._woken or not self._outage.may_try():
            return
        with self._faults_noted():
            if self._pubsub is None:
                self._channels = self._prefix() + _CHANNEL
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

    def hear(self) -> list[LiveEvent]:
        """Return the events that have arrived, without waiting for more."""
        events: list[LiveEvent] = []
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

    def _channel(self, job_id: uuid.UUID) -> str:
        return self._channels + job_id.hex


def encode(events: Iterable[LiveEvent]) -> bytes:
    """Return events of one job as a message."""
    rows = []
    for event in events:
        mark = event.mark
        row = [event.attempt, event.generation, event.previous, mark.number, mark.at, event.delta]
        rows.append(row if mark.finding is None else [*row, mark.finding])
    return orjson.dumps(rows)


def decode(channel: bytes, message: bytes) -> list[LiveEvent]:
    """Return the events of a message; a message in the format of another version is empty."""
    try:
        job_id = uuid.UUID(hex=channel.decode().rpartition(":")[2])
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
