"""The client address of a request, and the group of addresses it belongs to."""

import functools
import ipaddress
from typing import Final

from flask import Request

_LOCAL: Final = "local"
#: The smallest network of an IPv6 subscriber. Source: RFC 6177.
_IPV6_PREFIX: Final = 64


def client_address(request: Request) -> str:
    """Return the group of the client's address; see :func:`group`.

    The client's address is the peer's, or the one that trusted proxies report (``LONGLOOK_TRUSTED_PROXIES``). Behind
    any other proxy, all clients have the proxy's address.
    """
    return group(request.remote_addr or "")


@functools.lru_cache(maxsize=4096)
def group(address: str) -> str:
    """Return the group of an address: an IPv4 address itself, the /64 network of an IPv6 address, else ``local``."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return _LOCAL
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, _IPV6_PREFIX), strict=False))
    return str(parsed)
