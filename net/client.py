"""The guarded transport: requests to addresses that strangers name, and never to a private place.

The address is checked when connecting, after the name was resolved, and it is this address that is connected to: a
name that turns to another one meanwhile gains nothing. TLS is verified against the name. What is posted follows no
redirects; what is fetched follows a few, each of them guarded like the first. A network on the allow-list may be
reached by plain HTTP and on any port; all else on the ports that its user names, HTTPS's own by default.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import select
import socket
import ssl
import threading
import time
import urllib.parse
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from core import errors
from net.resolver import IP, LookUp, Resolver, numeric

_HTTPS: Final = 443
_PORTS: Final = {"http": 80, "https": _HTTPS}
#: Where public addresses may be reached: scheme and port.
Doors = frozenset[tuple[str, int]]
HTTPS_ONLY: Final[Doors] = frozenset({("https", _HTTPS)})
WEB: Final[Doors] = frozenset(_PORTS.items())
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS: Final = 3
#: Bytes of a body that are read at a time where they are counted.
_PART_BYTES: Final = 256 * 1024
#: Networks whose addresses carry an IPv4 address, and how many bits follow it.
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
#: What no address of which is anybody's on the Internet, though the standard library takes some for global.
_NOBODYS: Final = tuple(
    map(
        ipaddress.ip_network,
        (
            "64:ff9b:1::/48",
            "2001::/32",
            "3fff::/20",
            "fec0::/10",
            "192.0.0.0/24",
            "192.88.99.0/24",
            # Where a cloud's own services answer its virtual machines.
            "168.63.129.16/32",
        ),
    )
)
#: Idle connections kept to one origin and to all, and how long; receivers close theirs after a minute or so.
_IDLE_EACH: Final = 4
_IDLE: Final = 256
_IDLE_SECONDS: Final = 30.0
#: What customers see of every failure that comes before a connection.
NO_PUBLIC_ADDRESS: Final = "no_public_address"
_BEFORE_CONNECTING: Final = frozenset({"name_not_resolved", "address_forbidden"})
#: Refusals of a name take a multiple of this, so that their time does not tell what the resolver said.
_REFUSAL_SECONDS: Final = 1.0


class GuardedClientError(errors.LonglookError):
    """No answer came.

    Args:
        reason: ``url_invalid``, ``name_not_resolved``, ``address_forbidden``, ``unreachable``, ``tls_failed``,
            ``timed_out``, ``answer_broken`` or ``redirected_too_often``.
        address: where the name led to, as far as it came.
    """

    code = "egress_failed"

    def __init__(self, reason: str, *, address: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.address = address

    @property
    def disclosed(self) -> str:
        """The reason as a customer may see it."""
        return disclosed(self.reason, address=self.address)


def disclosed(reason: str, *, address: str | None) -> str:
    """Return the reason of a failure as a customer may see it.

    Until a name leads to an address that may be connected to, every failure is :data:`NO_PUBLIC_ADDRESS`. Otherwise
    a customer could learn which names exist inside the operator's network.

    Args:
        reason: as in :class:`GuardedClientError`, or any other code, which is returned as it is.
        address: what the connection was made to, if it came that far.
    """
    hidden = reason in _BEFORE_CONNECTING or (reason == "timed_out" and address is None)
    return NO_PUBLIC_ADDRESS if hidden else reason


def is_public(address: IP) -> bool:
    """Whether an address belongs to the public Internet."""
    meant = _meant(address)
    nobodys = any(meant in network for network in _NOBODYS if network.version == meant.version)
    return meant.is_global and not (nobodys or meant.is_multicast or meant.is_reserved)


@dataclass(frozen=True)
class Reply:
    """An answer: header names in lower case, the body up to the cap, the address that gave it."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    address: str


@dataclass(frozen=True)
class _Origin:
    scheme: str
    host: str
    port: int


@dataclass(frozen=True)
class _Request:
    method: str
    path: str
    body: bytes | None
    headers: Mapping[str, str]
    #: When it has to be over, by the monotonic clock.
    until: float
    cap: int
    party: Hashable
    #: Called with the size of each part of the body that has come; it may raise.
    count: Callable[[int], None] | None = None


