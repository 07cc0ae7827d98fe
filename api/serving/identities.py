"""Which account a key belongs to, as far as the application has said, without asking a database."""

from __future__ import annotations

import hashlib
import uuid
from typing import Final

#: Keys that are remembered.
_MOST: Final = 10_000


class Identities:
    """Accounts by the digest of an ``Authorization`` field. For many threads.

    Only keys that the application has accepted get in, so strangers cannot push any out.
    """

    def __init__(self) -> None:
        self._accounts: dict[bytes, uuid.UUID] = {}

    def account(self, digest: bytes | None) -> uuid.UUID | None:
        """Return the account of a key; None if it is not known."""
        return None if digest is None else self._accounts.get(digest)

    def learn(self, digest: bytes, account_id: uuid.UUID) -> None:
        """Remember the account of a key that was accepted."""
        if digest not in self._accounts and len(self._accounts) >= _MOST:
            # All are learned anew, with a request each that counts for its address.
            self._accounts.clear()
        self._accounts[digest] = account_id

    def forget(self, digest: bytes) -> None:
        """Forget a key that was refused."""
        self._accounts.pop(digest, None)


def digest(authorization: str | None) -> bytes | None:
    """Return what stands for a key, however its field is spelled; None without one."""
    if authorization is None:
        return None
    scheme, _, key = authorization.partition(" ")
    spelled = f"{scheme.lower()} {key.strip()}"
    return hashlib.blake2b(spelled.encode("latin-1"), digest_size=16).digest()
