"""Which addresses guarded requests may connect to: rules against server-side request forgery (SSRF).

Public addresses may be reached on a few ports. Networks on the allow-list may be reached by any scheme and port, as
private networks are otherwise never reached.
"""

import ipaddress
from collections.abc import Sequence
from typing import Final

from net.resolver import IP

#: Pairs of scheme and port on which public addresses may be reached.
Ports = frozenset[tuple[str, int]]
HTTPS_ONLY: Final[Ports] = frozenset({("https", 443)})
WEB: Final[Ports] = HTTPS_ONLY | {("http", 80)}
#: A network whose addresses carry an IPv4 address in their last 32 bits.
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
#: Networks that are not part of the public Internet, although the standard library takes some for global.
_NOT_PUBLIC: Final = tuple(
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


class Guard:
    """Decides about addresses.

    Args:
        allow: private networks that may be reached, such as ``127.0.0.0/8``.
        ports: how public addresses may be reached.
    """

    def __init__(self, allow: Sequence[str] = (), *, ports: Ports = HTTPS_ONLY) -> None:
        self._allow = tuple(ipaddress.ip_network(network) for network in allow)
        self._ports = ports

    def permits(self, address: IP, *, scheme: str, port: int) -> bool:
        """Whether a connection to ``address`` may be made."""
        target = _ipv4_within(address)
        if any(target in network for network in self._allow if network.version == target.version):
            return True
        return (scheme, port) in self._ports and is_public(address)

    def permits_names(self, *, scheme: str, port: int) -> bool:
        """Whether a connection to some address of a name could be made."""
        return bool(self._allow) or (scheme, port) in self._ports


def is_public(address: IP) -> bool:
    """Whether an address belongs to the public Internet."""
    target = _ipv4_within(address)
    reserved = any(
        target in network for network in _NOT_PUBLIC if network.version == target.version
    )
    return target.is_global and not (reserved or target.is_multicast or target.is_reserved)


def _ipv4_within(address: IP) -> IP:
    """Return the IPv4 address that an IPv6 address carries, else the address."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address