class _RawResponse(http.client.HTTPResponse):
    """An answer, beyond those that only announce it (103, 102): what follows them is not the next request's."""

    def begin(self) -> None:
        """Read status and headers."""
        super().begin()
        while HTTPStatus.SWITCHING_PROTOCOLS < self.status < HTTPStatus.OK:
            self.headers = None  # type: ignore[assignment] # as before the first one
            super().begin()


class _Connection:
    """A connection to an origin that was checked, and the moment from which it is idle."""

    def __init__(self, origin: _Origin, sock: socket.socket, address: str) -> None:
        self.http = http.client.HTTPConnection(origin.host, origin.port)
        self.http.response_class = _RawResponse
        # It must not open a connection by itself: that one would be unguarded.
        self.http.auto_open = 0
        self.http.sock = sock
        self.sock = sock
        self.address = address
        self.idle_since = 0.0

    @property
    def quiet(self) -> bool:
        """Whether nothing came since it is idle: no end, and nothing that the next request takes for its answer."""
        waiting = select.poll()
        waiting.register(self.sock, select.POLLIN)
        return not waiting.poll(0)

    def cut(self) -> None:
        """End whatever another thread waits for on it."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it."""
        self.http.close()
        self.sock.close()


class GuardedClient:
    """Sends, with connections that are kept; may be used by any number of threads.

    Args:
        allow: private networks that may be reached all the same, such as ``127.0.0.0/8``.
        doors: where public addresses may be reached.
        context: TLS; by default the system's authorities are trusted.
        look_up: returns the addresses of a name, for a port; by default the system's resolver.
        idle: connections kept.
        pause: waits for seconds, before a name is refused.

    A connection that is kept leads to the address that was checked when it was made, wherever its name leads now;
    for each new one the name is looked up again.
    """

    def __init__(
        self,
        allow: Sequence[str] = (),
        *,
        doors: Doors = HTTPS_ONLY,
        context: ssl.SSLContext | None = None,
        look_up: LookUp | None = None,
        idle: int = _IDLE,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._allow = tuple(ipaddress.ip_network(network) for network in allow)
        self._doors = doors
        self._resolver = Resolver(look_up)
        self._context = context or ssl.create_default_context()
        self._lock = threading.Lock()
        self._most_idle = idle
        self._pause = pause
        self._idle: defaultdict[_Origin, list[_Connection]] = defaultdict(list)
        #: The same connections, the one that is idle for longest first.
        self._oldest: dict[_Connection, _Origin] = {}

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
        """POST ``body``; return the answer, whatever its status, with up to ``cap`` bytes of its body.

        Args:
            url: where to.
            body: as it is sent.
            headers: beside host and length.
            seconds: for all of it, from resolving the name to the last byte.
            cap: where the reading ends, and with it the connection.
            party: on whose behalf: silent names of one party keep no other one waiting.

        Raises:
            EgressError: no answer came.
        """
        origin, path = _parts(url)
        return self._send(
            origin,
            _Request("POST", path, body, headers, time.monotonic() + seconds, cap, party),
        )

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
        """GET ``url`` and where it redirects to, three times at most; return the last answer, whatever its status.

        Args:
            url: from where.
            headers: beside the host.
            seconds: for all of it, redirects included.
            cap: bytes of the body after which the reading ends.
            party: on whose behalf, as above.
            count: called with the size of each part of a body that has come; what it raises ends the fetch.

        Raises:
            EgressError: no answer came, or it only leads on.
        """
        until = time.monotonic() + seconds
        for _ in range(1 + _MOST_REDIRECTS):
            origin, path = _parts(url)
            reply = self._send(
                origin, _Request("GET", path, None, headers, until, cap, party, count)
            )
            target = reply.headers.get("location")
            if reply.status not in _REDIRECTS or target is None:
                return reply
            url = _redirected(url, target)
        raise GuardedClientError("redirected_too_often", address=reply.address)

    def refuses(self, url: str) -> str | None:
        """Return why ``url`` can never be reached, as far as that can be told without looking; else None."""
        try:
            origin, _ = _parts(url)
        except GuardedClientError as error:
            return error.reason
        address = numeric(origin.host)
        if address is None:
            open_to_all = (origin.scheme, origin.port) in self._doors
            return None if open_to_all or self._allow else "address_forbidden"
        permitted = self.permits(address, scheme=origin.scheme, port=origin.port)
        return None if permitted else "address_forbidden"

    def _send(self, origin: _Origin, request: _Request) -> Reply:
        line = self._take(origin)
        if line is not None:
            with contextlib.suppress(_Stale):
                return self._ask(line, origin, request, stored=True)
        return self._ask(self._connect(origin, request), origin, request, stored=False)

    def close(self) -> None:
        """Close the connections that are kept."""
        with self._lock:
            lines = list(self._oldest)
            self._oldest.clear()
            self._idle.clear()
        for line in lines:
            line.close()

    def permits(self, address: IP, *, scheme: str, port: int) -> bool:
        """Whether a connection to ``address`` may be made."""
        meant = _meant(address)
        if any(meant in network for network in self._allow if network.version == meant.version):
            return True
        return (scheme, port) in self._doors and is_public(address)

    def _ask(self, line: _Connection, origin: _Origin, request: _Request, *, stored: bool) -> Reply:
        """Ask on an open connection. Raises :class:`_Stale` when a kept one turns out to be closed."""
        # Each byte may come in time and all of them never end: one clock cuts it all.
        clock = threading.Timer(max(0.0, request.until - time.monotonic()), line.cut)
        clock.daemon = True
        reusable = False
        try:
            clock.start()
            line.sock.settimeout(max(0.001, request.until - time.monotonic()))
            line.http.request(
                request.method, request.path, body=request.body, headers=dict(request.headers)
            )
            answer = line.http.getresponse()
            reported = _body(answer, request)
            if time.monotonic() >= request.until:
                # A cut looks to the reader like an end.
                raise TimeoutError
            if len(reported) < request.cap and answer.length:
                raise http.client.IncompleteRead(reported, answer.length)
            reusable = (
                answer.isclosed() and not answer.will_close and answer.status >= HTTPStatus.OK
            )
            named = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, named, reported, line.address)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if time.monotonic() >= request.until:
                raise GuardedClientError("timed_out", address=line.address) from error
            if stored and isinstance(error, ConnectionError):
                raise _Stale from error
            raise GuardedClientError("answer_broken", address=line.address) from error
        finally:
            clock.cancel()
            if reusable and time.monotonic() < request.until:
                self._keep(origin, line)
            else:
                line.close()

    def _connect(self, origin: _Origin, request: _Request) -> _Connection:
        """Resolve the name, and connect to the first of its addresses that may be reached and answers."""
        until = request.until
        permitted = self._permitted(origin, until=until, party=request.party)
        for place, address in enumerate(permitted):
            # Each of them gets its share: one that swallows packets must not use up the time of the others.
            share = (until - time.monotonic()) / (len(permitted) - place)
            try:
                sock = socket.create_connection(
                    (str(address), origin.port), timeout=max(0.001, share)
                )
            except TimeoutError as error:
                if address is permitted[-1]:
                    raise GuardedClientError("timed_out", address=str(address)) from error
                continue
            except OSError:
                continue
            return _Connection(
                origin, self._secured(sock, origin, str(address), until), str(address)
            )
        raise GuardedClientError("unreachable", address=str(permitted[-1]))

    def _permitted(self, origin: _Origin, *, until: float, party: Hashable) -> list[IP]:
        """Return the addresses of an origin that may be connected to, at least one."""
        address = numeric(origin.host)
        if address is not None:
            return self._filtered([address], origin)
        began = time.monotonic()
        try:
            return self._filtered(self._resolve(origin, until=until, party=party), origin)
        except GuardedClientError:
            now = time.monotonic()
            rest = _REFUSAL_SECONDS - (now - began) % _REFUSAL_SECONDS
            self._pause(max(0.0, min(rest, until - now)))
            raise

    def _filtered(self, found: Sequence[IP], origin: _Origin) -> list[IP]:
        permitted = [
            address
            for address in found
            if self.permits(address, scheme=origin.scheme, port=origin.port)
        ]
        if not permitted:
            raise GuardedClientError("address_forbidden", address=str(found[0]) if found else None)
        return permitted

    def _resolve(self, origin: _Origin, *, until: float, party: Hashable) -> list[IP]:
        try:
            return self._resolver.resolve(origin.host, origin.port, party=party, until=until)
        except TimeoutError as error:
            raise GuardedClientError("timed_out") from error
        except OSError as error:
            raise GuardedClientError("name_not_resolved") from error

    def _secured(
        self, sock: socket.socket, origin: _Origin, address: str, until: float
    ) -> socket.socket:
        """Return the socket, for HTTPS within TLS that was verified against the name."""
        sock.settimeout(max(0.001, until - time.monotonic()))
        if origin.scheme == "http":
            return sock
        try:
            return self._context.wrap_socket(sock, server_hostname=origin.host)
        except TimeoutError as error:
            sock.close()
            raise GuardedClientError("timed_out", address=address) from error
        except (OSError, ValueError) as error:
            sock.close()
            raise GuardedClientError("tls_failed", address=address) from error

    def _take(self, origin: _Origin) -> _Connection | None:
        """Return a connection that was kept, is not too old, and on which nothing came."""
        with self._lock:
            old = self._too_old()
            stored = self._idle.get(origin)
            line = stored[-1] if stored else None
            if line is not None:
                self._drop(line)
        for one in old:
            one.close()
        if line is not None and not line.quiet:
            line.close()
            return None
        return line

    def _keep(self, origin: _Origin, line: _Connection) -> None:
        line.idle_since = time.monotonic()
        with self._lock:
            self._idle[origin].append(line)
            self._oldest[line] = origin
            old = self._too_old()
            stored = self._idle.get(origin, [])
            if len(stored) > _IDLE_EACH:
                old.append(self._drop(stored[0]))
        for one in old:
            one.close()

    def _too_old(self) -> list[_Connection]:
        """Drop and return those that are idle for too long or are too many: nobody may ever take them."""
        old = []
        now = time.monotonic()
        while self._oldest:
            line = next(iter(self._oldest))
            if now - line.idle_since < _IDLE_SECONDS and len(self._oldest) <= self._most_idle:
                break
            old.append(self._drop(line))
        return old

    def _drop(self, line: _Connection) -> _Connection:
        origin = self._oldest.pop(line)
        self._idle[origin].remove(line)
        if not self._idle[origin]:
            del self._idle[origin]
        return line


