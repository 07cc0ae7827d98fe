"""Standard Webhooks 1.0.0: secrets, keys, and the headers that sign a message (``v1`` HMAC-SHA256, ``v1a`` ed25519).

Source: github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md.
"""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from core import errors

_SYMMETRIC: Final = "whsec_"
_PRIVATE: Final = "whsk_"
_PUBLIC: Final = "whpk_"
_SECRET_BYTES: Final = 32
_SHOWN_CHARS: Final = 4
#: The longest difference between a message's time and now: what the scheme recommends.
_TOLERANCE_SECONDS: Final = 300
_SECONDS: Final = re.compile(r"[0-9]{1,15}", re.ASCII)


@dataclass(frozen=True)
class Ed25519Key:
    """An ed25519 key pair as text."""

    private: str = field(repr=False)
    public: str


def new_secret() -> str:
    """Return a new secret: ``whsec_`` and 32 random bytes in base64."""
    return _SYMMETRIC + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def redact(secret: str) -> str:
    """Return the part of ``secret`` that may be shown, to identify it."""
    return f"{_SYMMETRIC}…{secret[-_SHOWN_CHARS:]}"


def new_pair() -> Ed25519Key:
    """Return a new ed25519 key pair."""
    private = Ed25519PrivateKey.generate()
    return Ed25519Key(
        private=_PRIVATE + base64.b64encode(private.private_bytes_raw()).decode(),
        public=_PUBLIC
        + base64.b64encode(
            private.public_key().public_bytes(
                serialization.Encoding.Raw, serialization.PublicFormat.Raw
            )
        ).decode(),
    )


def headers(
    message_id: str,
    body: bytes,
    *,
    at: datetime,
    secrets: Sequence[str],
    private_key: str | None = None,
) -> dict[str, str]:
    """Return the three headers of a message, signed with all ``secrets``.

    Args:
        message_id: the same for every attempt.
        body: exactly as it is sent.
        at: the time of this attempt.
        secrets: ``whsec_…``, the newest first.
        private_key: ``whsk_…`` of the installation; without it there is no asymmetric signature.
    """
    timestamp = str(int(at.timestamp()))
    signed = f"{message_id}.{timestamp}.".encode() + body
    signatures = [f"v1,{_mac(secret, signed)}" for secret in secrets]
    if private_key is not None:
        signatures.insert(0, f"v1a,{_signature(private_key, signed)}")
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(signatures),
    }


class NotGenuine(errors.LonglookError):
    """A message has no valid signature, or is too old."""

    code = "not_genuine"


def verify(
    received: Mapping[str, str],
    body: bytes,
    *,
    at: datetime,
    secrets: Sequence[str] = (),
    public_key: str | None = None,
) -> str:
    """Return the id of a message that has a valid signature by one of ``secrets`` or by ``public_key``.

    Args:
        received: its headers, names in lower case.
        body: exactly as received.
        at: now; the time of the message may differ by five minutes.
        secrets: ``whsec_…``.
        public_key: ``whpk_…`` of the installation.

    Raises:
        NotGenuine: no signature is valid, or the message is too old.
    """
    message_id, timestamp = received.get("webhook-id", ""), received.get("webhook-timestamp", "")
    if not message_id or not _SECONDS.fullmatch(timestamp):
        raise NotGenuine("The message is not signed.")
    if abs(int(timestamp) - at.timestamp()) > _TOLERANCE_SECONDS:
        raise NotGenuine(f"The message's time must be within {_TOLERANCE_SECONDS} s of now.")
    signed = f"{message_id}.{timestamp}.".encode() + body
    for part in received.get("webhook-signature", "").split():
        version, _, signature = part.partition(",")
        if version == "v1" and any(
            hmac.compare_digest(signature.encode(), _mac(secret, signed).encode())
            for secret in secrets
        ):
            return message_id
        if version == "v1a" and public_key and _is_valid(public_key, signature, signed):
            return message_id
    raise NotGenuine("The message has no valid signature.")


def _is_valid(public_key: str, signature: str, signed: bytes) -> bool:
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key.removeprefix(_PUBLIC)))
        key.verify(base64.b64decode(signature), signed)
    except (InvalidSignature, ValueError):
        return False
    return True


def _mac(secret: str, signed: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(_SYMMETRIC))
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def _signature(private_key: str, signed: bytes) -> str:
    key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(private_key.removeprefix(_PRIVATE)))
    return base64.b64encode(key.sign(signed)).decode()
