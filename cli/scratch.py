"""Scratch folders of commands. What a command that was killed has left is removed by the next one in the same place.

A command holds a lock on a file in its folder. The kernel releases the lock when the process ends, however it ends, so
a lock that is free proves that the folder is left over. As with :mod:`worker.liveness`, it proves so only under the
same kernel, whose identity is part of the name.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from worker.liveness import kernel_id

_PREFIX: Final = ".longlook-scratch-"
_LOCK: Final = "lock"
#: When a folder of another kernel is removed, in seconds: no command runs for so long.
_ABANDONED_SECONDS: Final = 7 * 86_400.0


@contextlib.contextmanager
def folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder in ``parent``, which is removed at the end of the block, and remove those that are left over.

    Raises:
        OSError: there can be no folder in ``parent``.
    """
    remove_left_over(parent)
    made, lock = _made(parent)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        os.close(lock)


def remove_left_over(parent: Path) -> None:
    """Remove the scratch folders in ``parent`` of commands that were killed."""
    for path in parent.glob(f"{_PREFIX}*"):
        if path.is_symlink() or not path.is_dir():
            continue
        with contextlib.suppress(OSError):
            if path.name.rpartition("@")[2] == kernel_id():
                _remove_free(path)
            elif path.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
                shutil.rmtree(path)


def _made(parent: Path) -> tuple[Path, int]:
    """Return a new folder, and its lock."""
    while True:
        made = Path(tempfile.mkdtemp(dir=parent, prefix=_PREFIX, suffix=f"@{kernel_id()}"))
        try:
            lock = os.open(made / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue  # Another command has removed the folder before it had a lock.
        # Some network file systems have no locks: then no command removes folders there.
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_same(lock, made / _LOCK):
            return made, lock
        os.close(lock)


def _remove_free(path: Path) -> None:
    # A folder without a lock is made or removed right now, or was when a command was killed.
    lock = os.open(path / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path)
    finally:
        os.close(lock)


def _is_same(file: int, path: Path) -> bool:
    """Whether ``path`` still names the open file."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
