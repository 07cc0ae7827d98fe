"""A small HTTP proxy that knows CONNECT: it remembers what it was asked, and relays bytes or refuses."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class ConnectProxy:
    """What a test sees of it.

    Attributes:
        answer: the status line instead of a tunnel, raw; empty: make the tunnel.
        silent: it answers nothing.
    """

    port: int
    answer: bytes = b""
    silent: bool = False
    #: The heads of the requests, without the last empty line.
    asked: list[str] = field(default_factory=list)

    @property
    def targets(self) -> list[str]:
        """The targets of all requests, in order."""
        return [head.split()[1] for head in self.asked]


@contextlib.contextmanager
def proxying(certificate: Path | None = None) -> Iterator[ConnectProxy]:
    """Run a proxy on the loopback, with TLS if there is a certificate."""
    listener = socket.create_server(("127.0.0.1", 0))
    proxy = ConnectProxy(listener.getsockname()[1])
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    over = threading.Event()

    def serve(peer: socket.socket) -> None:
        with contextlib.suppress(OSError), peer:
            stream = context.wrap_socket(peer, server_side=True) if context else peer
            with stream:
                _serve(proxy, stream, over)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = listener.accept()
                threading.Thread(target=serve, args=(peer,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        over.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(20)


def _serve(proxy: ConnectProxy, stream: socket.socket, over: threading.Event) -> None:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        part = stream.recv(1)
        if not part:
            return
        head += part
    proxy.asked.append(head.decode().strip())
    if proxy.silent:
        over.wait(60)
        return
    if proxy.answer:
        stream.sendall(proxy.answer)
        return
    host, _, port = head.split()[1].decode().rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port))) as target:
        stream.sendall(b"HTTP/1.1 200 Connection established\r\nvia: tests\r\n\r\n")
        back = threading.Thread(target=_copy, args=(target, stream), daemon=True)
        back.start()
        _copy(stream, target)
        back.join(20)


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while part := source.recv(65536):
            sink.sendall(part)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
