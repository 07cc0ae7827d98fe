"""Typed streams of responses: of a foreground request, of a background one, and of a response that exists."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any, Final

import structlog

from api.openai.foreground import Failure
from api.openai.responses import replay, response_object
from api.openai.responses.replay import ResponseReader
from api.streams.stored import StoredStream
from core import errors
from core.closing import Closing

_log = structlog.get_logger(__name__)

#: A comment and an empty line, which means nothing without an id.
_HEARTBEAT: Final = b":\n\n"


class TypedStream(Closing):
    """The stream of a response, live or replayed. Iterating blocks; closing frees its place.

    An outage of the database only delays events: the client has heartbeats meanwhile.

    Args:
        open_reader: returns the reader of the typed events.
        stream: waits for stored events; it has the place.
        model: the served one.
        after_end: called before the last event is sent.
    """

    def __init__(
        self,
        open_reader: Callable[[], ResponseReader],
        stream: StoredStream,
        *,
        model: str,
        after_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._open_reader = open_reader
        self._stream = stream
        self._unread = replay.Unread(model, stream.job_id)
        self._after_end = after_end
        self._reader: ResponseReader | None = None

    @property
    def over(self) -> bool:
        """Whether the last event was read."""
        return self._reader is not None and self._reader.over

    def __iter__(self) -> Iterator[bytes]:
        # Sent at once, with the head of the response.
        yield _HEARTBEAT
        try:
            yield from self.events()
        except errors.RequestError as error:
            # For example, another request has deleted the response.
            yield self.failed(error)

    def events(self) -> Iterator[bytes]:
        """Yield events, and heartbeats, up to the last one or until the stream is ended.

        Raises:
            core.errors.NotFound: the response was deleted.
        """
        self._stream.begin()
        while not self._stream.ended:
            silent, failed = True, False
            try:
                for data in self._pages():
                    silent = False
                    if self.over:
                        self._after_end()
                    yield data
            except errors.Unavailable:
                _log.warning("response_not_read")
                failed = True
            if self.over:
                return
            if silent:
                yield _HEARTBEAT
            if failed or self._reader is None:
                self._stream.pause()
            else:
                self._stream.wait(self._reader.position)

    def failed(self, error: Failure) -> bytes:
        """Return the end of a stream for an error: a failed response, or an error if the response has begun."""
        if self._reader is None:
            return b"".join(map(replay.frame, self._unread.events(fault(error))))
        members = {"code": code(error), "message": error.message, "param": None}
        number = self._reader.next_number
        return replay.frame({"type": "error", "sequence_number": number, **members})

    def _pages(self) -> Iterator[bytes]:
        self._reader = self._reader or self._open_reader()
        return self._reader.pages()

    def close(self) -> None:
        """Release everything. Idempotent."""
        self._stream.close()


class ResponseTranscript:
    """Writes the stream of a foreground request.

    Args:
        open_reader: returns the reader of a response.
        model: the served one.
        after_end: called before the last event is sent, with the id of the job.
    """

    def __init__(
        self,
        open_reader: Callable[[uuid.UUID], ResponseReader],
        *,
        model: str,
        after_end: Callable[[uuid.UUID], None] = lambda _: None,
    ) -> None:
        self._open_reader = open_reader
        self._model = model
        self._after_end = after_end
        self._typed: TypedStream | None = None

    @property
    def over(self) -> bool:
        """Whether the last event was written."""
        return self._typed is not None and self._typed.over

    def follow(self, job_id: uuid.UUID, stream: StoredStream) -> Iterator[bytes]:
        """Yield what is to be sent, up to the last event or until ``stream`` is ended."""
        self._typed = TypedStream(
            lambda: self._open_reader(job_id),
            stream,
            model=self._model,
            after_end=lambda: self._after_end(job_id),
        )
        return self._typed.events()

    def failed(self, error: Failure) -> bytes:
        """Return the end of the stream for an error."""
        if self._typed is not None:
            return self._typed.failed(error)
        return b"".join(map(replay.frame, replay.Unread(self._model).events(fault(error))))


def code(error: Failure) -> str:
    """Return the code of an error."""
    return error.specific_code if isinstance(error, errors.RequestError) else error.code


def fault(error: Failure) -> dict[str, Any]:
    """Return an error as that of a response.

    Its code is one that clients know: some make an HTTP status of it.
    """
    return response_object.fault(
        code(error),
        error.message,
        param=error.param if isinstance(error, errors.RequestError) else None,
        other=_other_code(error),
    )


def _other_code(error: Failure) -> str:
    """Return the code of OpenAI for an error that has none there: a repeat may change only what the server did."""
    if error.status == HTTPStatus.TOO_MANY_REQUESTS:
        return "rate_limit_exceeded"
    return response_object.SERVER_ERROR if error.retryable else "invalid_prompt"
