"""Tokens that let a page follow one job: signed, short-lived, kept nowhere.

EventSource cannot send a header, so the token stands in the address; it must open nothing else and die soon.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import uuid
from datetime import UTC, datetime, timedelta
from typing import Final

from core.database import Clock

LIFE: Final = timedelta(hours=1)
_PREFIX: Final = "lls_"
_EXPIRY_BYTES: Final = 5
_ID_BYTES: Final = 16


class StreamTokens:
    """Makes and reads tokens: the key they were made for, their end, and a signature over both and the job.

    Args:
        pepper: the secret that API keys are hashed with; here it signs, under a name of its own.
        clock: the time.
    """

    def __init__(self, *, pepper: bytes, clock: Clock) -> None:
        self._key = hmac.new(pepper, b"stream token", hashlib.sha256).digest()
        self._clock = clock

    def issue(self, *, job_id: uuid.UUID, key_id: uuid.UUID) -> tuple[str, datetime]:
        """Return a token with which the holder of a key lets somebody follow a job, and when it ends."""
        seconds = int((self._clock() + LIFE).timestamp())
        body = key_id.bytes + seconds.to_bytes(_EXPIRY_BYTES)
        token = _spelled(body + self._sign(body, job_id))
        return token, datetime.fromtimestamp(seconds, UTC)

    def read(self, token: str, *, job_id: uuid.UUID) -> uuid.UUID | None:
        """Return for which key ``token`` was made, or None when it is not good for this job now."""
        if not token.startswith(_PREFIX):
            return None
        text = token.removeprefix(_PREFIX)
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        if _spelled(raw) != token:
            return None
        body, signature = raw[: _ID_BYTES + _EXPIRY_BYTES], raw[_ID_BYTES + _EXPIRY_BYTES :]
        if not hmac.compare_digest(signature, self._sign(body, job_id)):
            return None
        if int.from_bytes(body[_ID_BYTES:]) <= self._clock().timestamp():
            return None
        return uuid.UUID(bytes=body[:_ID_BYTES])

    def _sign(self, body: bytes, job_id: uuid.UUID) -> bytes:
        return hmac.new(self._key, body + job_id.bytes, hashlib.sha256).digest()


def _spelled(raw: bytes) -> str:
    """Return the one spelling of a token: base64 has others, by padding and by bits that stand for nothing."""
    return _PREFIX + base64.urlsafe_b64encode(raw).decode().rstrip("=")
