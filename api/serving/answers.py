"""Running a request through the application, in a thread, and writing what it answers."""

from __future__ import annotations

import collections
import select
import socket
from collections.abc import Callable, Iterable
from typing import Any, Final

import structlog
from gunicorn.config import Config
from gunicorn.http import wsgi

from api.serving import current, refusals
from api.serving.connections import ConnectionOutcome, RequestCycle

_log = structlog.get_logger(__name__)

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

#: Parts that are written by one system call.
PARTS: Final = 16
#: Bytes that the application may be ahead of a client before it has to wait for it.
_AHEAD: Final = 2**20
_UNAUTHORIZED: Final = 401


class ClientGone(Exception):
    """The client has hung up, or takes too little."""


class Writer:
    """The socket as gunicorn's response writes to it: it waits for the client only where it has to.

    Args:
        connection: never blocks.
        seconds: how long the client may take nothing before the writer gives up.
    """

    def __init__(self, connection: socket.socket, *, seconds: float) -> None:
        self._socket = connection
        self._seconds = seconds
        self._rest: collections.deque[memoryview] = collections.deque()
        self._size = 0
        self.untouched = True

    def sendall(self, data: bytes) -> None:
        """Take ``data``; it is written by :meth:`flush`."""
        self.untouched = False
        if data:
            self._rest.append(memoryview(data))
            self._size += len(data)

    def flush(self, *, ahead: int | None = None) -> None:
        """Write what the client takes now.

        Args:
            ahead: wait for the client until at most so many bytes are left.

        Raises:
            ClientGone: the client has hung up, or takes nothing while it is waited for.
        """
        self._send()
        while ahead is not None and self._size > ahead:
            self._await_room()
            self._send()

    def rest(self) -> list[memoryview]:
        """Return what is not written."""
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
        seconds: how long a client may take nothing of an answer.
        alive: whether connections may be kept for another request.
        refused: told of the key of a request that the application did not accept.
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
        """Run a request; what is left to be done with its connection stands in it afterwards."""
        writer = Writer(cycle.connection.socket, seconds=self._seconds)
        try:
            with current.running(cycle):
                cycle.outcome = self._answer(cycle, writer)
            cycle.rest = writer.rest()
        except ClientGone:
            cycle.outcome = ConnectionOutcome.CUT_OFF
        except Exception:  # noqa: BLE001 - the boundary: the thread serves others too
            _log.exception("request_not_answered")
            if writer.untouched:
                cycle.rest = [memoryview(refusals.failed().answer())]
                cycle.outcome = ConnectionOutcome.CLOSE

    def _answer(self, cycle: RequestCycle, writer: Writer) -> ConnectionOutcome:
        """Answer a request; return what has to be done with its connection."""
        response, environ = wsgi.create(
            cycle.head, writer, cycle.connection.peer, cycle.connection.server, self._cfg
        )
        _complete(environ, cycle)
        if not self._alive():
            response.force_close()
        parts = self._application(environ, response.start_response)
        try:
            for part in parts:
                # What is left of the last part may be written by the loop, not what is left of many.
                writer.flush(ahead=_AHEAD)
                response.write(part)
                # What is held open goes out piece by piece.
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
    """Make gunicorn's variables fit a request that is complete."""
    environ["wsgi.multithread"] = True
    environ["wsgi.input"] = cycle.body.content.stream()
    environ["REMOTE_ADDR"] = cycle.head.client
    # Those that would write past the writer.
    for name in ("gunicorn.socket", "wsgi.early_hints", "wsgi.file_wrapper"):
        environ.pop(name, None)
    if environ.pop("HTTP_TRANSFER_ENCODING", None) is not None:
        # The body is whole, so its length is known.
        environ["CONTENT_LENGTH"] = str(cycle.body.content.size)
