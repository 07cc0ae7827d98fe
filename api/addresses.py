"""Where a request comes from: the one place that says which address counts as the client's."""

from __future__ import annotations

import functools
import ipaddress
from typing import Final

from flask import Request

_LOCAL: Final = "local"
#: What one subscriber of IPv6 has at least. Source: RFC 6177.
_IPV6_PREFIX: Final = 64


def client_address(request: Request) -> str:
    """Return the group of addresses that ``request`` counts for, as :func:`group` makes it.

    It is the peer's address, or the one that trusted proxies say (``LONGLOOK_TRUSTED_PROXIES``). Behind any other
    proxy all clients have the proxy's address.
    """
    return group(request.remote_addr or "")


@functools.lru_cache(maxsize=4096)
def group(address: str) -> str:
    """Return what an address counts for: an IPv4 address itself, the /64 network of an IPv6 one, else ``local``."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return _LOCAL
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, _IPV6_PREFIX), strict=False))
    return str(found)
