"""The home directory: all state of ``longlook up``, locked by one supervisor at a time."""

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
from worker import liveness

_LOCK: Final = "lock"
#: Longest path of a Unix socket on Linux in bytes, without the final zero byte. Source: unix(7), sun_path.
_MAX_SOCKET_PATH: Final = 107
_SOCKET: Final = "redis.sock"
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def prepare(path: Path) -> Path:
    """Create the home directory, accessible to its owner only, and return its absolute path.

    Raises:
        core.errors.LaunchError: it cannot be created or written to.
    """
    home = path.expanduser().absolute()
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in ("logs", liveness.FOLDER):
            (home / folder).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise errors.LaunchError(
            f"The home directory {home} cannot be created: {error.strerror}. Choose another with --home."
        ) from error
    if not os.access(home, os.W_OK | os.X_OK):
        raise errors.LaunchError(
            f"The home directory {home} is not writable. Choose another with --home."
        )
    return home


@contextlib.contextmanager
def locked(home: Path) -> Iterator[None]:
    """Lock the home directory against other supervisors; the lock ends with this process at the latest.

    Raises:
        core.errors.LaunchError: another process holds the lock; the message names it.
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
            f"Only {free} MiB are free at {home}; the minimum is {floor_mb} MiB. Free some "
            "space, choose another directory with --home, or lower LONGLOOK_DISK_FLOOR_MB."
        )


@contextlib.contextmanager
def reporting_full_disk(home: Path) -> Iterator[None]:
    """Report a disk that fills up inside the block.

    Raises:
        core.errors.LaunchError: a file could not be written because the disk or the quota is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise errors.LaunchError(
            f"No space is left at {home}: {error.strerror}. Free some, or choose another directory "
            "with --home."
        ) from error


@contextlib.contextmanager
def socket(home: Path) -> Iterator[Path]:
    """Yield a path for a Unix socket that is short enough; its private folder is removed at the end."""
    folder = home / "run"
    if len(os.fsencode(folder / _SOCKET)) > _MAX_SOCKET_PATH:
        folder = Path(tempfile.mkdtemp(prefix="longlook-", dir="/tmp"))
    folder.mkdir(mode=0o700, exist_ok=True)
    try:
        yield folder / _SOCKET
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def log(home: Path, name: str) -> Path:
    """Return the path of a program's log; a long log of earlier runs becomes ``NAME.log.1``."""
    path = home / "logs" / f"{name}.log"
    rotation = Rotation()
    if rotation.due(path):
        rotation.rotate(path)
    return path
