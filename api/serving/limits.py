"""How much of everything the server may hold, and for how long, worked out from the settings."""

from __future__ import annotations

import contextlib
import ipaddress
import resource
from dataclasses import dataclass
from typing import Final

from api.serving.heads import Network
from core.settings import Settings

#: File descriptors for everything else: databases, Redis, decoders, fetches.
_OTHER_FILES: Final = 512
_FEWEST_CONNECTIONS: Final = 64
#: A request that has waited for a thread for so long is refused.
_QUEUE_SECONDS: Final = 30.0
#: How long a client may take to close after its last answer.
_LINGER_SECONDS: Final = 2.0
#: Bytes of a body that comes with a method that needs none.
_NEEDLESS_BYTES: Final = 65536


@dataclass(frozen=True)
class ServerLimits:
    """The limits of a server. Times are in seconds, sizes in bytes.

    Attributes:
        heads: connections without a complete head.
        idle: connections between two requests.
        transfers: requests whose bodies are being received, and answers that clients have not taken.
        waiting: complete requests that wait for a thread.
        lingering: connections that are answered and that the client has not closed.
        threads: requests that run at once, beside those that are held open.
        memory: bodies and unsent answers together.
        body: of one body.
        needless_body: of a body with a method that needs none.
        rate: bytes a second that a client has to send or to take; each byte gives it more time by that.
        head_seconds: for a head, and what a client may have in hand while it sends a body.
        body_seconds: for a whole body.
        idle_seconds: between two requests.
        queue_seconds: waiting for a thread.
        write_seconds: what a client may have in hand while it takes an answer.
        linger_seconds: for closing.
        trusted: proxies whose ``X-Forwarded-For`` is believed.
    """

    heads: int
    idle: int
    transfers: int
    waiting: int
    lingering: int
    threads: int
    memory: int
    body: int
    needless_body: int
    rate: int
    head_seconds: float
    body_seconds: float
    idle_seconds: float
    queue_seconds: float
    write_seconds: float
    linger_seconds: float
    trusted: tuple[Network, ...]

    @classmethod
    def of(cls, settings: Settings, *, connections: int, idle_seconds: float) -> ServerLimits:
        """Return the limits for ``connections`` at most, those that threads have included."""
        others = max(_FEWEST_CONNECTIONS, connections - settings.api_threads - settings.max_streams)
        return cls(
            heads=others // 4,
            idle=others // 4,
            transfers=others // 4,
            # All streams may be asked for at once, as after a restart.
            waiting=others // 8 + settings.max_streams,
            lingering=others // 8,
            threads=settings.api_threads,
            memory=settings.bodies_mb * 2**20,
            body=settings.max_body_mb * 2**20,
            needless_body=_NEEDLESS_BYTES,
            rate=settings.body_bytes_per_second,
            head_seconds=settings.head_seconds,
            body_seconds=settings.body_seconds,
            idle_seconds=idle_seconds,
            queue_seconds=_QUEUE_SECONDS,
            write_seconds=settings.write_seconds,
            linger_seconds=_LINGER_SECONDS,
            trusted=tuple(map(ipaddress.ip_network, settings.trusted_proxies)),
        )


def connections(wanted: int) -> int:
    """Raise this process's limit of open files so that it allows ``wanted`` connections; return how many it allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    return min(wanted, max(_FEWEST_CONNECTIONS, soft - _OTHER_FILES))
