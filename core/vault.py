"""What secrets are encrypted with at rest: Fernet, by the key of the settings; by several while it is changed."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import os
import secrets
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Self

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from core import errors
from core.settings import Settings

#: The file in the home directory that keeps a key that was made there.
VAULT_FILE: Final = "vault"


class Vault:
    """Seals and opens secrets; may be used by any thread.

    Args:
        keys: any texts, the newest first; or what returns them, asked each time, so that a key that is added
            while a process runs is used from then on. The first one seals, each of them opens.
    """

    def __init__(self, keys: Sequence[str] | Callable[[], Sequence[str]]) -> None:
        self._keys: Callable[[], Sequence[str]] = keys if callable(keys) else lambda: keys

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the vault of an installation: the keys that are set, else the one in the home directory.

        That one is made if need be.

        Raises:
            core.errors.VaultError: there is none, and none can be made.
        """
        if settings.vault_key is not None:
            text = settings.vault_key.get_secret_value()
            keys = [part.strip() for part in text.split(",") if part.strip()]
            if not keys:
                raise errors.VaultError("LONGLOOK_VAULT_KEY: there is no key in it")
            return cls(keys)
        path = settings.home / VAULT_FILE
        try:
            if not path.exists():
                _make(path)
            _read(path)
            return cls(functools.partial(_read, path))
        except OSError as error:
            raise errors.VaultError(
                f"LONGLOOK_VAULT_KEY: not set, and {path} cannot be read or made"
            ) from error

    def seal(self, secret: str) -> bytes:
        """Return ``secret`` encrypted. Raises :class:`core.errors.VaultError`: there is no key now."""
        return self._box().encrypt(secret.encode())

    def open(self, sealed: bytes) -> str:
        """Return what was sealed. Raises :class:`core.errors.VaultError`: by none of these keys."""
        try:
            return self._box().decrypt(sealed).decode()
        except InvalidToken as error:
            raise errors.VaultError(
                "LONGLOOK_VAULT_KEY: a secret was encrypted by a key that is not among these"
            ) from error

    def _box(self) -> MultiFernet:
        """Return what seals and opens now. The file of the keys may have gone since the process began."""
        try:
            keys = tuple(self._keys())
        except OSError as error:
            raise errors.VaultError("LONGLOOK_VAULT_KEY: the keys cannot be read") from error
        if not keys:
            raise errors.VaultError("LONGLOOK_VAULT_KEY: there is no key")
        return _fernet(keys)

    def seal_again(self, sealed: bytes) -> bytes:
        """Return what was sealed, sealed by the newest key."""
        return self.seal(self.open(sealed))


def add_key(settings: Settings) -> None:
    """Put a new key in front of those in the home directory, which go on opening what they have sealed.

    Raises:
        core.errors.SettingsError: the keys come from the environment, or the file cannot be changed.
    """
    _change(settings, lambda keys: [secrets.token_hex(32), *keys])


def drop_keys(settings: Settings) -> None:
    """Drop what is older than the newest key and the one before it: all has been sealed again.

    The one before stays for whoever was about to seal with it. Raises as :func:`add_key` does.
    """
    _change(settings, lambda keys: keys[:2])


def _change(settings: Settings, change: Callable[[list[str]], list[str]]) -> None:
    if settings.vault_key is not None:
        raise errors.SettingsError("LONGLOOK_VAULT_KEY: the keys are set there, not in a file")
    path = settings.home / VAULT_FILE
    try:
        draft = _draft(path, "".join(f"{key}\n" for key in change(_read(path))))
        draft.replace(path)
    except OSError as error:
        raise errors.SettingsError(f"{path} cannot be changed") from error


@functools.lru_cache(maxsize=8)
def _fernet(keys: tuple[str, ...]) -> MultiFernet:
    return MultiFernet([Fernet(_key(key)) for key in keys])


def _read(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except UnicodeDecodeError:
        # Not from it: that error holds what the file holds.
        raise errors.VaultError(f"LONGLOOK_VAULT_KEY: not set, and {path} is no text") from None


def _key(text: str) -> bytes:
    """Return a text as a Fernet key. It has to be random itself, as 32 bytes of it in hex are."""
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())


def _make(path: Path) -> None:
    draft = _draft(path, secrets.token_hex(32) + "\n")
    # A link, unlike a rename, leaves the file alone that another process has just made.
    with contextlib.suppress(FileExistsError):
        path.hardlink_to(draft)
    draft.unlink()


def _draft(path: Path, text: str) -> Path:
    """Write a file beside ``path``, for its owner only."""
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return Path(draft)
