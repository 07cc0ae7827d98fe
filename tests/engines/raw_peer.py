"""A peer that does to its connections exactly what a test says: what no well-behaved server does."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":%b}]}\n\n'
DONE = b"data: [DONE]\n\n"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"

#: What happens on one connection, in the order of their coming.
Act = Callable[[socket.socket], None]


def chunk(data: bytes) -> bytes:
    """Return ``data`` as a chunk of a response."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def word(text: bytes) -> bytes:
    """Return a piece of text as a chunk."""
    return chunk(EVENT % (text, b"null"))


def whole(text: bytes) -> bytes:
    """Return a whole streamed response that says ``text``."""
    return STREAM + word(text) + chunk(EVENT % (b"", b'"stop"')) + chunk(DONE) + LAST


def status(code: int, body: bytes = b"{}") -> bytes:
    """Return a response that is no stream."""
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (code, len(body), body)


def read_request(connection: socket.socket) -> bytes:
    """Read one request and return it; ``b""`` when the client has gone."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = (
        int(line.partition(b":")[2])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length:")
    )
    length = next(lengths, 0)
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def answering(*responses: bytes) -> Act:
    """Return an act that answers that many requests and then closes the connection."""

    def act(connection: socket.socket) -> None:
        for response in responses:
            if read_request(connection):
                connection.sendall(response)

    return act


def holding(*responses: bytes) -> Act:
    """Return an act like :func:`answering` that then waits for the client to go."""

    def act(connection: socket.socket) -> None:
        answering(*responses)(connection)
        while connection.recv(65536):
            pass

    return act


class RawPeer:
    """A server that plays one act for each connection. ``connections`` counts them.

    Args:
        acts: one for each connection that is expected; further ones wait unanswered.
    """

    def __init__(self, *acts: Act) -> None:
        self.connections = 0
        self._acts = acts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._connection = self._listener
        self._thread = threading.Thread(target=self._run, name="raw-peer")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Shutting down is what ends a call in another thread; closing is not.
        for waiting in (self._listener, self._connection):
            with contextlib.suppress(OSError):
                waiting.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(30)

    def _run(self) -> None:
        for act in self._acts:
            try:
                self._connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with self._connection, contextlib.suppress(OSError):
                act(self._connection)
