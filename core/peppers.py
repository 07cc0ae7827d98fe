"""Peppers: the secrets that API keys are hashed with. During a rotation there are several, the newest first."""

import hashlib
import hmac
import secrets
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Self

from core import errors, secret_files
from core.settings import Settings

#: The file in the home directory with the peppers that were generated there, one on each line.
PEPPER_FILE: Final = "pepper"


class Peppers:
    """The peppers of an installation. Thread-safe.

    Args:
        given: the peppers, the newest first. The first hashes new keys, each of them verifies.
    """

    def __init__(self, given: Sequence[bytes]) -> None:
        self._given = tuple(given)
        self._path: Path | None = None
        self._lock = threading.Lock()
        #: What the file was when it was read: its inode, its time, and its size.
        self._seen: tuple[int, int, int] | None = None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the peppers in the settings, else those in the home directory, which a rotation may change.

        Raises:
            core.errors.SettingsError: neither has one, or the file is empty.
        """
        peppers = cls(read(settings))
        if settings.pepper is None:
            peppers._path = settings.home / PEPPER_FILE
        return peppers

    def current(self) -> tuple[bytes, ...]:
        """Return the peppers, the newest first. While their file cannot be read, those of the last time remain."""
        if self._path is None:
            return self._given
        with self._lock:
            try:
                status = self._path.stat()
                seen = (status.st_ino, status.st_mtime_ns, status.st_size)
                if seen != self._seen:
                    # A rotation replaces the file, so a new file is complete.
                    self._given = _in_file(self._path) or self._given
                    self._seen = seen
            except OSError:
                pass
            return self._given


def read(settings: Settings) -> tuple[bytes, ...]:
    """Return the peppers, the newest first: from the settings, else from the home directory.

    Raises:
        core.errors.SettingsError: neither has one, or the file is empty.
    """
    if settings.pepper is not None:
        parts = settings.pepper.get_secret_value().split(",")
        given = tuple(part.strip().encode() for part in parts if part.strip())
        if not given:
            raise errors.SettingsError("LONGLOOK_PEPPER: must contain at least one pepper")
        return given
    path = settings.home / PEPPER_FILE
    try:
        stored = _in_file(path)
    except OSError as error:
        raise errors.SettingsError(
            f"LONGLOOK_PEPPER: not set, and {path} cannot be read; `longlook up` creates it"
        ) from error
    if not stored:
        raise errors.SettingsError(f"LONGLOOK_PEPPER: not set, and {path} is empty")
    return stored


def ensure(settings: Settings) -> tuple[bytes, ...]:
    """Return :func:`read`; if there is no pepper, first generate one in the home directory for its owner only."""
    path = settings.home / PEPPER_FILE
    if settings.pepper is None and not path.exists():
        secret_files.write(path, secrets.token_hex(32) + "\n", replace=False)
    return read(settings)


def identify(pepper: bytes) -> str:
    """Return the id of a pepper, 8 hexadecimal digits, which says nothing about it."""
    return hmac.new(pepper, b"pepper id", hashlib.sha256).hexdigest()[:8]


def add_pepper(settings: Settings) -> None:
    """Add a new pepper before the one in the home directory, which still verifies the keys that it hashed.

    During a rotation, nothing changes: each pepper may be in use.

    Raises:
        core.errors.SettingsError: the environment sets the peppers, or the file cannot be changed.
    """
    _change(
        settings,
        lambda known: known if len(known) > 1 else [secrets.token_hex(32).encode(), *known],
    )


def drop_peppers(settings: Settings) -> None:
    """Drop all peppers but the newest, once no key needs them. Raises as :func:`add_pepper` does."""
    _change(settings, lambda known: known[:1])


def _change(settings: Settings, change: Callable[[list[bytes]], list[bytes]]) -> None:
    if settings.pepper is not None:
        raise errors.SettingsError(
            "LONGLOOK_PEPPER: the environment sets the peppers, so there is no file to change"
        )
    path = settings.home / PEPPER_FILE
    try:
        secret_files.change(
            path, lambda: [pepper.decode() for pepper in change(list(read(settings)))]
        )
    except (OSError, UnicodeDecodeError):
        # Without the cause: its message could have the contents of the file.
        raise errors.SettingsError(f"{path} cannot be changed") from None


def _in_file(path: Path) -> tuple[bytes, ...]:
    return tuple(line.strip() for line in path.read_bytes().splitlines() if line.strip())
