"""The proxy through which webhooks and image downloads leave the network: one parse of its URL."""

import base64
import ipaddress
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Self

_PORTS: Final = {"http": 80, "https": 443}
_SHAPE: Final = (
    "must be a URL such as `http://proxy.example:3128` or `https://user:password@proxy.example`"
)


@dataclass(frozen=True)
class OutboundProxy:
    """An HTTP proxy that is asked to CONNECT.

    Attributes:
        scheme: ``http``, or ``https`` if the connection to the proxy itself uses TLS.
        authorization: the value of ``Proxy-Authorization``, None without credentials.
        direct: targets that are reached without it: networks, and names with all names below them.
    """

    scheme: str
    host: str
    port: int
    authorization: str | None = field(default=None, repr=False)
    direct: tuple[str, ...] = ()

    @classmethod
    def parse(cls, url: str, *, direct: Sequence[str] = ()) -> Self:
        """Return the proxy of a URL. Raises ``ValueError`` with a sentence that does not show the URL."""
        try:
            parts = urllib.parse.urlsplit(url)
            port = parts.port
        except ValueError:
            raise ValueError(_SHAPE) from None
        if (
            parts.scheme not in _PORTS
            or not parts.hostname
            or port == 0
            or parts.path not in ("", "/")
            or parts.query
            or parts.fragment
        ):
            raise ValueError(_SHAPE)
        authorization = None
        if parts.username is not None:
            plain = ":".join(
                urllib.parse.unquote(part) for part in (parts.username, parts.password or "")
            )
            authorization = "Basic " + base64.b64encode(plain.encode()).decode()
        return cls(
            parts.scheme,
            parts.hostname,
            port or _PORTS[parts.scheme],
            authorization,
            tuple(check_direct(entry) for entry in direct),
        )

    def serves(self, host: str, address: str) -> bool:
        """Whether a connection to ``host``, which resolved to ``address``, goes through the proxy."""
        return not any(_matches(entry, host, address) for entry in self.direct)


def check_direct(entry: str) -> str:
    """Return a target that needs no proxy in its one form. Raises ``ValueError``."""
    try:
        return str(ipaddress.ip_network(entry))
    except ValueError:
        name = entry.lower().removeprefix("*").strip(".")
        if not name or not all(c.isalnum() or c in "-._" for c in name) or name[-1].isdigit():
            raise ValueError(
                "must be networks such as `10.0.0.0/8`, or names such as `corp.example`, which include the names "
                "below them"
            ) from None
        return name


def _matches(entry: str, host: str, address: str) -> bool:
    try:
        network = ipaddress.ip_network(entry)
    except ValueError:
        name = host.lower().rstrip(".")
        return name == entry or name.endswith("." + entry)
    number = ipaddress.ip_address(address)
    return number.version == network.version and number in network
