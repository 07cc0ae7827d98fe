"""Stream tokens, with which a web page can follow one job: signed, short-lived, and not stored.

EventSource cannot send a header, so the token is in the URL; it must permit nothing else and expire soon.
"""

import base64
import binascii
import hashlib
import hmac
import uuid
from datetime import UTC, datetime, timedelta
from typing import Final

from core.database import Clock
from core.peppers import Peppers

LIFE: Final = timedelta(hours=1)
_PREFIX: Final = "lls_"
_EXPIRY_BYTES: Final = 5
_ID_BYTES: Final = 16


class StreamTokens:
    """Creates and reads tokens: the id of the key, the expiry, and a signature over both and the job.

    Args:
        peppers: the secrets for hashing API keys; a key derived from the newest signs tokens.
        clock: the time.
    """

    def __init__(self, *, peppers: Peppers, clock: Clock) -> None:
        self._peppers = peppers
        self._clock = clock

    def issue(self, *, job_id: uuid.UUID, key_id: uuid.UUID) -> tuple[str, datetime]:
        """Return a token for following a job on behalf of a key, and the time when it expires."""
        seconds = int((self._clock() + LIFE).timestamp())
        body = key_id.bytes + seconds.to_bytes(_EXPIRY_BYTES)
        token = _encode(body + _sign(self._peppers.current()[0], body, job_id))
        return token, datetime.fromtimestamp(seconds, UTC)

    def read(self, token: str, *, job_id: uuid.UUID) -> uuid.UUID | None:
        """Return the key that created ``token``, or None if it is invalid or expired for this job."""
        if not token.startswith(_PREFIX):
            return None
        text = token.removeprefix(_PREFIX)
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        if _encode(raw) != token:
            return None
        body, signature = raw[: _ID_BYTES + _EXPIRY_BYTES], raw[_ID_BYTES + _EXPIRY_BYTES :]
        signatures = (_sign(pepper, body, job_id) for pepper in self._peppers.current())
        if not any(hmac.compare_digest(signature, each) for each in signatures):
            return None
        if int.from_bytes(body[_ID_BYTES:]) <= self._clock().timestamp():
            return None
        return uuid.UUID(bytes=body[:_ID_BYTES])


def _sign(pepper: bytes, body: bytes, job_id: uuid.UUID) -> bytes:
    key = hmac.new(pepper, b"stream token", hashlib.sha256).digest()
    return hmac.new(key, body + job_id.bytes, hashlib.sha256).digest()


def _encode(raw: bytes) -> str:
    """Return the canonical encoding of a token: base64 permits others, with padding and unused bits."""
    return _PREFIX + base64.urlsafe_b64encode(raw).decode().rstrip("=")
