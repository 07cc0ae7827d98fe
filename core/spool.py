"""Keeps the bytes of requests: small ones in memory, large ones in files of a folder on a disk.

The folder is bounded in sum, and parties share it by the rule of :mod:`core.shares`: accounts, by their ids, and
addresses of clients whose account is not known yet, as text. Its files have no names, so the end of a process leaves
none behind. They are read through their descriptors, by other processes as well.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import mmap
import os
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Self

from core import errors
from core.shares import has_share

if TYPE_CHECKING:
    from core.database_faults import DiskFull
    from core.settings import Settings

#: Content up to this size stays in memory.
IN_MEMORY_BYTES: Final = 2**18
#: Bytes per read of a whole file.
_PART: Final = 2**18
_RETRY_SECONDS: Final = 5
_DISK_RETRY_SECONDS: Final = 60
#: How long a look at the free space of the disk is used.
_LOOK_SECONDS: Final = 1.0
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE})

#: Content for :mod:`re` and slices: bytes, or a file that is mapped into memory.
Buffer = bytes | mmap.mmap


class SpooledFile:
    """Content that is written once, from its start to its end, and then read. Not thread-safe.

    Args:
        spool: the folder for large content; None: all of it stays in memory.
        party: the account or address that the content counts for.
    """

    def __init__(self, spool: Spool | None = None, *, party: Hashable = None) -> None:
        self.size = 0
        self._spool = spool
        self._party = party
        self._memory: io.BytesIO | None = io.BytesIO()
        self._file: IO[bytes] | None = None
        self._held = 0
        self._digest: str | None = None

    @classmethod
    def of(cls, data: bytes) -> SpooledFile:
        """Return ``data`` as content in memory."""
        file = cls()
        file.write(data)
        return file

    @property
    def in_memory(self) -> int:
        """The number of bytes in memory."""
        return self.size if self._file is None else 0

    def write(self, data: bytes) -> int:
        """Append ``data``; return its size.

        Raises:
            core.errors.Overloaded: the party exceeds its share of the folder.
            core.database_faults.DiskFull: the disk is full, or below its floor.
        """
        if self._memory is not None:
            if self._spool is None or self.size + len(data) <= IN_MEMORY_BYTES:
                self._memory.write(data)
                self.size += len(data)
                return len(data)
            self._move(self._spool)
        self._append(data)
        self.size += len(data)
        return len(data)

    def pieces(self) -> Iterator[bytes]:
        """Yield the content in pieces."""
        if self._memory is not None:
            yield self._memory.getvalue()
            return
        position = 0
        while piece := self._pread(_PART, position):
            position += len(piece)
            yield piece

    def head(self, size: int) -> bytes:
        """Return the first ``size`` bytes."""
        if self._memory is not None:
            return self._memory.getvalue()[:size]
        return self._pread(size, 0)

    def getvalue(self) -> bytes:
        """Return the content."""
        return b"".join(self.pieces())

    def sha256(self) -> str:
        """Return the SHA-256 of the content in hex digits."""
        if self._digest is None:
            digest = hashlib.sha256()
            for piece in self.pieces():
                digest.update(piece)
            self._digest = digest.hexdigest()
        return self._digest

    @contextlib.contextmanager
    def view(self) -> Iterator[Buffer]:
        """Yield the content as a buffer, which is valid during the block. A file is not copied."""
        if self._file is None:
            yield self.getvalue()
            return
        with mmap.mmap(self._file.fileno(), self.size, access=mmap.ACCESS_READ) as view:
            yield view

    @contextlib.contextmanager
    def reader(self) -> Iterator[int | None]:
        """Yield a descriptor that can only read the content, for another process; None: it is in memory."""
        if self._file is None:
            yield None
            return
        try:
            descriptor = os.open(f"/proc/self/fd/{self._file.fileno()}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            yield None  # A system without this file system.
            return
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Free memory and disk. Idempotent."""
        self._memory, file, self._file = None, self._file, None
        if file is not None:
            file.close()
        if self._spool is not None and self._held:
            self._spool.give_back(self._party, self._held)
        self._held = 0

    def _move(self, spool: Spool) -> None:
        """Move the content from memory to a file."""
        assert self._memory is not None  # noqa: S101 - the caller checks it
        data = self._memory.getvalue()
        self._file = spool.make()
        self._memory = None
        self._append(data)

    def _append(self, data: bytes) -> None:
        if self._file is None or self._spool is None:
            raise ValueError("the file is closed")
        self._spool.take(self._party, len(data))
        self._held += len(data)
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            if error.errno in _NO_SPACE:
                raise _disk_full() from error
            raise

    def _pread(self, size: int, position: int) -> bytes:
        if self._file is None:
            raise ValueError("the file is closed")
        return os.pread(self._file.fileno(), size, position)


