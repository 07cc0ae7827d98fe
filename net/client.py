"""The guarded HTTP client: sends requests to URLs that users name, and never to a private network.

The client resolves the name, checks the addresses, and connects to a checked one: a name that later resolves to
another address changes nothing. It verifies TLS against the name. A POST follows no redirects; a GET follows a few, and
checks each of them like the first URL.
"""

import contextlib
import functools
import http.client
import ssl
import time
import urllib.parse
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from core import errors
from core.outbound_proxy import OutboundProxy
from net.connection import FAILURES, Connection, DialError, Origin
from net.guard import HTTPS_ONLY, Guard, Ports
from net.pool import Pool
from net.resolver import IP, LookUp, Resolver, numeric
from net.response import Response
from net.tunnel import ProxyRoute

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS: Final = 3
_ASCII: Final = bytes(range(0x80))
#: Bytes of a body that are read at a time when they are counted.
_PART_BYTES: Final = 256 * 1024
#: Idle connections to one origin, and to all.
_IDLE_EACH: Final = 4
_IDLE: Final = 256
#: What users see of every failure before there is an address to connect to.
NO_PUBLIC_ADDRESS: Final = "no_public_address"
#: Nothing was sent, and the target is not to blame.
PROXY_FAILED: Final = "proxy_failed"
_BEFORE_CONNECTING: Final = frozenset({"name_not_resolved", "address_forbidden"})
#: Refusals of a name take a multiple of this, so that their duration does not reveal what the resolver returned.
_REFUSAL_SECONDS: Final = 1.0


