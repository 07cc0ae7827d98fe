"""Valkey for the tests, as `longlook up` starts it; it can be stopped and started again.

The locked package brings the binary, whatever the machine has in PATH: no result depends on what is installed there.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import redis

from cli.launch import redis as launch
from tests import children


class RedisServer:
    """A server without persistence, on a unix socket in a short folder; ``more`` are further options."""

    def __init__(self, folder: Path, *more: str) -> None:
        self._folder = folder
        self._more = more
        self._process: subprocess.Popen[bytes] | None = None
        self.socket = folder / "redis.sock"
        self.url = launch.url(self.socket)

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = children.spawn(
            (*launch.command(next(launch.bundled()), path=self.socket), *self._more),
            folder=self._folder,
        )
        children.wait_until(
            lambda: launch.answers(self.socket), self._process, log=self._folder / "log"
        )

    def stop(self, kindly: signal.Signals = signal.SIGTERM) -> None:
        """Stop it, ``kindly`` or not."""
        if self._process is not None:
            children.stop(self._process, kindly)

    def freeze(self) -> None:
        """Let it hold its connections and answer nothing."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End :meth:`freeze`."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def flush(self) -> None:
        """Forget everything."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()

    def lifetimes(self, pattern: str) -> list[int]:
        """Return for how many milliseconds those keys that match ``pattern`` are still kept; -1 is for ever."""
        with redis.Redis.from_url(self.url) as client:
            return [int(client.pttl(key)) for key in client.scan_iter(match=pattern)]

    def clients(self) -> set[str]:
        """Return the ids of those who are connected now, beside whoever asks."""
        with redis.Redis.from_url(self.url, decode_responses=True) as client:
            own = str(client.client_id())
            return {one["id"] for one in client.client_list()} - {own}

    def length(self, queue: str) -> int:
        """Return how many messages wait in ``queue``, under whichever prefix."""
        with redis.Redis.from_url(self.url, decode_responses=True) as client:
            keys = client.scan_iter(match=f"*:{queue}", _type="list")
            return sum(int(str(client.llen(key))) for key in keys)


@contextlib.contextmanager
def tls(server: RedisServer, certificate: Path) -> Iterator[tuple[int, list[int]]]:
    """Yield the port of a TLS server in front of ``server``, and the bytes that clients send it after the handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    received: list[int] = []

    def forward(source: socket.socket, target: socket.socket, count: list[int] | None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if count is not None:
                    count.append(len(data))
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve(plain: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            context.wrap_socket(plain, server_side=True) as client,
            socket.socket(socket.AF_UNIX) as backend,
        ):
            backend.connect(str(server.socket))
            back = threading.Thread(target=forward, args=(backend, client, None), daemon=True)
            back.start()
            forward(client, backend, received)
            back.join()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = listener.accept()
                threading.Thread(target=serve, args=(plain,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1], received
        listener.shutdown(socket.SHUT_RDWR)
