"""Liveness locks: the workers of one home directory see at once that one of them has died, instead of after its lease.

A worker holds a lock on a file that has its id as its name. The kernel releases the lock when the process ends, however
it ends, so a lock that is free proves that its worker is dead. Process ids prove less: they are used again.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import structlog

_log = structlog.get_logger(__name__)

#: The folder of the files in the home directory. Workers take locks only if it exists: ``longlook up`` creates it.
FOLDER = "workers"


class LivenessLock:
    """The lock of one worker, and the view of those of others.

    Args:
        folder: where the files are. All workers with files in it that name this host must run on this host.
        owner: the worker's id, which begins with the name of its host and a colon.
        lock: does what ``fcntl.flock`` does.
    """

    def __init__(
        self, folder: Path, *, owner: str, lock: Callable[[int, int], object] = fcntl.flock
    ) -> None:
        self._folder = folder
        self._owner = owner
        self._lock = lock
        self._held: int | None = None

    @property
    def held(self) -> bool:
        """Whether this worker has its lock."""
        return self._held is not None

    def acquire(self) -> None:
        """Take the lock of this worker, if the folder exists, can be written to, and has locks.

        Without the lock the worker runs, too; its jobs then wait for the end of their leases when it dies.
        """
        try:
            while self._held is None and self._folder.is_dir():
                self._held = self._taken()
        except OSError as error:
            # Some network file systems have no locks. A file without a lock would say that this worker is dead.
            _log.warning("liveness_lock_failed", error=error.strerror)
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _taken(self) -> int | None:
        """Return this worker's file, locked; None if another worker has removed it meanwhile."""
        file = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            # Another worker may have found the new file before its lock. That one removes the file and goes on.
            self._lock(file, fcntl.LOCK_EX)
            if _is_same(file, self._path):
                return file
        except OSError:
            os.close(file)
            raise
        os.close(file)
        return None

    def for_each_dead(self, end: Callable[[str], bool]) -> None:
        """Call ``end`` with the id of each dead worker of this host; its file is removed when ``end`` returns True.

        An interrupted call is repeated by the next worker, so ``end`` must bear repetition.
        """
        for path in self._others():
            with contextlib.suppress(OSError):
                file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                try:
                    if self._is_free(file) and _is_same(file, path) and end(path.name):
                        path.unlink()
                finally:
                    os.close(file)

    def release(self) -> None:
        """Remove the file and release the lock: this worker holds no job any more."""
        if self._held is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()
            os.close(self._held)
            self._held = None

    def _others(self) -> list[Path]:
        """Return the files of the other workers of this host. Locks say nothing about another host."""
        host = self._owner.partition(":")[0]
        try:
            paths = sorted(self._folder.iterdir())
        except OSError:
            return []
        return [path for path in paths if path.name.startswith(f"{host}:") and path != self._path]

    def _is_free(self, file: int) -> bool:
        """Take the lock of an open file, unless another process holds it; return whether it is taken."""
        try:
            self._lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    @property
    def _path(self) -> Path:
        return self._folder / self._owner


def _is_same(file: int, path: Path) -> bool:
    """Whether ``path`` still names the open file."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