class Spool:
    """A bounded folder for large content. Thread-safe.

    All addresses together get three quarters of it, so that many of them cannot lock out accounts.

    Args:
        folder: created when it is needed.
        total: maximum bytes of all files together.
        floor: free bytes of the disk below which nothing more is written.
        timer: a monotonic clock, in seconds.
    """

    def __init__(
        self,
        folder: Path,
        *,
        total: int,
        floor: int = 0,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._total = total
        self._floor = floor
        self._timer = timer
        self._lock = threading.Lock()
        self._free = total
        self._free_to_addresses = total - total // 4
        self._held: Counter[Hashable] = Counter()
        self._due = 0.0
        self._disk_free = 0

    @classmethod
    def of(cls, settings: Settings, *, timer: Callable[[], float] = time.monotonic) -> Self:
        """Return the spool of a process with these settings."""
        return cls(
            settings.home / "spool",
            total=settings.spool_mb * 2**20,
            floor=settings.disk_floor_mb * 2**20,
            timer=timer,
        )

    @property
    def held(self) -> int:
        """The bytes of all files."""
        return self._total - self._free

    def open(self, party: Hashable) -> SpooledFile:
        """Return new, empty content that counts for ``party``."""
        return SpooledFile(self, party=party)

    def clear(self) -> None:
        """Make the folder, and remove what earlier processes left in it on a system without nameless files.

        Raises:
            core.errors.SettingsError: nothing can be written there.
        """
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for left in self._folder.iterdir():
                with contextlib.suppress(OSError):
                    left.unlink()
            self.make().close()
        except OSError as error:
            raise errors.SettingsError(
                f"LONGLOOK_HOME: {self._folder} must be a folder for large request bodies; it cannot be written: "
                f"{error.strerror}"
            ) from None

    def check(self, party: Hashable, size: int) -> None:
        """Return if content of ``size`` bytes would fit now.

        Raises:
            core.errors.Overloaded: it exceeds the party's share.
            core.database_faults.DiskFull: the disk would be below its floor.
        """
        with self._lock:
            self._require(party, size)
            self._require_disk(size)

    def take(self, party: Hashable, size: int) -> None:
        """Count ``size`` more bytes for ``party``; raises as :meth:`check` does."""
        with self._lock:
            self._require(party, size)
            self._require_disk(size)
            self._move(party, size)
            # Until the next look, the free space is what is left of the last one.
            self._disk_free -= size

    def give_back(self, party: Hashable, size: int) -> None:
        """Release ``size`` bytes of ``party``."""
        with self._lock:
            self._move(party, -size)
            if not self._held[party]:
                del self._held[party]

    def make(self) -> IO[bytes]:
        """Return a new file without a name.

        Raises:
            core.errors.Overloaded: the process has too many open files.
            core.database_faults.DiskFull: the disk is full.
        """
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return tempfile.TemporaryFile(dir=self._folder, buffering=0)
        except OSError as error:
            if error.errno in _NO_SPACE:
                raise _disk_full() from error
            if error.errno in _NO_FILES:
                raise errors.Overloaded(
                    "Too many large requests are in flight: the process has no free file.",
                    retry_after=_RETRY_SECONDS,
                ) from error
            raise

    def _move(self, party: Hashable, size: int) -> None:
        self._free -= size
        if isinstance(party, str):
            self._free_to_addresses -= size
        self._held[party] += size

    def _require(self, party: Hashable, size: int) -> None:
        free = min(self._free, self._free_to_addresses) if isinstance(party, str) else self._free
        if not has_share(self._held[party], free=free, amount=size):
            raise errors.Overloaded(
                f"Large request bodies share {self._total // 2**20:,} MiB of disk space, of which each account or "
                "address has a share. This request exceeds its share.",
                retry_after=_RETRY_SECONDS,
            )

    def _require_disk(self, size: int) -> None:
        if not self._floor:
            return
        now = self._timer()
        if now >= self._due:
            self._due = now + _LOOK_SECONDS
            existing = next(path for path in (self._folder, *self._folder.parents) if path.exists())
            self._disk_free = shutil.disk_usage(existing).free
        if self._disk_free - size < self._floor:
            raise _disk_full()


def _disk_full() -> DiskFull:
    # Processes that decode images import this module. They need no SQLAlchemy, whose import takes longer than theirs.
    from core.database_faults import DiskFull  # noqa: PLC0415 - see above

    return DiskFull(
        "There is too little free disk space to accept large requests.",
        retry_after=_DISK_RETRY_SECONDS,
    )
