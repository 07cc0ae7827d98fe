"""Asks a proxy for a tunnel to an address (CONNECT; RFC 9110, 9.3.6)."""

import re
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from core.outbound_proxy import OutboundProxy

_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3})(?: |\r?\n)")
_MAX_HEAD_BYTES: Final = 16 * 1024
_END: Final = re.compile(rb"\r?\n\r?\n\Z")
#: The proxy says that the target does not answer; any other failure of a server is its own.
_TARGET_UNREACHABLE: Final = frozenset(
    {HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}
)


@dataclass(frozen=True)
class ProxyRoute:
    """The way through a proxy: its numeric addresses, and TLS to it if its URL is ``https``."""

    proxy: OutboundProxy
    addresses: Sequence[str]
    tls: ssl.SSLContext


class ProxyError(OSError):
    """The proxy does not do its part: it cannot be reached, refuses us, or does not speak HTTP.

    Args:
        detail: a sentence about it.
    """

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class ProxyRefusedError(ProxyError):
    """The proxy works, and does not permit this target."""


def ask(stream: socket.socket, route: ProxyRoute, *, address: str, port: int) -> None:
    """Make ``stream``, a connection to the proxy, one to ``address``.

    The proxy gets the address that was checked, not the name: it would resolve a name again, perhaps to another
    address, perhaps inside the operator's network.

    Raises:
        ProxyError: there is no tunnel, and this is not the target's fault.
        OSError: the target does not answer.
    """
    target = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if route.proxy.authorization is not None:
        lines.append(f"Proxy-Authorization: {route.proxy.authorization}")
    stream.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
    status = _status(stream)
    if status in _TARGET_UNREACHABLE:
        raise ConnectionRefusedError(f"The proxy answered {status}.")
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        raise ProxyError("The proxy requires other credentials (407).")
    if 400 <= status < 500:  # noqa: PLR2004 - the range of refusals
        raise ProxyRefusedError(f"The proxy does not permit this target ({status}).")
    if not 200 <= status < 300:  # noqa: PLR2004 - the range of success
        raise ProxyError(f"The proxy answered {status}.")


def _status(stream: socket.socket) -> int:
    """Return the status of a response without a body. It reads no byte of what follows the head."""
    head = bytearray()
    while not _END.search(head[-4:]):
        part = stream.recv(1)
        if not part or len(head) >= _MAX_HEAD_BYTES:
            raise ProxyError("The proxy does not answer CONNECT with HTTP.")
        head += part
    matched = _STATUS.match(head)
    if matched is None:
        raise ProxyError("The proxy does not answer CONNECT with HTTP.")
    return int(matched[1])
