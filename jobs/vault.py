"""What secrets are encrypted with at rest: Fernet, by the key of the settings; by several while it is changed."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from jobs import errors
from jobs.settings import Settings

#: The file in the home directory that keeps a key that was made there.
VAULT_FILE: Final = "vault"


class Vault:
    """Seals and opens secrets; may be used by any thread.

    Args:
        keys: any texts, the newest first. The first one seals, each of them opens.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._fernet = MultiFernet([Fernet(_key(key)) for key in keys])

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the vault of an installation: the keys that are set, else the one in the home directory.

        That one is made if need be.

        Raises:
            jobs.errors.SettingsError: there is none, and none can be made.
        """
        if settings.vault_key is not None:
            text = settings.vault_key.get_secret_value()
            keys = [part.strip() for part in text.split(",") if part.strip()]
            if not keys:
                raise errors.SettingsError("LONGLOOK_VAULT_KEY: there is no key in it")
            return cls(keys)
        path = settings.home / VAULT_FILE
        try:
            if not path.exists():
                _make(path)
            return cls([path.read_text().strip()])
        except OSError as error:
            raise errors.SettingsError(
                f"LONGLOOK_VAULT_KEY: not set, and {path} cannot be read or made"
            ) from error

    def seal(self, secret: str) -> bytes:
        """Return ``secret`` encrypted."""
        return self._fernet.encrypt(secret.encode())

    def open(self, sealed: bytes) -> str:
        """Return what was sealed. Raises :class:`jobs.errors.SettingsError`: by none of these keys."""
        try:
            return self._fernet.decrypt(sealed).decode()
        except InvalidToken as error:
            raise errors.SettingsError(
                "LONGLOOK_VAULT_KEY: a secret was encrypted by a key that is not among these"
            ) from error

    def seal_again(self, sealed: bytes) -> bytes:
        """Return what was sealed, sealed by the newest key."""
        return self.seal(self.open(sealed))


def _key(text: str) -> bytes:
    """Return a text as a Fernet key. It has to be random itself, as 32 bytes of it in hex are."""
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())


def _make(path: Path) -> None:
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with os.fdopen(handle, "w") as file:
        file.write(secrets.token_hex(32) + "\n")
    # A link, unlike a rename, leaves the file alone that another process has just made.
    with contextlib.suppress(FileExistsError):
        path.hardlink_to(draft)
    Path(draft).unlink()
