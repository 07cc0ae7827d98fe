"""Width and height of a canonical image (PNG or JPEG) from its first bytes, without decoding it.

Sources: PNG specification, section 11.2.1 (IHDR); ITU-T T.81, annex B (JPEG frame headers).
"""

from __future__ import annotations

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
#: Start-of-frame markers; C4, C8 and CC in their range are tables and extensions.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def dimensions(data: bytes) -> tuple[int, int] | None:
    """Return ``(width, height)`` in pixels, or None if ``data`` is neither PNG nor JPEG."""
    if data.startswith(_PNG) and len(data) >= 24:  # noqa: PLR2004 - the end of width and height in IHDR
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if data.startswith(_JPEG):
        return _jpeg(data)
    return None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    """Walk the segments (marker, length, content) to the frame header."""
    offset = 2
    while offset + 9 <= len(data) and data[offset] == 0xFF:  # noqa: PLR2004 - first byte of a marker
        if data[offset + 1] in _FRAMES:
            height, width = data[offset + 5 : offset + 7], data[offset + 7 : offset + 9]
            return int.from_bytes(width, "big"), int.from_bytes(height, "big")
        offset += 2 + int.from_bytes(data[offset + 2 : offset + 4], "big")
    return None