class GuardedClientError(errors.LonglookError):
    """There is no response.

    Args:
        reason: ``url_invalid``, ``name_not_resolved``, ``address_forbidden``, ``unreachable``, ``tls_failed``,
            ``timed_out``, ``answer_broken``, ``redirected_too_often``, ``proxy_failed`` (nothing was sent: the
            operator's proxy does not work) or ``proxy_refused`` (the proxy does not permit the target).
        address: the address of the last connection attempt, if there was one.
        detail: a sentence about the cause, if there is more to say.
    """

    code = "egress_failed"

    def __init__(
        self, reason: str, *, address: str | None = None, detail: str | None = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.address = address
        self.detail = detail

    @property
    def disclosed(self) -> str:
        """The reason as a user may see it."""
        return disclosed(self.reason, address=self.address)


def disclosed(reason: str, *, address: str | None) -> str:
    """Return the reason of a failure as a user may see it.

    Until a name leads to an address that may be connected to, every failure is :data:`NO_PUBLIC_ADDRESS`. Otherwise
    a user could learn which names exist inside the operator's network.

    Args:
        reason: as in :class:`GuardedClientError`, or any other code, which is returned unchanged.
        address: what the connection was made to, if there was one.
    """
    hidden = reason in _BEFORE_CONNECTING or (reason == "timed_out" and address is None)
    return NO_PUBLIC_ADDRESS if hidden else reason


@dataclass(frozen=True)
class Reply:
    """A response: header names in lower case, the body up to the cap, the address that sent it.

    Attributes:
        broken: why the body ends before its end: ``timed_out`` or ``answer_broken``; None if it is whole.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    address: str
    broken: str | None = None


@functools.cache
def _system_tls() -> ssl.SSLContext:
    """Return the TLS that trusts the system's authorities. One for all clients: it takes long to load them."""
    return ssl.create_default_context()


@dataclass(frozen=True)
class _Request:
    method: str
    origin: Origin
    path: str
    body: bytes | None
    headers: Mapping[str, str]
    #: The deadline by the monotonic clock.
    until: float
    cap: int
    party: Hashable
    #: Called with the size of each part of the body as it arrives; it may raise.
    count: Callable[[int], None] | None = None


class GuardedClient:
    """Sends requests over pooled connections. Thread-safe.

    Args:
        allow: private networks that may be reached, such as ``127.0.0.0/8``.
        ports: on which public addresses may be reached.
        context: TLS; by default it trusts the system's authorities.
        look_up: returns the addresses of a name, for a port; by default the system's resolver.
        idle: idle connections that are kept.
        pause: waits for seconds before a name is refused.
        proxy: asked for a tunnel to each checked address; the guard does not apply to the proxy itself.

    A pooled connection leads to the address that was checked when it was made. Each new one resolves the name again.
    """

    def __init__(
        self,
        allow: Sequence[str] = (),
        *,
        ports: Ports = HTTPS_ONLY,
        context: ssl.SSLContext | None = None,
        look_up: LookUp | None = None,
        idle: int = _IDLE,
        pause: Callable[[float], None] = time.sleep,
        proxy: OutboundProxy | None = None,
    ) -> None:
        self._guard = Guard(allow, ports=ports)
        self._resolver = Resolver(look_up)
        self._tls = context or _system_tls()
        self._proxy_tls = self._tls
        self._pool = Pool(limit=idle, limit_each=_IDLE_EACH)
        self._pause = pause
        self._proxy = proxy

    def post(
        self,
        url: str,
        *,
        body: bytes,
        headers: Mapping[str, str],
        seconds: float,
        cap: int = 16 * 1024,
        party: Hashable = None,
    ) -> Reply:
        """POST ``body``; return the response, whatever its status, with up to ``cap`` bytes of its body.

        The response counts once its head is there: the receiver has taken the body of the request by then. If its own
        body breaks, it is returned with what arrived.

        Args:
            url: the target.
            body: sent unchanged.
            headers: besides host and length.
            seconds: for all of it, from resolving the name to the last byte.
            cap: bytes of the body after which reading ends, and with it the connection.
            party: the account; slow name servers of one account do not delay the look-ups of another.

        Raises:
            GuardedClientError: there is no response, or its head is not whole.
        """
        origin, path = _split(url)
        until = time.monotonic() + seconds
        return self._send(_Request("POST", origin, path, body, headers, until, cap, party))

    def fetch(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        seconds: float,
        cap: int,
        party: Hashable = None,
        count: Callable[[int], None] | None = None,
    ) -> Reply:
        """GET ``url`` and follow up to three redirects; return the last response, whatever its status.

        Args:
            url: the target.
            headers: besides the host.
            seconds: for all of it, redirects included.
            cap: bytes of the body after which reading ends.
            party: the account, as above.
            count: called with the size of each part of the body as it arrives; what it raises ends the fetch.

        Raises:
            GuardedClientError: there is no response, or too many redirects.
        """
        until = time.monotonic() + seconds
        for _ in range(1 + _MAX_REDIRECTS):
            origin, path = _split(url)
            reply = self._send(
                _Request("GET", origin, path, None, headers, until, cap, party, count)
            )
            target = reply.headers.get("location")
            if reply.status not in _REDIRECTS or target is None:
                return reply
            url = _join(url, target)
        raise GuardedClientError("redirected_too_often", address=reply.address)

    def refuses(self, url: str) -> str | None:
        """Return why ``url`` can never be reached, as far as that is known without resolving its name; else None."""
        try:
            origin, _ = _split(url)
        except GuardedClientError as error:
            return error.reason
        address = numeric(origin.host)
        if address is None:
            permitted = self._guard.permits_names(scheme=origin.scheme, port=origin.port)
        else:
            permitted = self._permits(address, origin)
        return None if permitted else "address_forbidden"

    def close(self) -> None:
        """Close the idle connections."""
        self._pool.close()

    def _send(self, request: _Request) -> Reply:
        pooled = self._pool.take(request.origin)
        if pooled is not None:
            with contextlib.suppress(_StaleConnection):
                return self._send_request(pooled, request, pooled=True)
        return self._send_request(self._connect(request), request, pooled=False)

    def _send_request(self, connection: Connection, request: _Request, *, pooled: bool) -> Reply:
        """Send ``request`` and read its response. Raises :class:`_StaleConnection` for a pooled one that was closed."""
        reusable = False
        try:
            with connection.deadline(request.until):
                response = connection.send(
                    request.method, request.path, body=request.body, headers=request.headers
                )
            body, broken = self._body(connection, response, request)
            whole = response.isclosed() and not (response.will_close or broken)
            reusable = whole and _is_right_server(response.status)
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, headers, body, connection.address, broken)
        except TimeoutError as error:
            raise GuardedClientError("timed_out", address=connection.address) from error
        except FAILURES as error:
            if pooled and isinstance(error, ConnectionError):
                raise _StaleConnection from error
            raise GuardedClientError("answer_broken", address=connection.address) from error
        finally:
            if reusable:
                self._pool.give_back(connection)
            else:
                connection.close()

    def _body(
        self, connection: Connection, response: Response, request: _Request
    ) -> tuple[bytes, str | None]:
        """Return the body of a response up to the cap, and why it is not whole.

        Raises:
            GuardedClientError: it is not whole, and nothing was posted, so that the body is what matters.
        """
        parts: list[bytes] = []
        try:
            with connection.deadline(request.until):
                _read(response, request, parts)
        except FAILURES as error:
            reason = "timed_out" if isinstance(error, TimeoutError) else "answer_broken"
            if request.body is None:
                raise GuardedClientError(reason, address=connection.address) from error
            return b"".join(parts), reason
        return b"".join(parts), None

    def _connect(self, request: _Request) -> Connection:
        """Resolve the name, and connect to the first of its permitted addresses that answers."""
        addresses = [str(address) for address in self._permitted(request)]
        route = self._route(request, addresses)
        connection = Connection(request.origin, tls=self._tls, route=route)
        # A proxy's part of the connection can come in drips, so one clock limits it all.
        limit = connection.deadline(request.until) if route else contextlib.nullcontext()
        try:
            with limit:
                connection.dial(addresses, until=request.until)
        except DialError as error:
            raise GuardedClientError(
                error.reason, address=error.address, detail=error.detail
            ) from error
        except TimeoutError as error:
            connection.close()
            raise GuardedClientError("timed_out", address=addresses[0]) from error
        return connection

    def _route(self, request: _Request, addresses: Sequence[str]) -> ProxyRoute | None:
        """Return the way through the proxy, None for a direct connection.

        Raises:
            GuardedClientError: the name of the proxy cannot be resolved.
        """
        proxy = self._proxy
        if proxy is None or not any(proxy.serves(request.origin.host, one) for one in addresses):
            return None
        try:
            resolved = self._resolver.resolve(
                proxy.host, proxy.port, party=proxy, until=request.until
            )
        except OSError as error:
            raise GuardedClientError(
                PROXY_FAILED, address=addresses[0], detail="The name of the proxy does not resolve."
            ) from error
        return ProxyRoute(proxy, [str(address) for address in resolved], self._proxy_tls)

    def _permitted(self, request: _Request) -> list[IP]:
        """Return the addresses of the origin that may be connected to, at least one."""
        address = numeric(request.origin.host)
        if address is not None:
            return self._filtered([address], request.origin)
        began = time.monotonic()
        try:
            return self._filtered(self._resolve(request), request.origin)
        except GuardedClientError:
            now = time.monotonic()
            rest = _REFUSAL_SECONDS - (now - began) % _REFUSAL_SECONDS
            self._pause(max(0.0, min(rest, request.until - now)))
            raise

    def _filtered(self, addresses: Sequence[IP], origin: Origin) -> list[IP]:
        permitted = [address for address in addresses if self._permits(address, origin)]
        if not permitted:
            first = str(addresses[0]) if addresses else None
            raise GuardedClientError("address_forbidden", address=first)
        return permitted

    def _permits(self, address: IP, origin: Origin) -> bool:
        return self._guard.permits(address, scheme=origin.scheme, port=origin.port)

    def _resolve(self, request: _Request) -> list[IP]:
        origin = request.origin
        try:
            return self._resolver.resolve(
                origin.host, origin.port, party=request.party, until=request.until
            )
        except TimeoutError as error:
            raise GuardedClientError("timed_out") from error
        except OSError as error:
            raise GuardedClientError("name_not_resolved") from error


