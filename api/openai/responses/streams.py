"""Typed streams of responses: of a foreground request, of a background one, and of a response that exists."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import structlog

from api.openai.foreground import Failure
from api.openai.responses import replay
from api.openai.responses.replay import ResponseReader
from api.streams import frames
from api.streams.follow import EventStream
from core import errors, ids
from core.closing import Closing
from jobs.store.event_log import EventKind

_log = structlog.get_logger(__name__)

#: Between two reads of the events of a running job: the worker stores them about once a second.
_READ_SECONDS: Final = 0.25
#: A comment and an empty line, which means nothing without an id.
_HEARTBEAT: Final = b":\n\n"


class ResponseFollower:
    """Follows a running job: the native stream says when there may be new events in SQL.

    Args:
        open_reader: returns the reader of a response.
        after_end: called after the last event, with the id of the job.
    """

    def __init__(
        self,
        open_reader: Callable[[uuid.UUID], ResponseReader],
        *,
        after_end: Callable[[uuid.UUID], None] = lambda _: None,
    ) -> None:
        self._open_reader = open_reader
        self._after_end = after_end
        self._reader: ResponseReader | None = None
        self._read_at = 0.0

    @property
    def over(self) -> bool:
        """Whether the last event was returned."""
        return self._reader is not None and self._reader.over

    def begin(self, job_id: uuid.UUID) -> bytes:
        """Return the events that are stored already."""
        self._reader = self._open_reader(job_id)
        return self._new_events(self._reader)

    def feed(self, event: Mapping[str, Any]) -> bytes:
        """Return the events that are new in SQL after a native event."""
        assert self._reader is not None  # noqa: S101 - the stream has begun
        last = event["type"] == EventKind.FINISHED
        if not last and time.monotonic() - self._read_at < _READ_SECONDS:
            return b""
        self._read_at = time.monotonic()
        return self._new_events(self._reader)

    def _new_events(self, reader: ResponseReader) -> bytes:
        data = b"".join(reader.pages())
        if reader.over:
            self._after_end(reader.job_id)
        return data

    def failed(self, error: Failure) -> bytes:
        """Return the end of a stream for an error: a failed response, or an error if the response has begun."""
        if self._reader is None:
            return b"".join(map(replay.frame, replay.failure(fault(error))))
        members = {"code": code(error), "message": error.message, "param": None}
        number = self._reader.next_number
        return replay.frame({"type": "error", "sequence_number": number, **members})


class TypedStream(Closing):
    """The stream of a response that exists, live or replayed. Iterating blocks; closing frees its place.

    Args:
        job_id: its job.
        reader: reads its events.
        events: the native stream from the last stored event on, which has the place.
    """

    def __init__(self, job_id: uuid.UUID, reader: ResponseReader, events: EventStream) -> None:
        self._job_id = job_id
        self._reader = reader
        self._events = events
        self._read_at = 0.0

    def __iter__(self) -> Iterator[bytes]:
        # Sent at once, with the head of the response.
        yield _HEARTBEAT
        yield from self._reader.pages()
        if self._reader.over:
            return
        for data in self._events:
            new = list(frames.read(data))
            finished = any(event["type"] == EventKind.FINISHED for event in new)
            if finished or not new or time.monotonic() - self._read_at >= _READ_SECONDS:
                yield from self._pages(must=finished)
            if not new:
                yield _HEARTBEAT
            if self._reader.over:
                return

    def _pages(self, *, must: bool) -> Iterator[bytes]:
        self._read_at = time.monotonic()
        try:
            yield from self._reader.pages()
        except errors.Unavailable:
            if must:
                # The connection breaks, and the client resumes after the last event that it has.
                raise
            _log.warning("response_not_read", job_id=ids.show("job", self._job_id))

    def close(self) -> None:
        """Release everything. Idempotent."""
        self._events.close()


def code(error: Failure) -> str:
    """Return the code of an error."""
    return error.specific_code if isinstance(error, errors.RequestError) else error.code


def fault(error: Failure) -> dict[str, Any]:
    """Return an error as that of a response."""
    param = error.param if isinstance(error, errors.RequestError) else None
    return {
        "code": code(error),
        "message": error.message,
        "type": code(error),
        "param": param,
    }
