"""The limits of the server, computed from the settings."""

from __future__ import annotations

import contextlib
import ipaddress
import resource
from dataclasses import dataclass
from typing import Final

from api.serving.heads import Network
from core.settings import Settings

#: File descriptors for everything else: databases, Redis, decoders, downloads.
OTHER_FILES: Final = 512
_FEWEST_CONNECTIONS: Final = 64
#: The maximum wait of a request for a thread.
_QUEUE_SECONDS: Final = 30.0
#: How long a client may take to close after its last response.
_LINGER_SECONDS: Final = 2.0
#: Maximum bytes of a body with a method that needs none.
_NEEDLESS_BYTES: Final = 65536
#: The requests that upload files, which have a limit of their own.
FILES: Final = ("POST", "/v1/files")


@dataclass(frozen=True)
class ServerLimits:
    """The limits of a server. Times are in seconds, sizes in bytes.

    Attributes:
        heads: maximum number of connections without a complete head.
        idle: of connections between two requests.
        transfers: of requests whose bodies are being received, and of unsent responses.
        waiting: of complete requests that wait for a thread.
        lingering: of answered connections that the client has not closed.
        threads: of running requests, without open streams and waits.
        memory: of bodies and unsent responses together.
        body: of one request body.
        file_body: of a request body with a file, at :data:`FILES`.
        needless_body: of a request body with a method that needs none.
        rate: minimum bytes per second that a client must send or accept; each byte extends its time accordingly.
        head_seconds: for a head, and the maximum time in reserve while a client sends a body.
        body_seconds: for a whole body.
        idle_seconds: between two requests.
        queue_seconds: waiting for a thread.
        write_seconds: the maximum time in reserve while a client accepts a response.
        linger_seconds: for closing.
        trusted: the proxies whose ``X-Forwarded-For`` and ``X-Forwarded-Prefix`` are trusted.
        prefix: the start of the path of requests that a proxy forwards unchanged.
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
    prefix: str = ""
    file_body: int = 0

    def of_body(self, method: str, path: str) -> int:
        """Return the maximum bytes of the body of a request to ``path`` with a method that may have one."""
        return max(self.body, self.file_body) if (method, path) == FILES else self.body

    @classmethod
    def of(
        cls, settings: Settings, *, connections: int, idle_seconds: float, prefix: str = ""
    ) -> ServerLimits:
        """Return the limits for at most ``connections``, including those of running requests."""
        others = max(_FEWEST_CONNECTIONS, connections - settings.api_threads - settings.max_streams)
        return cls(
            heads=others // 4,
            idle=others // 4,
            transfers=others // 4,
            # All streams may be requested at once, as after a restart.
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
            prefix=prefix,
            file_body=settings.file_body_bytes,
        )


def connections(wanted: int) -> int:
    """Raise the limit of open files for ``wanted`` connections; return the number of connections it allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    return min(wanted, max(_FEWEST_CONNECTIONS, soft - OTHER_FILES))
