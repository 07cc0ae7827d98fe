"""HTTP/1.1 connections that a second thread can cut in any phase: dialling, waiting for the head, reading.

An engine's response head comes with its first token, minutes later under load, so whoever cancels has
to reach the socket before there is a response. Pools that hide their sockets cannot give that.
"""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import ssl
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Address:
    """Where an engine listens. ``prefix`` is the path before its own paths."""

    host: str
    port: int
    prefix: str
    tls: ssl.SSLContext | None

    @classmethod
    def parse(cls, url: str) -> Address:
        """Return the address of an ``http://`` or ``https://`` URL."""
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        return cls(
            host=parts.hostname or "",
            port=parts.port or (443 if secure else 80),
            prefix=parts.path.rstrip("/"),
            tls=ssl.create_default_context() if secure else None,
        )


class Connection:
    """One connection: dialled once, used for one request at a time, cut by anybody."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._cut = False
        self._socket: socket.socket | None = None
        self._http: http.client.HTTPConnection | None = None

    @property
    def dialled(self) -> bool:
        """Whether it was connected before: its peer may have gone since."""
        return self._http is not None

    def dial(self, seconds: float) -> None:
        """Connect, within ``seconds`` for each of the host's addresses.

        Raises:
            OSError: no address could be reached, or the connection was cut.
        """
        fault: OSError = OSError("the host has no address")
        for family, kind, protocol, _, address in socket.getaddrinfo(
            self._address.host, self._address.port, type=socket.SOCK_STREAM
        ):
            try:
                self._connect(socket.socket(family, kind, protocol), address, seconds)
            except OSError as error:
                fault = error
                continue
            self._http = http.client.HTTPConnection(self._address.host, self._address.port)
            self._http.auto_open = 0
            self._http.sock = self._socket
            return
        raise fault

    def _connect(self, raw: socket.socket, address: tuple[Any, ...], seconds: float) -> None:
        self._adopt(raw)
        try:
            raw.settimeout(seconds)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            raw.connect(address)
            if self._address.tls is not None:
                secured = self._address.tls.wrap_socket(
                    raw, server_hostname=self._address.host, do_handshake_on_connect=False
                )
                self._adopt(secured)
                secured.do_handshake()
        except OSError:
            self.close()
            raise

    def send(
        self, method: str, path: str, *, body: bytes, headers: Mapping[str, str], seconds: float
    ) -> http.client.HTTPResponse:
        """Send a request and return its response once the head is there, within ``seconds``.

        Raises:
            OSError: the connection broke or was cut; ``TimeoutError`` when nothing came.
            http.client.HTTPException: what came is not HTTP.
        """
        if self._http is None:
            raise http.client.NotConnected
        self.wait_at_most(seconds)
        # A peer that refuses a large body answers before it has read all of it.
        with contextlib.suppress(BrokenPipeError):
            self._http.request(method, self._address.prefix + path, body, dict(headers))
        return self._http.getresponse()

    def wait_at_most(self, seconds: float) -> None:
        """Let each read from now on wait ``seconds``, then raise ``TimeoutError``."""
        if self._socket is not None:
            self._socket.settimeout(seconds)

    def stale(self) -> bool:
        """Whether an idle connection cannot be used again: there is something to read, at best its end."""
        if self._socket is None:
            return True
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def cut(self) -> None:
        """Break the connection from any thread: whoever waits in it gets an error or its end at once."""
        with self._lock:
            self._cut = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Break it and release the socket. For the thread that uses the connection."""
        self.cut()
        if self._http is not None:
            self._http.close()
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def _adopt(self, new: socket.socket) -> None:
        """Make ``new`` the socket that :meth:`cut` reaches."""
        with self._lock:
            if self._cut:
                new.close()
                raise ConnectionAbortedError("cut while dialling")
            self._socket = new


class Connections:
    """Connections to one engine that are kept between requests; the one used last is used next.

    Args:
        keep: idle connections kept at most.
    """

    def __init__(self, address: Address, *, keep: int) -> None:
        self._address = address
        self._keep = keep
        self._idle: list[Connection] = []
        self._lock = threading.Lock()

    def take(self) -> Connection:
        """Return a kept connection that looks alive, else a new one that has to be dialled."""
        while True:
            with self._lock:
                if not self._idle:
                    return self.fresh()
                connection = self._idle.pop()
            if not connection.stale():
                return connection
            connection.close()

    def fresh(self) -> Connection:
        """Return a new connection."""
        return Connection(self._address)

    def give_back(self, connection: Connection) -> None:
        """Keep ``connection``, whose response has been read to its end."""
        with self._lock:
            if len(self._idle) < self._keep:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close the idle connections and keep no more."""
        with self._lock:
            self._keep = 0
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
