"""Says what kind of file bytes are, for error messages: a file that is no image is often another known thing."""

from __future__ import annotations

import re
from typing import Final

from jobs.images import foreign
from jobs.images.formats import MediaType, sniff

#: Bytes from the start of a file that :func:`describe` needs.
HEAD_BYTES: Final = 1024

_IMAGES: Final[dict[MediaType, str]] = {
    "image/jpeg": "a JPEG image",
    "image/png": "a PNG image",
    "image/webp": "a WebP image",
    "image/gif": "a GIF image",
    "image/bmp": "a BMP image",
    "image/tiff": "a TIFF image",
    "image/heic": "a HEIC image",
    "image/avif": "an AVIF image",
}
JSON: Final = "JSON"
FORM: Final = "a multipart form"
#: Kinds of text, by a pattern in it, the first that matches.
_TEXTS: Final = (
    (re.compile(rb"\A--[^\r\n]{1,200}\r?\ncontent-", re.IGNORECASE), FORM),
    (re.compile(rb"\A[{\[]"), JSON),
    (re.compile(rb"\Adata:", re.IGNORECASE), "a data URL"),
    (re.compile(rb"\Ahttps?://", re.IGNORECASE), "a URL"),
)
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


def describe(head: bytes) -> str | None:
    """Return what kind of file begins with ``head``, such as ``a PDF document``; None if that is unknown.

    Args:
        head: the first :data:`HEAD_BYTES` of the file, or all of it.
    """
    head = head[:HEAD_BYTES]
    media_type = sniff(head)
    if media_type is not None:
        return _IMAGES[media_type]
    text = head.removeprefix(_BYTE_ORDER_MARK).lstrip()
    known = next((name for pattern, name in _TEXTS if pattern.search(text)), None)
    return known or foreign.describe(head)
