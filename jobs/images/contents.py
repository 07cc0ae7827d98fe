"""Says what kind of file bytes are, for error messages: a file that is no image is often another known thing."""

from __future__ import annotations

import codecs
import re
from typing import Final

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
#: The first bytes of other files, by their formats' own specifications.
_MAGIC: Final[tuple[tuple[bytes, str], ...]] = (
    (b"%PDF-", "a PDF document"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "a JPEG XL image"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"\x00\x00\x01\x00", "an ICO image"),
    (b"8BPS", "a Photoshop document"),
    (b"%!PS", "a PostScript document"),
    (b"gimp xcf", "a GIMP document"),
    (b"v/1\x01", "an OpenEXR image"),
    (b"#?RADIANCE", "a Radiance HDR image"),
    (b"qoif", "a QOI image"),
    (b"FUJIFILMCCD-RAW", "a raw photo"),
    (b"\x1f\x8b", "gzip data"),
    (b"PK\x03\x04", "a ZIP archive or an office document"),
    (b"\x1aE\xdf\xa3", "a video"),
    (b"RIFF", "a RIFF file of another kind"),
)
JSON: Final = "JSON"
FORM: Final = "a multipart form"
#: Kinds of text, by a pattern in it, the first that matches.
_TEXTS: Final = (
    (re.compile(rb"\A--[^\r\n]{1,200}\r?\ncontent-", re.IGNORECASE), FORM),
    (re.compile(rb"\A[{\[]"), JSON),
    (re.compile(rb"<!doctype\s+html|<html[\s>]", re.IGNORECASE), "an HTML page"),
    (re.compile(rb"<svg[\s>]", re.IGNORECASE), "an SVG image"),
    (re.compile(rb"<\?xml\s", re.IGNORECASE), "an XML document"),
    (re.compile(rb"\Adata:", re.IGNORECASE), "a data URL"),
    (re.compile(rb"\Ahttps?://", re.IGNORECASE), "a URL"),
    (re.compile(rb"\A[A-Za-z0-9+/_=\r\n-]{32,}+\Z"), "base64 text"),
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
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[4:8] == b"ftyp":
        return "a video, or an image of another kind in the same container"
    return _described_text(head.removeprefix(_BYTE_ORDER_MARK).lstrip())


def _described_text(text: bytes) -> str | None:
    """Return the kind of a text file without its leading space."""
    for pattern, name in _TEXTS:
        if pattern.search(text):
            return name
    return _plain(text)


def _plain(text: bytes) -> str | None:
    try:
        # The head may end within a character.
        shown = codecs.getincrementaldecoder("utf-8")().decode(text)
    except UnicodeDecodeError:
        return None
    is_text = bool(shown) and all(char.isprintable() or char in "\t\r\n" for char in shown)
    return "text" if is_text else None
