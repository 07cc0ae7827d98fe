"""Log rotation by size, also while a program writes the log."""

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Rotation:
    """The limits of a log.

    Attributes:
        max_bytes: a longer log is rotated.
        files: number of files of one log, including the current one.
    """

    max_bytes: int = 10 * 2**20
    files: int = 5

    def due(self, log: Path) -> bool:
        """Whether ``log`` is too long."""
        try:
            return log.stat().st_size > self.max_bytes
        except FileNotFoundError:
            return False

    def rotate(self, log: Path) -> None:
        """Make the end of a log that no program writes to ``NAME.log.1``, that one ``NAME.log.2``, and so on."""
        self._shift(log)
        self._keep_end(log)
        log.unlink(missing_ok=True)

    def rotate_open(self, log: Path) -> None:
        """Copy the end of a log that a program is writing to ``NAME.log.1``, and truncate it.

        The program continues to write to the same file, which it must have opened for appending: it needs no signal
        and never waits. Lines written between copy and truncation are lost. On a full disk the whole log is lost,
        because free space is worth more.
        """
        self._shift(log)
        self._keep_end(log)
        os.truncate(log, 0)

    def _keep_end(self, log: Path) -> None:
        """Copy the last ``max_bytes`` of a log to ``NAME.log.1``: a program may write much between two checks."""
        copy = _rotated(log, 1)
        try:
            with log.open("rb") as source, copy.open("wb") as target:
                source.seek(max(0, os.fstat(source.fileno()).st_size - self.max_bytes))
                shutil.copyfileobj(source, target)
        except OSError:
            copy.unlink(missing_ok=True)

    def _shift(self, log: Path) -> None:
        """Free the name ``NAME.log.1``."""
        for number in range(self.files - 1, 1, -1):
            with contextlib.suppress(FileNotFoundError):
                _rotated(log, number - 1).replace(_rotated(log, number))


def _rotated(log: Path, number: int) -> Path:
    return log.with_name(f"{log.name}.{number}")
