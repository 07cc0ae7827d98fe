"""Clients that speak HTTP byte by byte, and the server's loop with an application that does what a test says."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.client
import io
import ipaddress
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import orjson
from gunicorn.config import Config

from api import server
from api.serving import current
from api.serving.limits import ServerLimits
from api.serving.loop import Loop
from core.spool import Spool
from tests.e2e.stack import eventually
from tests.fakes import HandTimer

#: The timeout of a client.
PATIENCE = 60
_BUFFER = 65536
#: A path with a thread of its own.
_APART = "/livez"

LIMITS = ServerLimits(
    heads=64,
    idle=64,
    transfers=64,
    waiting=64,
    lingering=64,
    threads=8,
    memory=2**26,
    body=2**22,
    needless_body=1000,
    rate=0,
    head_seconds=60,
    body_seconds=60,
    idle_seconds=60,
    queue_seconds=60,
    write_seconds=600,
    linger_seconds=60,
    trusted=(),
)


@dataclass
class Answer:
    """What a server answered."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def problem(self) -> Any:  # noqa: ANN401 - JSON
        """The body of an error."""
        assert self.headers["Content-Type"] == "application/problem+json"
        return orjson.loads(self.body)


class _Stored:
    """What is read of a connection, over all answers: none of them closes it."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever files have
        return getattr(self._file, name)

    def close(self) -> None:
        """Do nothing."""


class Client:
    """A connection from an address of its own."""

    def __init__(self, port: int, *, address: str = "127.0.0.1") -> None:
        self.socket = socket.socket()
        # The kernel buffers little unread data.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self.socket.settimeout(PATIENCE)
        self.socket.bind((address, 0))
        self.socket.connect(("127.0.0.1", port))
        self._file = self.socket.makefile("rb")

    def send(self, data: bytes) -> Client:
        """Send some bytes."""
        self.socket.sendall(data)
        return self

    def ask(
        self, path: str = "/", *, method: str = "GET", body: bytes = b"", headers: str = ""
    ) -> Client:
        """Send a whole request."""
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        head = f"{method} {path} HTTP/1.1\r\nHost: test\r\n{length}{headers}\r\n"
        return self.send(head.encode() + body)

    def answer(self, method: str = "GET") -> Answer:
        """Read an answer."""
        response = http.client.HTTPResponse(self.socket, method=method)
        # Responses follow each other: keep what was read ahead.
        response.fp.close()
        response.fp = _Stored(self._file)  # type: ignore[assignment] # as good as a file
        response.begin()
        return Answer(response.status, response.headers, response.read())

    def ended(self) -> bool:
        """Whether the server closes without another word."""
        try:
            return self._file.read(1) == b""
        except ConnectionResetError:
            return True

    def open(self) -> bool:
        """Whether the server has said nothing and not closed."""
        self.socket.setblocking(False)
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except ConnectionResetError:
            return False
        finally:
            self.socket.settimeout(PATIENCE)
        return False

    def receive(self, mark: bytes) -> bytes:
        """Return what comes up to a mark."""
        received = b""
        while mark not in received:
            piece = self._file.read1()
            assert piece, received
            received += piece
        return received

    def close(self) -> None:
        """Close it."""
        self._file.close()
        self.socket.close()


@dataclass
class Application:
    """A WSGI application that records its requests, and can block any of them.

    ``/wait/…`` blocks until :attr:`gate` is opened, ``/one/…`` until it gets one of the :attr:`permits`, ``/hold`` is
    held open, ``/big`` answers much, ``/fail`` raises, ``/break`` raises behind the first part. A key ``Bearer NAME``
    belongs to the account NAME.
    """

    gate: threading.Event = field(default_factory=threading.Event)
    permits: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    hung_up: threading.Event = field(default_factory=threading.Event)
    #: Paths in the order in which they were run, without those of :meth:`Running.catch_up`.
    ran: list[str] = field(default_factory=list)
    big: bytes = bytes(2**24)

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path != _APART:
            self.ran.append(path)
        name = environ.get("HTTP_AUTHORIZATION", "").removeprefix("Bearer ")
        if name:
            current.identify(account(name))
        if path.startswith("/wait"):
            self.gate.wait(PATIENCE)
        if path.startswith("/one"):
            self.permits.acquire(timeout=PATIENCE)
        if path.startswith("/aside"):
            with current.waiting():
                self.gate.wait(PATIENCE)
        if path == "/fail":
            raise ValueError("a fault")
        if path == "/hold":
            current.hold(self.hung_up.set)
            start("200 OK", [("Content-Type", "text/plain")])
            return self._held()
        if path == "/break":
            start("200 OK", [("Content-Type", "text/plain")])
            return self._broken()
        if path == "/unauthorized":
            start("401 Unauthorized", [("Content-Length", "0")])
            return [b""]
        reported = self.big if path == "/big" else orjson.dumps(_reported(environ))
        start("200 OK", [("Content-Length", str(len(reported)))])
        return [reported]

    def let_all_go(self) -> None:
        """Let every request end, also those that begin later."""
        self.gate.set()
        self.hung_up.set()
        self.permits.release(1000)

    def _held(self) -> Iterator[bytes]:
        yield b"begun"
        self.hung_up.wait(PATIENCE)

    def _broken(self) -> Iterator[bytes]:
        yield b"begun"
        raise ValueError("a fault")


class Held:
    """A request that is held open, as the server knows it, and whose client hangs up when a test says so."""

    def __init__(self, group: Hashable = None) -> None:
        self.group = group
        self._gone = threading.Event()
        self._reported: list[Callable[[], None]] = []

    def hold(self, hung_up: Callable[[], None]) -> None:
        """Note what is to be called."""
        self._reported.append(hung_up)
        if self._gone.is_set():
            hung_up()

    def step_aside(self) -> bool:
        """Have no place."""
        return False

    def step_back(self) -> None:
        """Take none."""

    def identify(self, account_id: uuid.UUID) -> None:
        """Know the account."""

    def hang_up(self) -> None:
        """Be gone."""
        self._gone.set()
        for hung_up in self._reported:
            hung_up()


def account(name: str) -> uuid.UUID:
    """Return the account of a name."""
    return uuid.uuid5(uuid.NAMESPACE_DNS, name)


def _reported(environ: dict[str, Any]) -> dict[str, Any]:
    body = environ["wsgi.input"].read()
    return {
        "path": environ["PATH_INFO"],
        "script": environ["SCRIPT_NAME"],
        "scheme": environ["wsgi.url_scheme"],
        "address": environ["REMOTE_ADDR"],
        "length": environ.get("CONTENT_LENGTH"),
        "size": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
        "body": body[:1000].decode("latin-1"),
    }


@dataclass
class Running:
    """A loop that runs in a thread."""

    port: int
    application: Application
    alive: threading.Event
    loop: Loop
    thread: threading.Thread
    #: Set when the loop has seen that it has to stop.
    stopping: threading.Event
    timer: Callable[[], float]
    clients: list[Client] = field(default_factory=list)

    def client(self, address: str = "127.0.0.1") -> Client:
        """Return a new connection from an address; it is closed with the server."""
        client = Client(self.port, address=address)
        self.clients.append(client)
        return client

    def get(self, path: str = "/", *, address: str = "127.0.0.1", headers: str = "") -> Answer:
        """Ask on a connection of its own."""
        return self.client(address).ask(path, headers=headers).answer()

    def stop(self) -> None:
        """Have it finish, as SIGTERM does; what it reads from now on, it reads while it stops."""
        self.alive.clear()
        self.loop.wake()
        assert self.stopping.wait(PATIENCE)

    def catch_up(self) -> None:
        """Return when the loop has handled what clients have sent until now, up to a piece of a body from each.

        A client that has its answer proves nothing about the requests that others have sent before: a connection that
        comes is read at once, those that have come before when the loop looks at them again. When it reads a request
        on a known connection, it has looked after that was sent, and handles all of it before it looks again.
        """
        client = Client(self.port)
        for _ in range(3):
            assert client.ask(_APART).answer().status == HTTPStatus.OK
        client.close()

    def pass_time(self, seconds: float) -> None:
        """Let time pass after the loop has caught up, and return when it has ended what is due."""
        assert isinstance(self.timer, HandTimer)
        self.catch_up()
        self.timer.seconds += seconds
        self.catch_up()


@contextlib.contextmanager
def running(
    *,
    buffer: int | None = _BUFFER,
    spool: Spool | None = None,
    timer: Callable[[], float] = time.monotonic,
    **limits: Any,  # noqa: ANN401 - fields of Limits
) -> Iterator[Running]:
    """Yield a loop on a port of its own.

    Args:
        buffer: bytes that the system keeps of what a client has not taken; None: as many as it likes.
        spool: the folder for large bodies; None: they stay in memory.
        timer: a clock; with a :class:`HandTimer` nothing is due before a test lets time pass.
        limits: others than :data:`LIMITS`.
    """
    cfg = Config()
    for name in (
        "http_parser",
        "forwarded_allow_ips",
        "forwarder_headers",
        "secure_scheme_headers",
    ):
        cfg.set(name, getattr(server, name))
    application, alive, stopping = Application(), threading.Event(), threading.Event()
    alive.set()

    def is_alive() -> bool:
        if not alive.is_set():
            stopping.set()
        return alive.is_set()

    wakes = os.pipe()
    for end in wakes:
        os.set_blocking(end, False)
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        if buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        loop = Loop(
            [listener],
            application,
            cfg=cfg,
            limits=dataclasses.replace(LIMITS, **limits),
            apart=(_APART,),
            wakes=wakes,
            spool=spool,
            timer=timer,
        )
        thread = threading.Thread(
            target=loop.run,
            kwargs={"alive": is_alive, "beat": lambda: None, "grace": 1.0},
        )
        thread.start()
        port: int = listener.getsockname()[1]
        made = Running(port, application, alive, loop, thread, stopping, timer)
        try:
            yield made
        finally:
            application.let_all_go()
            for client in made.clients:
                client.close()
            made.stop()
            assert eventually(lambda: _has_ended(made))
    # A request's thread that outlives the grace wakes its loop, and changes how often all threads take turns.
    assert eventually(lambda: loop.running == 0)
    for end in wakes:
        os.close(end)


def _has_ended(served: Running) -> bool:
    """Let time pass, and return whether the loop has ended."""
    if isinstance(served.timer, HandTimer):
        served.timer.seconds += 1
        served.loop.wake()
    return not served.thread.is_alive()


def networks(*names: str) -> tuple[Any, ...]:
    """Return networks by their names."""
    return tuple(map(ipaddress.ip_network, names))
