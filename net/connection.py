"""One HTTP/1.1 connection: dialed to a given address, limited in time, and cut from any thread in any phase.

The response head of an engine can take minutes, so a caller that cancels must reach the socket before there is a
response. The address of a guarded request must be the one that was checked. Libraries that hide their sockets offer
neither.
"""

import contextlib
import http.client
import select
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Literal, Self

_PORTS: Final = {"http": 80, "https": 443}
_LEAST_SECONDS: Final = 0.001
#: What a request or a response can raise, besides :class:`TimeoutError`, which is an ``OSError``.
FAILURES: Final = (OSError, http.client.HTTPException, ValueError)


@dataclass(frozen=True)
class Origin:
    """A server: scheme, host name in ASCII, and port."""

    scheme: str
    host: str
    port: int

    @classmethod
    def split(cls, url: str) -> tuple[Self, str]:
        """Return a URL's origin, and its path with the query, both as they go on the wire.

        Raises:
            ValueError: not an HTTP or HTTPS URL, or one with a user name.
        """
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in _PORTS or parts.username is not None or parts.password is not None:
            raise ValueError("The URL must be an HTTP or HTTPS URL without a user name.")
        host = (parts.hostname or "").encode("idna").decode()
        path = urllib.parse.quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
        query = urllib.parse.quote(parts.query, safe="/%:@!$&'()*+,;=~-._?")
        # The host goes into a header, which takes neither spaces nor control characters.
        if not host or not host.isprintable() or " " in host:
            raise ValueError("The URL must have a host name.")
        origin = cls(parts.scheme, host, parts.port or _PORTS[parts.scheme])
        return origin, path + (f"?{query}" if query else "")


class DialError(OSError):
    """No connection was made.

    Args:
        reason: of the last address that was tried.
        address: that address.
    """

    def __init__(
        self, reason: Literal["unreachable", "timed_out", "tls_failed"], *, address: str
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.address = address


class _Response(http.client.HTTPResponse):
    """A response that skips informational ones (102, 103): the next request must not read what follows them."""

    def begin(self) -> None:
        """Read status and headers."""
        super().begin()
        while HTTPStatus.SWITCHING_PROTOCOLS < self.status < HTTPStatus.OK:
            self.headers = None  # type: ignore[assignment] # as before the first one
            super().begin()


class Connection:
    """A connection to one origin: dialed once, then used for one request at a time.

    Args:
        origin: the server.
        tls: verifies the server's certificate against the host name; required for HTTPS.
    """

    def __init__(self, origin: Origin, *, tls: ssl.SSLContext | None = None) -> None:
        self.origin = origin
        #: The numeric address that it is connected to.
        self.address = ""
        self._tls = tls if origin.scheme == "https" else None
        self._lock = threading.Lock()
        self._cut = False
        self._socket: socket.socket | None = None
        self._http: http.client.HTTPConnection | None = None

    @property
    def dialed(self) -> bool:
        """Whether it was connected before: its peer may have closed it since."""
        return self._http is not None

    def dial(self, addresses: Sequence[str], *, until: float) -> None:
        """Connect to the first of ``addresses`` that answers.

        Each address gets an equal share of the time that is left: one that drops packets must not use up the time
        of the others. A failure of TLS is final.

        Args:
            addresses: numeric addresses, at least one.
            until: the deadline by the monotonic clock.

        Raises:
            DialError: no address could be reached, or TLS failed.
            ConnectionAbortedError: the connection was cut.
        """
        for place, address in enumerate(addresses):
            share = (until - time.monotonic()) / (len(addresses) - place)
            try:
                self._connect(address, max(_LEAST_SECONDS, share))
            except OSError as error:
                self._release()
                if self._cut or place == len(addresses) - 1:
                    raise self._failed(error, "unreachable", address) from error
                continue
            self.address = address
            break
        try:
            self._secure(until)
        except (OSError, ValueError) as error:
            self._release()
            raise self._failed(error, "tls_failed", self.address) from error
        self._http = http.client.HTTPConnection(self.origin.host, self.origin.port)
        self._http.response_class = _Response
        # http.client must not open a connection of its own: its address would be unchecked.
        self._http.auto_open = 0
        self._http.sock = self._socket

    def send(
        self, method: str, path: str, *, body: bytes | None, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        """Send a request and return its response once the head is there.

        Raises:
            OSError: the connection broke or was cut; ``TimeoutError`` after :meth:`wait_at_most`.
            http.client.HTTPException: the response is not HTTP.
            ValueError: the request cannot be sent.
        """
        if self._http is None:
            raise http.client.NotConnected
        # A server that refuses a large body responds before it has read all of it.
        with contextlib.suppress(BrokenPipeError):
            self._http.request(method, path, body, dict(headers))
        return self._http.getresponse()

    @contextlib.contextmanager
    def deadline(self, until: float) -> Iterator[None]:
        """Cut the connection at ``until``, whatever the block waits for.

        Each byte of a response may come in time while its end never does, so one clock limits it all.

        Raises:
            TimeoutError: the block had not ended by then. To a reader, a cut looks like the end of the response.
        """
        seconds = max(_LEAST_SECONDS, until - time.monotonic())
        self.wait_at_most(seconds)
        clock = threading.Timer(seconds, self.cut)
        clock.daemon = True
        clock.start()
        try:
            yield
        except FAILURES as error:
            if time.monotonic() >= until:
                raise TimeoutError from error
            raise
        finally:
            clock.cancel()
        if time.monotonic() >= until:
            raise TimeoutError

    def wait_at_most(self, seconds: float) -> None:
        """Let each read from now on wait ``seconds``, then raise ``TimeoutError``."""
        if self._socket is not None:
            self._socket.settimeout(seconds)

    def stale(self) -> bool:
        """Whether an idle connection cannot be used again, because there is something to read.

        That is the end of the connection, or bytes that the next request would take for its response.
        """
        if self._socket is None:
            return True
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def cut(self) -> None:
        """Break the connection from any thread: a thread that waits in it gets an error or its end at once."""
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
        self._release()

    def _connect(self, address: str, seconds: float) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        plain = self._adopt(socket.socket(family, socket.SOCK_STREAM))
        plain.settimeout(seconds)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.connect((address, self.origin.port))

    def _secure(self, until: float) -> None:
        self.wait_at_most(max(_LEAST_SECONDS, until - time.monotonic()))
        if self._tls is None or self._socket is None:
            return
        secured = self._tls.wrap_socket(
            self._socket, server_hostname=self.origin.host, do_handshake_on_connect=False
        )
        self._adopt(secured)
        secured.do_handshake()

    def _adopt(self, new: socket.socket) -> socket.socket:
        """Make ``new`` the socket that :meth:`cut` reaches, and return it."""
        with self._lock:
            if self._cut:
                new.close()
                raise ConnectionAbortedError("The connection was cut.")
            self._socket = new
            return new

    def _release(self) -> None:
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def _failed(
        self, error: Exception, reason: Literal["unreachable", "tls_failed"], address: str
    ) -> OSError:
        if self._cut:
            return ConnectionAbortedError("The connection was cut.")
        timed_out = isinstance(error, TimeoutError)
        return DialError("timed_out" if timed_out else reason, address=address)
