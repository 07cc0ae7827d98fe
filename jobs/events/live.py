"""The live path of events: from the workers through Redis to the streams of the API, as they happen.

It is fast and unreliable, and nothing depends on it: a stream reads a lost event from SQL a moment later.
Each event has the number of its predecessor, so that a gap is noticed. Redis stores none of them.
"""

import contextlib
import queue
import threading
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import redis
import structlog

from core.redis_url import RedisURL
from jobs.events.index import IndexEntry

_log = structlog.get_logger(__name__)

_CHANNEL = "longlook:live:"
#: The limit of batches that wait for a slow Redis; further ones are dropped.
_WAITING = 20
#: The pause after a failure of Redis.
_REST_SECONDS = 2.0
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
    """Publishes events from its own thread, so that its callers never wait for Redis. Drops what it cannot send."""

    def __init__(self, redis_url: str) -> None:
        self._redis = _client(redis_url)
        self._batches: queue.Queue[Sequence[LiveEvent] | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._rest_until = 0.0
        self._lost = False

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
            if time.monotonic() >= self._rest_until:
                self._publish(batch)

    def _publish(self, batch: Sequence[LiveEvent]) -> None:
        by_job: dict[uuid.UUID, list[LiveEvent]] = {}
        for event in batch:
            by_job.setdefault(event.job_id, []).append(event)
        pipeline = self._redis.pipeline(transaction=False)
        for job_id, events in by_job.items():
            pipeline.publish(_channel(job_id), encode(events))
        try:
            pipeline.execute()
            self._lost = False
        except (redis.RedisError, OSError) as error:
            if not self._lost:
                _log.warning("events_not_published", error_type=type(error).__name__)
            self._lost = True
            self._rest_until = time.monotonic() + _REST_SECONDS


class Subscriber:
    """Receives the events of some jobs. Not thread-safe. Without Redis it receives nothing and tries again."""

    def __init__(self, redis_url: str) -> None:
        self._url = redis_url
        self._redis: redis.Redis | None = None
        self._pubsub: Any = None
        self._woken: set[uuid.UUID] = set()
        self._rest_until = 0.0
        self._lost = False

    def want(self, job_ids: Collection[uuid.UUID]) -> None:
        """Receive the events of exactly these jobs from now on."""
        wanted = set(job_ids)
        if wanted == self._woken or time.monotonic() < self._rest_until:
            return
        with self._faults_noted():
            if self._pubsub is None:
                self._redis = _client(self._url)
                self._pubsub = self._redis.pubsub(  # type: ignore[no-untyped-call] # redis has no types here
                    ignore_subscribe_messages=True
                )
            if more := wanted - self._woken:
                self._pubsub.subscribe(*map(_channel, more))
            if fewer := self._woken - wanted:
                self._pubsub.unsubscribe(*map(_channel, fewer))
            self._woken = wanted
            self._lost = False

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
        except (redis.RedisError, OSError) as error:
            if not self._lost:
                _log.warning("events_not_heard", error_type=type(error).__name__)
            self._lost = True
            self.close()
            self._rest_until = time.monotonic() + _REST_SECONDS


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
        job_id = uuid.UUID(hex=channel.decode().removeprefix(_CHANNEL))
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


def _channel(job_id: uuid.UUID) -> str:
    return f"{_CHANNEL}{job_id.hex}"


def _client(redis_url: str) -> redis.Redis:
    return RedisURL.parse(redis_url).client(seconds=_SOCKET_SECONDS, health_check_interval=10)
