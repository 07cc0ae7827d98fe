"""Encrypts secrets at rest: Fernet with the key of the settings, or with several keys during a rotation."""

import base64
import functools
import hashlib
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Self

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from core import errors, secret_files
from core.settings import Settings

#: The file in the home directory that keeps a generated key.
VAULT_FILE: Final = "vault"


class Vault:
    """Seals and opens secrets. Thread-safe.

    Args:
        keys: random texts, the newest first; or a function that returns them, called each time, so that a new key
            takes effect in running processes. The first key seals, each of them opens.
    """

    def __init__(self, keys: Sequence[str] | Callable[[], Sequence[str]]) -> None:
        self._keys: Callable[[], Sequence[str]] = keys if callable(keys) else lambda: keys

    @classmethod
    def of(cls, settings: Settings, *, is_unused: Callable[[], bool] | None = None) -> Self:
        """Return the vault of an installation: the keys in the settings, else the key in the home directory.

        Args:
            settings: the keys, or the home directory.
            is_unused: returns whether nothing is sealed yet. A missing key is generated only then: another key than the
                one that sealed a secret would lose it. It is called at the first use. None: nothing is sealed, and a
                missing key is generated at once.

        Raises:
            core.errors.VaultError: no key exists, and none can be generated.
        """
        if settings.vault_key is not None:
            text = settings.vault_key.get_secret_value()
            keys = [part.strip() for part in text.split(",") if part.strip()]
            if not keys:
                raise errors.VaultError("LONGLOOK_VAULT_KEY: must contain at least one key")
            return cls(keys)
        path = settings.home / VAULT_FILE
        if is_unused is None:
            _read_or_create(path, lambda: True)
        return cls(functools.partial(_read_or_create, path, is_unused or (lambda: False)))

    def seal(self, secret: str) -> bytes:
        """Return ``secret`` encrypted. Raises :class:`core.errors.VaultError` without a key."""
        return self._box().encrypt(secret.encode())

    def open(self, sealed: bytes) -> str:
        """Return the secret in ``sealed``. Raises :class:`core.errors.VaultError` when no key opens it."""
        try:
            return self._box().decrypt(sealed).decode()
        except InvalidToken as error:
            raise errors.VaultError(
                "LONGLOOK_VAULT_KEY: none of the keys decrypts a stored secret"
            ) from error

    def _box(self) -> MultiFernet:
        """Return the current cipher. The file of the keys may have been deleted since the process started."""
        try:
            keys = tuple(self._keys())
        except OSError as error:
            raise errors.VaultError("LONGLOOK_VAULT_KEY: the keys cannot be read") from error
        if not keys:
            raise errors.VaultError("LONGLOOK_VAULT_KEY: no key exists")
        return _fernet(keys)

    def seal_again(self, sealed: bytes) -> bytes:
        """Return the secret in ``sealed``, sealed by the newest key."""
        return self.seal(self.open(sealed))


def add_key(settings: Settings) -> None:
    """Add a new key before those in the home directory, which still open the secrets that they sealed.

    Raises:
        core.errors.SettingsError: the keys come from the environment, or the file cannot be changed.
    """
    _change(settings, lambda keys: [secrets.token_hex(32), *keys])


def drop_keys(settings: Settings) -> None:
    """Drop all keys but the newest two, once every secret has been sealed again.

    The older of the two stays for processes that are about to seal with it. Raises as :func:`add_key` does.
    """
    _change(settings, lambda keys: keys[:2])


def _change(settings: Settings, change: Callable[[list[str]], list[str]]) -> None:
    if settings.vault_key is not None:
        raise errors.SettingsError(
            "LONGLOOK_VAULT_KEY: the environment sets the keys, so there is no file to change"
        )
    path = settings.home / VAULT_FILE
    try:
        secret_files.change(path, lambda: change(_read(path)))
    except OSError as error:
        raise errors.SettingsError(f"{path} cannot be changed") from error


@functools.lru_cache(maxsize=8)
def _fernet(keys: tuple[str, ...]) -> MultiFernet:
    return MultiFernet([Fernet(_key(key)) for key in keys])


def _read_or_create(path: Path, is_unused: Callable[[], bool]) -> list[str]:
    try:
        if not path.exists():
            if not is_unused():
                raise errors.VaultError(
                    f"The vault of this database's secrets is missing: restore {path}, or set LONGLOOK_VAULT_KEY."
                )
            secret_files.write(path, secrets.token_hex(32) + "\n", replace=False)
        return _read(path)
    except OSError as error:
        raise errors.VaultError(
            f"LONGLOOK_VAULT_KEY: not set, and {path} cannot be read or created"
        ) from error


def _read(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except UnicodeDecodeError:
        # Without the cause: its message holds the contents of the file.
        raise errors.VaultError(
            f"LONGLOOK_VAULT_KEY: not set, and {path} is not a text file"
        ) from None


def _key(text: str) -> bytes:
    """Return a text as a Fernet key. The text must be random, for example 32 random bytes in hex."""
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
