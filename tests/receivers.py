"""A receiver of webhooks over real HTTP, in a thread: it answers as it is told and remembers what it got."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import json
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.stack import free_port

_SUCCESS = 2


@dataclass(frozen=True)
class Got:
    """A request as it came in: header names in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        """The event in it."""
        reported: dict[str, Any] = json.loads(self.body)
        return reported


@dataclass
class Receiver:
    """What a test sees of it.

    Attributes:
        status: what it answers.
        headers: beside the length.
        answer: the body.
        held: it answers only while this is set.
    """

    url: str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    answer: bytes = b"thanks"
    got: list[Got] = field(default_factory=list)
    held: threading.Event = field(default_factory=threading.Event)
    #: What it answered with 2xx.
    took: list[Got] = field(default_factory=list)
    #: The connections that came in.
    peers: list[socket.socket] = field(default_factory=list)

    def hang_up(self) -> None:
        """Close the connections that are open."""
        for peer in self.peers:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)

    @property
    def ids(self) -> list[str]:
        """The webhook-id of each request, in order."""
        return [one.headers["webhook-id"] for one in self.got]


@contextlib.contextmanager
def receiving(*, host: str = "127.0.0.1", port: int = 0) -> Iterator[Receiver]:
    """Run a receiver on an address of this machine while the block runs."""
    receiver = Receiver(url="")
    receiver.held.set()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            receiver.peers.append(self.request)
            super().setup()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            got = Got(self.path, headers, body)
            receiver.got.append(got)
            receiver.held.wait(120)
            status = receiver.status
            if status // 100 == _SUCCESS:
                receiver.took.append(got)
            with contextlib.suppress(OSError):  # Whoever asked may have gone.
                self.send_response(status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(receiver.answer)))
                self.end_headers()
                self.wfile.write(receiver.answer)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = _Server((host, port), Handler)
    receiver.url = f"http://{host}:{server.server_port}/hook"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.held.set()
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def receiving_on_one_port(*hosts: str) -> Iterator[list[Receiver]]:
    """Run a receiver on each of some addresses of this machine, all with the same port, while the block runs."""
    while True:
        # A port that is free at one address may be taken at another.
        port = free_port()
        with contextlib.ExitStack() as running:
            try:
                receivers = [running.enter_context(receiving(host=one, port=port)) for one in hosts]
            except OSError:
                continue
            yield receivers
            return


@contextlib.contextmanager
def answering(
    answer: bytes, *, drip: bool = False, reset: bool = False, hold: bool = False
) -> Iterator[str]:
    """Serve one connection with raw bytes.

    Then send one byte after the other (``drip``), keep it open (``hold``), or end it, by a reset if that is asked for.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve() -> None:
        peer, _ = listener.accept()
        with peer:
            # All of it: a close with unread bytes sends a RST, which can overtake the answer.
            with peer.makefile("rb") as request:
                lines = list(itertools.takewhile(bytes.strip, request))
                length = [line for line in lines if line.lower().startswith(b"content-length:")]
                request.read(int(length[0].partition(b":")[2]) if length else 0)
            try:
                peer.sendall(answer)
                if reset:
                    # Closed without lingering: the other side is sent a RST.
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                if hold:
                    over.wait(60)
                while drip and not over.wait(0.05):
                    peer.sendall(b"x")
            except OSError:
                return

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        over.set()
        thread.join()
        listener.close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
