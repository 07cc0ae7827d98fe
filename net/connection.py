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
from typing import Final, Literal, Self, cast

from urllib3.util.ssltransport import SSLTransport

from net import certificates, tunnel
from net.response import Response
from net.tunnel import ProxyRoute

_PORTS: Final = {"http": 80, "https": 443}
_LEAST_SECONDS: Final = 0.001
#: What a request or a response can raise, besides :class:`TimeoutError`, which is an ``OSError``.
FAILURES: Final = (OSError, http.client.HTTPException, ValueError)


DialReason = Literal["unreachable", "timed_out", "tls_failed", "proxy_failed", "proxy_refused"]


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
        detail: a sentence about the cause, if there is more to say.
    """

    def __init__(self, reason: DialReason, *, address: str, detail: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.address = address
        self.detail = detail


class Connection:
    """A connection to one origin: dialed once, then used for one request at a time.

    Args:
        origin: the server.
        tls: verifies the server's certificate against the host name; required for HTTPS.
        route: the proxy that makes the connection; None: it is direct.
    """

    def __init__(
        self, origin: Origin, *, tls: ssl.SSLContext | None = None, route: ProxyRoute | None = None
    ) -> None:
        self.origin = origin
        self._route = route
        #: The numeric address that it is connected to.
        self.address = ""
        self._tls = tls if origin.scheme == "https" else None
        self._lock = threading.Lock()
        self._cut = False
        self._socket: socket.socket | None = None
        #: What is written to and read from: the socket, or TLS within the TLS of a proxy.
        self._stream: socket.socket | None = None
        self._http: http.client.HTTPConnection | None = None

    @property
    def dialed(self) -> bool:
        """Whether it was connected before: its peer may have closed it since."""
        return self._http is not None

    def dial(self, addresses: Sequence[str], *, until: float) -> None:
        """Connect to the first of ``addresses`` that answers.

        Each address gets an equal share of the time that is left: one that drops packets must not use up the time
        of the others. A failure of TLS or of the proxy is final.

        Args:
            addresses: numeric addresses, at least one.
            until: the deadline by the monotonic clock.

        Raises:
            DialError: no address could be reached, or TLS or the proxy failed.
            ConnectionAbortedError: the connection was cut.
        """
        for place, address in enumerate(addresses):
            share = (until - time.monotonic()) / (len(addresses) - place)
            try:
                self._connect(address, max(_LEAST_SECONDS, share))
            except tunnel.ProxyError as error:
                self._release()
                raise self._failed(error, "proxy_failed", address) from error
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
            detail = certificates.why_not(
                error, host=self.origin.host, certificate=self._certificate(error, until)
            )
            raise self._failed(error, "tls_failed", self.address, detail=detail) from error
        self._http = http.client.HTTPConnection(self.origin.host, self.origin.port)
        self._http.response_class = Response
        # http.client must not open a connection of its own: its address would be unchecked.
        self._http.auto_open = 0
        self._http.sock = self._stream

    def send(
        self, method: str, path: str, *, body: bytes | None, headers: Mapping[str, str]
    ) -> Response:
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
        return cast("Response", self._http.getresponse())

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
        """Connect to ``address``, through the proxy if there is one."""
        if self._route is None:
            self._reach(address, self.origin.port, seconds)
            return
        until = time.monotonic() + seconds
        proxy = self._route.proxy
        try:
            self._reach_proxy(self._route, until)
            if proxy.scheme == "https":
                self._wrap(self._route.tls, proxy.host)
        except TimeoutError as error:
            raise tunnel.ProxyError("The proxy cannot be reached in time.") from error
        except OSError as error:
            raise tunnel.ProxyError(f"The proxy cannot be reached: {error}") from error
        tunnel.ask(self._connected(), self._route, address=address, port=self.origin.port)

    def _reach_proxy(self, route: ProxyRoute, until: float) -> None:
        """Connect to the first address of the proxy that answers."""
        for place, address in enumerate(route.addresses):
            share = (until - time.monotonic()) / (len(route.addresses) - place)
            try:
                self._reach(address, route.proxy.port, max(_LEAST_SECONDS, share))
            except OSError:
                self._release()
                if self._cut or place == len(route.addresses) - 1:
                    raise
                continue
            self.wait_at_most(max(_LEAST_SECONDS, until - time.monotonic()))
            return

    def _reach(self, address: str, port: int, seconds: float) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        plain = self._adopt(socket.socket(family, socket.SOCK_STREAM))
        plain.settimeout(seconds)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.connect((address, port))

    def _secure(self, until: float) -> None:
        self.wait_at_most(max(_LEAST_SECONDS, until - time.monotonic()))
        if self._tls is not None:
            self._wrap(self._tls, self.origin.host)

    def _wrap(self, tls: ssl.SSLContext, host: str) -> None:
        """Put TLS around the stream. TLS within TLS has no socket of its own."""
        stream = self._connected()
        if isinstance(stream, ssl.SSLSocket):
            self._stream = cast("socket.socket", SSLTransport(stream, tls, server_hostname=host))
            return
        secured = tls.wrap_socket(stream, server_hostname=host, do_handshake_on_connect=False)
        self._adopt(secured)
        secured.do_handshake()

    def _connected(self) -> socket.socket:
        if self._stream is None:
            raise ConnectionAbortedError("The connection was closed.")
        return self._stream

    def _certificate(self, error: Exception, until: float) -> bytes | None:
        """Return the certificate that was not accepted, None if it is not known.

        A refused handshake does not reveal it, so this makes one more connection, sends nothing, and closes it.
        """
        if not isinstance(error, ssl.SSLCertVerificationError):
            return None
        try:
            self._connect(self.address, max(_LEAST_SECONDS, until - time.monotonic()))
            self.wait_at_most(max(_LEAST_SECONDS, until - time.monotonic()))
            self._wrap(_unverified(), self.origin.host)
            return cast("ssl.SSLSocket", self._connected()).getpeercert(binary_form=True)
        except (OSError, ValueError):
            return None
        finally:
            self._release()

    def _adopt(self, new: socket.socket) -> socket.socket:
        """Make ``new`` the socket that :meth:`cut` reaches, and return it."""
        with self._lock:
            if self._cut:
                new.close()
                raise ConnectionAbortedError("The connection was cut.")
            self._socket = self._stream = new
            return new

    def _release(self) -> None:
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None
            self._stream = None

    def _failed(
        self, error: Exception, reason: DialReason, address: str, *, detail: str | None = None
    ) -> OSError:
        if self._cut:
            return ConnectionAbortedError("The connection was cut.")
        if isinstance(error, TimeoutError):
            return DialError("timed_out", address=address)
        if isinstance(error, tunnel.ProxyError):
            detail = error.detail
            if isinstance(error, tunnel.ProxyRefusedError):
                reason = "proxy_refused"
        return DialError(reason, address=address, detail=detail)


def _unverified() -> ssl.SSLContext:
    """Return a context that accepts any certificate, to read one: nothing is sent over such a connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
