"""Remembers the accounts of keys that the application has accepted, without a database."""

from __future__ import annotations

import hashlib
import uuid
from typing import Final

#: Maximum number of keys.
_MAX_KEYS: Final = 10_000


class Identities:
    """Accounts by the digest of an ``Authorization`` field. Thread-safe.

    It contains only keys that the application has accepted, so invalid keys cannot displace them.
    """

    def __init__(self) -> None:
        self._accounts: dict[bytes, uuid.UUID] = {}

    def account(self, digest: bytes | None) -> uuid.UUID | None:
        """Return the account of a key, or None."""
        return None if digest is None else self._accounts.get(digest)

    def learn(self, digest: bytes, account_id: uuid.UUID) -> None:
        """Remember the account of an accepted key."""
        if digest not in self._accounts and len(self._accounts) >= _MAX_KEYS:
            # Each key is learned again with its next request, which counts for its address.
            self._accounts.clear()
        self._accounts[digest] = account_id

    def forget(self, digest: bytes) -> None:
        """Forget a refused key."""
        self._accounts.pop(digest, None)


def digest(authorization: str | None) -> bytes | None:
    """Return the digest of a key, regardless of the spelling of its field; None without a key."""
    if authorization is None:
        return None
    scheme, _, key = authorization.partition(" ")
    normalized = f"{scheme.lower()} {key.strip()}"
    return hashlib.blake2b(normalized.encode("latin-1"), digest_size=16).digest()