class _StaleConnection(Exception):
    """The server had closed a pooled connection."""


def _is_right_server(status: int) -> bool:
    """Whether the next request may go to the server that gave this status.

    A name can lead to several servers and to another one later. The one that fails must not get every request for as
    long as its connection is kept. An informational status ends in a switch of protocols.
    """
    return (
        HTTPStatus.OK <= status < HTTPStatus.INTERNAL_SERVER_ERROR
        and status != HTTPStatus.MISDIRECTED_REQUEST
    )


def _read(response: Response, request: _Request, parts: list[bytes]) -> None:
    """Append the body of a response to ``parts``, up to the cap, counted as it arrives."""
    if request.count is None:
        response.read_into(parts, cap=request.cap)
        return
    left = request.cap
    while left and (part := response.read(min(left, _PART_BYTES))):
        request.count(len(part))
        parts.append(part)
        left -= len(part)
    if left and response.length:
        raise http.client.IncompleteRead(b"", response.length)


def _split(url: str) -> tuple[Origin, str]:
    """Return a URL's origin, and its path with the query. Raises :class:`GuardedClientError`."""
    try:
        return Origin.split(url)
    except ValueError as error:
        raise GuardedClientError("url_invalid") from error


def _join(url: str, target: str) -> str:
    """Return the target of a redirect. Raises :class:`GuardedClientError`.

    Args:
        url: the URL that redirects.
        target: the value of ``Location``, whose characters are the bytes that the server sent.
    """
    try:
        raw = target.encode("latin-1")
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            text = urllib.parse.quote(raw, safe=_ASCII)
        return urllib.parse.urljoin(url, text)
    except ValueError as error:
        raise GuardedClientError("url_invalid") from error
