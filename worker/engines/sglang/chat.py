"""One streamed chat with SGLang, from the dial to the last byte: its phases, and the error of each."""

import http.client
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus

import structlog

from core import errors
from core.closing import Closing
from core.special_tokens import SpecialTokens
from jobs import engine, refusals
from net.connection import Connection
from worker.engines.sglang import wire
from worker.engines.sglang.server import EngineServer

_PATH = "/v1/chat/completions"
#: A pooled connection that breaks sooner than this was closed before the request was sent. An engine
#: that crashes during a request takes longer: SGLang closes the connection about five seconds later.
_STALE_SECONDS = 1.0
#: The longest time between the last event of a response and its end.
_TAIL_SECONDS = 0.25
#: Bytes of a refusal's body that are searched for known words.
_REFUSAL_BYTES = 64 << 10
_BROKEN = (OSError, http.client.HTTPException)

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ChatTimeouts:
    """Longest waits in seconds: for a connection, for the first event, between two events."""

    connect: float
    first_token: float
    token: float


class Chat(Closing):
    """Implements :class:`jobs.engine.GenerationStream`; reading ends without an error once it is closed.

    Args:
        request: the request.
        server: the source of the connection, which goes back after a complete response.
        images: encodes the images.
        special_tokens: the special tokens of the engine's tokenizer.
        timeouts: longest waits.
    """

    def __init__(
        self,
        request: engine.GenerationRequest,
        *,
        server: EngineServer,
        images: wire.EncodedImages,
        special_tokens: SpecialTokens,
        timeouts: ChatTimeouts,
    ) -> None:
        #: Set when this client requests an abort: only then is an abort a normal end.
        self.abort_requested = False
        self._request = request
        self._server = server
        self._images = images
        self._special_tokens = special_tokens
        self._timeouts = timeouts
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._closed = False

    def __exit__(self, *_: object) -> None:
        self.close()
        self._drop()

    def __iter__(self) -> Iterator[engine.Chunk]:
        """Send the request and yield its chunks."""
        try:
            yield from self._read(self._open())
        except errors.EngineError:
            # Closing the stream causes an error that its closer does not need.
            if not self._closed:
                raise
        finally:
            self._drop()

    def close(self) -> None:
        """End the reading from any thread."""
        with self._lock:
            self._closed = True
            if self._connection is not None:
                self._connection.cut()

    def _open(self) -> http.client.HTTPResponse:
        """Return the response once its head is there."""
        body = wire.body(self._request, self._images, self._special_tokens)
        connection = self._server.take()
        pooled, sent = connection.dialed, time.monotonic()
        try:
            response = self._send(connection, body)
        except errors.EngineLost:
            if not pooled or time.monotonic() - sent > _STALE_SECONDS:
                raise
            self._drop()
            response = self._send(self._server.new_connection(), body)
        if response.status != HTTPStatus.OK:
            raise self._refused(response)
        return response

    def _send(self, connection: Connection, body: bytes) -> http.client.HTTPResponse:
        """Send ``body`` over ``connection`` and wait for the response's head.

        Raises:
            core.errors.EngineUnavailable: the engine is unreachable; nothing was sent.
            core.errors.EngineLost: the engine closed the connection; nothing was received.
            core.errors.EngineSilent: nothing arrived in time.
        """
        with self._lock:
            self._connection = connection
            if self._closed:
                connection.cut()
        try:
            if not connection.dialed:
                self._server.dial(connection)
        except OSError as error:
            raise errors.EngineUnavailable("The engine cannot be reached.") from error
        try:
            connection.wait_at_most(self._timeouts.first_token)
            return self._server.send(connection, "POST", _PATH, body)
        except TimeoutError as error:
            raise _silent(self._timeouts.first_token) from error
        except OSError as error:
            raise errors.EngineLost(
                "The engine closed the connection before it answered."
            ) from error
        except http.client.HTTPException as error:
            raise errors.EngineUnavailable(
                "The server at the engine's URL is not an engine."
            ) from error

    def _read(self, response: http.client.HTTPResponse) -> Iterator[engine.Chunk]:
        spoke = finished = False
        for payload in self._payloads(response):
            try:
                chunk = wire.chunk(payload)
            except wire.InBandError as error:
                raise self._failed(error, spoke=spoke) from error
            if chunk.finish_reason is not None:
                self._check(chunk, spoke=spoke)
                finished = True
            elif chunk.text:
                spoke = True
            elif chunk.usage is None:
                continue
            yield chunk
        if not finished:
            raise errors.EngineFault("The engine's answer is incomplete: it has no end.")

    def _payloads(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        """Yield the events of ``response`` up to ``[DONE]``."""
        limit = self._timeouts.first_token
        try:
            for payload in wire.payloads(response.read1):
                if limit != self._timeouts.token:
                    limit = self._timeouts.token
                    self._wait_at_most(limit)
                if payload == wire.DONE:
                    self._keep(response)
                    return
                yield payload
        except TimeoutError as error:
            raise _silent(limit) from error
        except _BROKEN as error:
            raise errors.EngineLost(
                "The engine closed the connection in the middle of its answer."
            ) from error

    def _check(self, chunk: engine.Chunk, *, spoke: bool) -> None:
        """Raise unless the end is normal or was requested."""
        if chunk.finish_reason != "abort" or self.abort_requested:
            return
        if spoke:
            raise errors.EngineFault("The engine aborted the answer without a request.")
        raise errors.EngineBusy("The engine aborted the request before it began.")

    def _failed(self, error: wire.InBandError, *, spoke: bool) -> errors.EngineError:
        """Return the exception for an in-band error."""
        if spoke:
            self._log("engine_failed", category="in_band", status=error.code)
            return errors.EngineFault("The engine failed in the middle of its answer.")
        refusal = refusals.understand(error.code, error.text)
        self._log("engine_refused", category=refusal.category, status=error.code)
        return refusal.error

    def _refused(self, response: http.client.HTTPResponse) -> errors.EngineError:
        """Return the exception for a response that is not a stream."""
        try:
            self._wait_at_most(self._timeouts.connect)
            message = wire.message(response.read(_REFUSAL_BYTES))
            # Behind an address with several servers, a connection to the one that fails must not be used next.
            if response.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                self._keep(response)
        except _BROKEN:
            message = ""
        refusal = refusals.understand(response.status, message)
        self._log("engine_refused", category=refusal.category, status=response.status)
        return refusal.error

    def _log(self, event: str, *, category: str, status: int) -> None:
        """Log a refusal without the engine's message, which can quote the request."""
        log.warning(event, rid=self._request.rid, category=category, status=status)

    def _wait_at_most(self, seconds: float) -> None:
        if self._connection is not None:
            self._connection.wait_at_most(seconds)

    def _keep(self, response: http.client.HTTPResponse) -> None:
        """Give the connection back when the response is read to its last byte."""
        self._wait_at_most(_TAIL_SECONDS)
        try:
            whole = not response.read1() and response.isclosed() and not response.will_close
        except _BROKEN:
            return
        with self._lock:
            if whole and not self._closed and self._connection is not None:
                self._server.give_back(self._connection)
                self._connection = None

    def _drop(self) -> None:
        """Close a connection that was not given back."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _silent(seconds: float) -> errors.EngineSilent:
    return errors.EngineSilent(f"The engine was silent for {seconds:g} s.")
