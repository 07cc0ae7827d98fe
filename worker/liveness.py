"""Liveness locks: the workers of one home directory see at once that one of them has died, instead of after its lease.

A worker holds a lock on a file with its id in the name. The kernel releases the lock when the process ends, however
it ends, so a lock that is free proves that its worker is dead. Process ids prove less: they are used again.

It proves so only to workers under the same kernel. On a network file system without locks of its own, each kernel
knows only its own locks, and two hosts may have the same name. So the name of a file also has the identity of the
kernel.
"""

import contextlib
import fcntl
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import structlog

_log = structlog.get_logger(__name__)

#: New at each start of a kernel, and the same in all containers on it. Linux only.
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
#: When the file of a worker under another kernel is removed, in seconds: that kernel probably does not run any more.
_ABANDONED_SECONDS = 7 * 86_400.0
#: The folder of the files in the home directory. Workers take locks only if it exists: ``longlook up`` creates it.
FOLDER = "workers"


class LivenessLock:
    """The lock of one worker, and the view of those of others.

    Args:
        folder: where the files are; it may be on a network file system.
        owner: the worker's id, which begins with the name of its host and a colon.
        kernel: see :func:`kernel_id`.
        lock: does what ``fcntl.flock`` does.
    """

    def __init__(
        self,
        folder: Path,
        *,
        owner: str,
        kernel: str,
        lock: Callable[[int, int], object] = fcntl.flock,
    ) -> None:
        self._folder = folder
        self._owner = owner
        self._kernel = kernel
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

        An interrupted call is repeated by the next worker, so ``end`` must bear repetition. Old files of workers under
        other kernels are removed without a call: those workers may live, and only lose the use of their locks.
        """
        for path in self._files():
            owner, _, kernel = path.name.rpartition("@")
            if kernel != self._kernel:
                _remove_abandoned(path)
                continue
            if owner.partition(":")[0] != self._owner.partition(":")[0] or owner == self._owner:
                continue
            with contextlib.suppress(OSError):
                file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                try:
                    if self._is_free(file) and _is_same(file, path) and end(owner):
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

    def _files(self) -> list[Path]:
        try:
            return sorted(self._folder.iterdir())
        except OSError:
            return []

    def _is_free(self, file: int) -> bool:
        """Take the lock of an open file, unless another process holds it; return whether it is taken."""
        try:
            self._lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    @property
    def _path(self) -> Path:
        return self._folder / f"{self._owner}@{self._kernel}"


def kernel_id() -> str:
    """Return the identity of the running kernel; where the system has none, that of the machine's network interface."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return f"{uuid.getnode():012x}"


def _remove_abandoned(path: Path) -> None:
    with contextlib.suppress(OSError):
        if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
            path.unlink()


def _is_same(file: int, path: Path) -> bool:
    """Whether ``path`` still names the open file."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
