"""The home directory: all state of ``longlook up``, held by one supervisor at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cli.launch.rotation import Rotation
from core import errors

_LOCK: Final = "lock"
#: The longest path of a unix socket on Linux, without its closing zero byte. Source: unix(7), sun_path.
_LONGEST_SOCKET: Final = 107
_SOCKET: Final = "redis.sock"
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def prepare(path: Path) -> Path:
    """Make the home directory, for its owner only, and return its full path.

    Raises:
        core.errors.LaunchError: it cannot be made or written to.
    """
    home = path.expanduser().absolute()
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        (home / "logs").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise errors.LaunchError(
            f"The home directory {home} cannot be made: {error.strerror}. Choose another with --home."
        ) from error
    if not os.access(home, os.W_OK | os.X_OK):
        raise errors.LaunchError(
            f"The home directory {home} cannot be written to. Choose another with --home."
        )
    return home


@contextlib.contextmanager
def held(home: Path) -> Iterator[None]:
    """Hold the home directory against a second supervisor; the system lets go when this process ends.

    Raises:
        core.errors.LaunchError: another process holds it; the message names it.
    """
    with (home / _LOCK).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise errors.LaunchError(
                f"Another `longlook up` (process {holder}) uses {home}. Stop it, or choose another "
                "directory with --home."
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def check_space(home: Path, *, floor_mb: int) -> None:
    """Refuse to start on a disk that is nearly full.

    Raises:
        core.errors.LaunchError: less than ``floor_mb`` MiB are free.
    """
    free = shutil.disk_usage(home).free // 2**20
    if free < floor_mb:
        raise errors.LaunchError(
            f"Only {free} MiB are free at {home}, and jobs are accepted from {floor_mb} MiB on. Free "
            "some, choose another directory with --home, or lower LONGLOOK_DISK_FLOOR_MB."
        )


@contextlib.contextmanager
def room(home: Path) -> Iterator[None]:
    """Tell of a disk that fills up inside of the block.

    Raises:
        core.errors.LaunchError: there is no room for a file any more.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise errors.LaunchError(
            f"There is no room left at {home}: {error.strerror}. Free some, or choose another directory "
            "with --home."
        ) from error


@contextlib.contextmanager
def socket(home: Path) -> Iterator[Path]:
    """Yield a path for a unix socket that is short enough; its folder is private and goes at the end."""
    folder = home / "run"
    if len(os.fsencode(folder / _SOCKET)) > _LONGEST_SOCKET:
        folder = Path(tempfile.mkdtemp(prefix="longlook-", dir="/tmp"))
    folder.mkdir(mode=0o700, exist_ok=True)
    try:
        yield folder / _SOCKET
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def log(home: Path, name: str) -> Path:
    """Return where a program's log goes; a long one of earlier runs is put aside as ``NAME.log.1``."""
    path = home / "logs" / f"{name}.log"
    rotation = Rotation()
    if rotation.wants(path):
        rotation.put_aside(path)
    return path


def write_secret(path: Path, secret: str) -> None:
    """Write a secret that only its owner can read, whole or not at all."""
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with os.fdopen(handle, "w") as file:
        file.write(secret + "\n")
        file.flush()
        os.fsync(handle)  # It must not be empty after a power cut: the database remembers its key.
    Path(draft).replace(path)
