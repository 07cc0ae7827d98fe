"""Runs a request in a thread and writes the response of the application."""

from __future__ import annotations

import collections
import select
import socket
from collections.abc import Callable, Iterable
from typing import Any, Final

import structlog
from gunicorn.config import Config
from gunicorn.http import wsgi

from api.framework import spooling
from api.serving import current, refusals
from api.serving.connections import ConnectionOutcome, RequestCycle

_log = structlog.get_logger(__name__)

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

#: Parts per system call.
PARTS: Final = 16
#: Bytes that the application may be ahead of a client before it waits.
_AHEAD: Final = 2**20
_UNAUTHORIZED: Final = 401


class ClientGone(Exception):
    """The client has disconnected, or accepts data too slowly."""


class Writer:
    """The socket that gunicorn's response writes to. It waits for the client only if necessary.

    Args:
        connection: a non-blocking socket.
        seconds: how long the writer waits for a client that accepts nothing.
    """

    def __init__(self, connection: socket.socket, *, seconds: float) -> None:
        self._socket = connection
        self._seconds = seconds
        self._rest: collections.deque[memoryview] = collections.deque()
        self._size = 0
        self.untouched = True

    def sendall(self, data: bytes) -> None:
        """Queue ``data`` for :meth:`flush`."""
        self.untouched = False
        if data:
            self._rest.append(memoryview(data))
            self._size += len(data)

    def flush(self, *, ahead: int | None = None) -> None:
        """Write as much as the client accepts now.

        Args:
            ahead: wait until at most this number of bytes is left; None: do not wait.

        Raises:
            ClientGone: the client has disconnected, or accepts nothing while the writer waits.
        """
        self._send()
        while ahead is not None and self._size > ahead:
            self._await_room()
            self._send()

    def rest(self) -> list[memoryview]:
        """Return the unwritten data."""
        return list(self._rest)

    def _send(self) -> None:
        while self._rest:
            try:
                sent = self._socket.sendmsg(list(self._rest)[:PARTS])
            except BlockingIOError:
                return
            except OSError as error:
                raise ClientGone from error
            self._size -= sent
            drop(self._rest, sent)

    def _await_room(self) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        if not poll.poll(self._seconds * 1000):
            raise ClientGone


def drop(parts: collections.deque[memoryview], sent: int) -> None:
    """Remove the first ``sent`` bytes from ``parts``."""
    while sent:
        first = parts.popleft()
        if sent < len(first):
            parts.appendleft(first[sent:])
            return
        sent -= len(first)


class RequestRunner:
    """Runs requests.

    Args:
        application: the WSGI application.
        cfg: gunicorn's configuration.
        seconds: how long a client may accept nothing of a response.
        alive: whether connections may be reused.
        refused: called with the key of a request that the application has refused.
    """

    def __init__(
        self,
        application: Application,
        *,
        cfg: Config,
        seconds: float,
        alive: Callable[[], bool],
        refused: Callable[[bytes], None],
    ) -> None:
        self._application = application
        self._cfg = cfg
        self._seconds = seconds
        self._alive = alive
        self._refused = refused

    def run(self, cycle: RequestCycle) -> None:
        """Run a request, and set its outcome and the unsent rest of its response."""
        writer = Writer(cycle.connection.socket, seconds=self._seconds)
        try:
            with current.running(cycle):
                cycle.outcome = self._answer(cycle, writer)
            cycle.rest = writer.rest()
        except ClientGone:
            cycle.outcome = ConnectionOutcome.CUT_OFF
        except current.BrokenOff:
            cycle.outcome = ConnectionOutcome.BREAK
        except Exception:  # noqa: BLE001 - the boundary: the thread serves other requests, too
            _log.exception("request_not_answered")
            if writer.untouched:
                cycle.rest = [memoryview(refusals.failed().answer())]
                cycle.outcome = ConnectionOutcome.CLOSE

    def _answer(self, cycle: RequestCycle, writer: Writer) -> ConnectionOutcome:
        """Answer a request; return what to do with its connection."""
        response, environ = wsgi.create(
            cycle.head, writer, cycle.connection.peer, cycle.connection.server, self._cfg
        )
        _complete(environ, cycle)
        if not self._alive():
            response.force_close()
        parts = self._application(environ, response.start_response)
        try:
            for part in parts:
                # The loop may write the rest of the last part, but not of many.
                writer.flush(ahead=_AHEAD)
                response.write(part)
                # An open stream is sent part by part.
                writer.flush(ahead=None if cycle.hung_up is None else 0)
            response.close()
            writer.flush()
        finally:
            close = getattr(parts, "close", None)
            if close is not None:
                close()
        if response.status_code == _UNAUTHORIZED and cycle.key is not None:
            self._refused(cycle.key)
        return ConnectionOutcome.CLOSE if response.should_close() else ConnectionOutcome.REUSE


def _complete(environ: dict[str, Any], cycle: RequestCycle) -> None:
    """Adapt gunicorn's WSGI variables to a complete request."""
    environ["wsgi.multithread"] = True
    environ["wsgi.input"] = spooling.SpooledInput(cycle.body.content)
    environ["REMOTE_ADDR"] = cycle.head.client
    environ["SCRIPT_NAME"] = cycle.head.prefix
    # These would bypass the writer.
    for name in ("gunicorn.socket", "wsgi.early_hints", "wsgi.file_wrapper"):
        environ.pop(name, None)
    if environ.pop("HTTP_TRANSFER_ENCODING", None) is not None:
        # The body is complete, so its length is known.
        environ["CONTENT_LENGTH"] = str(cycle.body.content.size)
