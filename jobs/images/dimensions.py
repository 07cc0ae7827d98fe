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
    if data.startswith(_PNG) and len(data) >= 24:  # noqa: PLR2004 - where IHDR's two sizes end
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if data.startswith(_JPEG):
        return _jpeg(data)
    return None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    """Walk the segments (marker, length, content) to the frame header."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:  # noqa: PLR2004 - every marker's first byte
        if data[at + 1] in _FRAMES:
            height, width = data[at + 5 : at + 7], data[at + 7 : at + 9]
            return int.from_bytes(width, "big"), int.from_bytes(height, "big")
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
