"""Logs that stay small: a long one is put aside, also while its program writes it, and the oldest goes."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Rotation:
    """How much of a log is kept.

    Attributes:
        longest: bytes; a log that is longer is put aside.
        files: of one log, the one that is written included.
    """

    longest: int = 10 * 2**20
    files: int = 5

    def wants(self, log: Path) -> bool:
        """Whether ``log`` is to be put aside."""
        try:
            return log.stat().st_size > self.longest
        except FileNotFoundError:
            return False

    def put_aside(self, log: Path) -> None:
        """Put a log aside that nobody writes: as ``NAME.log.1``, what has that name as ``NAME.log.2``, and so on."""
        self._make_way(log)
        with contextlib.suppress(FileNotFoundError):
            log.replace(_aside(log, 1))

    def put_aside_written(self, log: Path) -> None:
        """Put a log aside that a program is writing, and empty it.

        The program goes on with the same file, which it must have opened for appending: it needs no signal, and is
        never kept waiting. A line that it writes between the copy and the emptying is lost. So is all when the disk
        is full: then the room is worth more.
        """
        self._make_way(log)
        copy = _aside(log, 1)
        try:
            shutil.copyfile(log, copy)
        except OSError:
            copy.unlink(missing_ok=True)
        os.truncate(log, 0)

    def _make_way(self, log: Path) -> None:
        """Free the first of the names of logs that were put aside."""
        for number in range(self.files - 1, 1, -1):
            with contextlib.suppress(FileNotFoundError):
                _aside(log, number - 1).replace(_aside(log, number))


def _aside(log: Path, number: int) -> Path:
    return log.with_name(f"{log.name}.{number}")