class _Stale(Exception):
    """A connection that was kept had been closed by the other side."""


def _body(answer: http.client.HTTPResponse, request: _Request) -> bytes:
    """Return the body of an answer up to the cap, counted while it comes."""
    if request.count is None:
        return answer.read(request.cap)
    parts: list[bytes] = []
    left = request.cap
    while left and (part := answer.read(min(left, _PART_BYTES))):
        request.count(len(part))
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _parts(url: str) -> tuple[_Origin, str]:
    """Return a URL's origin, and its path with the query. Raises :class:`GuardedClientError`."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port or _PORTS[parts.scheme]
        host = (parts.hostname or "").encode("idna").decode()
        path = urllib.parse.quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
        query = urllib.parse.quote(parts.query, safe="/%:@!$&'()*+,;=~-._?")
    except (ValueError, KeyError) as error:
        raise GuardedClientError("url_invalid") from error
    # What is not printable, or a space, has no place in a Host header.
    sound = host.isprintable() and " " not in host
    if not host or not sound or parts.username is not None or parts.password is not None:
        raise GuardedClientError("url_invalid")
    return _Origin(parts.scheme, host, port), path + (f"?{query}" if query else "")


def _redirected(url: str, target: str) -> str:
    """Return where an answer leads. Raises :class:`GuardedClientError`."""
    try:
        return urllib.parse.urljoin(url, target)
    except ValueError as error:
        raise GuardedClientError("url_invalid") from error


def _meant(address: IP) -> IP:
    """Return the IPv4 address inside of an IPv6 one that carries one, else the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address
