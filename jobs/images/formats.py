"""Detects the media type of an image by its content; what the client claims is ignored."""

from __future__ import annotations

from typing import Literal

MediaType = Literal[
    "image/jpeg",
    "image/png",
    "image/webp",
    "image/gif",
    "image/bmp",
    "image/tiff",
    "image/heic",
    "image/avif",
]

#: The formats to send, for error messages.
READABLE = "JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC, or AVIF"

_MAGIC: tuple[tuple[bytes, MediaType], ...] = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"II+\x00", "image/tiff"),
    (b"MM\x00+", "image/tiff"),
)
#: Sizes of the header that follows ``BM``, from OS/2 1.x to Windows 5. ``BM`` alone could start any text.
_BMP_HEADERS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
#: Brands of ISO/IEC 23008-12 (HEIF), and of its AV1 variant.
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
#: Bytes of the header of an animation frame, before the chunks of its image.
_WEBP_FRAME_HEADER = 16


def sniff(data: bytes) -> MediaType | None:
    """Return the media type by the first bytes of ``data``, or None if it is not a known image.

    The image may still be impossible to decode: HEIC and AVIF need optional libraries.
    """
    for magic, media_type in _MAGIC:
        if data.startswith(magic):
            return media_type
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADERS:
        return "image/bmp"
    if data[4:8] == b"ftyp":
        return _heif_variant(data)
    return None


def is_lossy(data: bytes, media_type: MediaType) -> bool:
    """Return whether the compression of ``data`` is lossy, as in photographs."""
    if media_type == "image/webp":
        return _is_lossy_webp(data)
    return media_type in {"image/jpeg", "image/heic", "image/avif"}


def _heif_variant(data: bytes) -> MediaType | None:
    listed = data[16 : min(int.from_bytes(data[:4], "big"), 256)]
    brands = {data[8:12], *(listed[at : at + 4] for at in range(0, len(listed), 4))}
    if brands & _AVIF_BRANDS:
        return "image/avif"
    return "image/heic" if brands & _HEIC_BRANDS else None


def _is_lossy_webp(data: bytes) -> bool:
    """Walk the chunks of a RIFF file to the first image: ``VP8`` is lossy, ``VP8L`` is not."""
    at = 12
    while at + 8 <= len(data):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if name in {b"VP8 ", b"VP8L"}:
            return name == b"VP8 "
        at += 8
        at += _WEBP_FRAME_HEADER if name == b"ANMF" else size + size % 2
    return True
