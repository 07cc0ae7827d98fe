"""JPEG: takes profile, EXIF data and resolution, drops other metadata, and names kinds that decoders do not read.

Source: ITU-T T.81, annex B (segments); T.871 (JFIF); ICC.1, annex B.4 (profiles in JPEG); CIPA DC-007 (MPF).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from jobs.images import rejections
from jobs.images.containers import tiff
from jobs.images.containers.container import Container, aspect_of

_START, _SCAN, _END = b"\xff\xd8", 0xDA, b"\xff\xd9"
_JFIF, _EXIF, _APP2, _ADOBE, _COMMENT = 0xE0, 0xE1, 0xE2, 0xEE, 0xFE
#: Metadata: segments of applications, and comments.
_SKIPPED = frozenset({*range(0xE0, 0xF0), _COMMENT})
#: Markers without a length: TEM, restarts, start and end of the image.
_BARE = frozenset({0x00, 0x01, *range(0xD0, 0xDA)})
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_LS = 0xF7
_SEQUENTIAL, _PROGRESSIVE = frozenset({0xC0, 0xC1, 0xC9}), frozenset({0xC2, 0xCA})
_LOSSLESS = frozenset({0xC3, 0xCB})
#: Lengths below which a decoder does not recognize the segment.
_JFIF_LENGTH, _ADOBE_LENGTH = 14, 12
_BITS = 8
_DEEP = frozenset({12, 16})
_PROFILE = b"ICC_PROFILE\x00"
_MULTI = b"MPF\x00"
_IMAGES_TAG = 0xB001
#: Endings for a file that has no end marker. Where no pixels are missing, decoders ignore them; where some are, the
#: endings become pixels. They differ in every bit, because decoders put zeros in place of missing ones.
_ENDINGS = (
    b"\xaa" * 64 + _END,
    b"\x55" * 64 + _END,
    bytes(number * number % 251 for number in range(3, 400)) + _END,
)
_COEFFICIENTS = 64
#: A marker with a meaning between scans and in their data: no stuffed byte, restart, or fill byte.
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")


@dataclass(frozen=True, slots=True)
class Jpeg(Container):
    """The facts of a JPEG."""

    def ended(self) -> list[Container]:
        """Return the file with several different endings in place of its end marker.

        If all pixels are there, all of them decode to the same ones. Without an end marker, a file may also lack whole
        scans; then the list is empty.
        """
        end, complete = _scans(self.data)
        if end is None and not complete:
            return []
        # Fill bytes, or half of the end marker: pixels end with no such byte.
        data = self.data[:end].rstrip(b"\xff")
        return [replace(self, data=data + ending) for ending in _ENDINGS]


def read(data: bytes) -> Jpeg:
    """Return the facts of a JPEG.

    Raises:
        core.errors.ImageRejected: as :func:`jobs.images.containers.read` says.
    """
    needed, metadata = [_START], _Metadata()
    at = len(_START)
    for start, marker, end in _segments(data):
        content = data[start:end]
        if marker in _FRAMES or marker == _JPEG_LS:
            _check_kind(marker, content)
        if marker == _SCAN:
            break
        if metadata.take(marker, content) or marker not in _SKIPPED:
            needed.append(bytes([0xFF, marker]) + data[start - 2 : end])
        at = end
    return Jpeg(
        data=b"".join([*needed, memoryview(data)[at:]]),
        exif=metadata.exif,
        orientation=None if metadata.exif else 1,
        profile=metadata.profile,
        aspect=metadata.aspect,
        frames=metadata.frames,
    )


class _Metadata:
    """What the segments in front of the first scan say."""

    def __init__(self) -> None:
        self.exif = b""
        self.aspect = Fraction(1)
        self.frames = 1
        self._profile: dict[int, bytes] = {}
        self._parts = 0

    @property
    def profile(self) -> bytes:
        """The profile, if all of its parts are there."""
        numbers = range(1, self._parts + 1)
        if any(number not in self._profile for number in numbers):
            return b""
        return b"".join(self._profile[number] for number in numbers)

    def take(self, marker: int, content: bytes) -> bool:
        """Take what is in a segment, and return whether the decoder needs it."""
        if marker == _JFIF and content.startswith(b"JFIF\x00") and len(content) >= _JFIF_LENGTH:
            self.aspect = aspect_of(*struct.unpack_from(">HH", content, 8))
            return True
        if marker == _EXIF and content.startswith(b"Exif\x00"):
            self.exif = self.exif or content[6:]
        elif marker == _APP2 and content.startswith(_PROFILE) and len(content) >= len(_PROFILE) + 2:
            number, self._parts = content[len(_PROFILE)], content[len(_PROFILE) + 1]
            self._profile.setdefault(number, content[len(_PROFILE) + 2 :])
        elif marker == _APP2 and content.startswith(_MULTI):
            count = tiff.first_numbers(content[len(_MULTI) :]).get(_IMAGES_TAG, 1)
            self.frames = max(1, count)
        return marker == _ADOBE and content.startswith(b"Adobe") and len(content) >= _ADOBE_LENGTH


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Return content's start, marker, and content's end of each segment up to the first scan."""
    at = len(_START)
    while at + 4 <= len(data):
        if data[at] != 0xFF:  # noqa: PLR2004 - every marker's first byte
            # Decoders skip to the next marker.
            at = data.find(b"\xff", at)
            if at < 0:
                return
            continue
        marker = data[at + 1]
        if marker == 0xFF:  # noqa: PLR2004 - a fill byte
            at += 1
            continue
        if marker in _BARE:
            at += 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 2 or at + 2 + length > len(data):  # noqa: PLR2004 - it counts its own two bytes
            return
        yield at + 4, marker, at + 2 + length
        if marker == _SCAN:
            return
        at += 2 + length


def _check_kind(marker: int, frame: bytes) -> None:
    """Reject frames that decoders do not read. Bits per sample that no JPEG has are damage."""
    bits = frame[0] if frame else 0
    if marker == _JPEG_LS:
        raise rejections.unsupported("a JPEG-LS image")
    if marker in _LOSSLESS:
        raise rejections.unsupported("a lossless JPEG")
    if bits in _DEEP:
        raise rejections.unsupported(f"a JPEG with {bits} bits per sample")
    if marker not in _SEQUENTIAL | _PROGRESSIVE and bits == _BITS:
        raise rejections.unsupported("a hierarchical JPEG")


def _scans(data: bytes) -> tuple[int | None, bool]:
    """Return where the end marker is, and whether the scans in front of it begin to define all pixels."""
    missing: dict[int, list[int]] = {}
    components = b""
    progressive = False
    end = None
    for match in _MARKER.finditer(data, len(_START)):
        at, marker = match.end(), data[match.start() + 1]
        if marker == _END[1]:
            end = match.start()
            break
        content = data[at + 2 : at + int.from_bytes(data[at : at + 2], "big")]
        if marker in _FRAMES and len(content) >= 6:  # noqa: PLR2004 - where the components begin
            progressive = marker in _PROGRESSIVE
            components = content[6::3]
        elif marker == _SCAN and content and len(content) >= 2 * content[0] + 4:
            count = content[0]
            first, last, bits = content[2 * count + 1 : 2 * count + 4]
            if not progressive:
                first, last, bits = 0, _COEFFICIENTS - 1, 0
            for component in content[1 : 2 * count + 1 : 2]:
                left = missing.setdefault(component, [1] * _COEFFICIENTS)
                for coefficient in range(first, min(last, _COEFFICIENTS - 1) + 1):
                    left[coefficient] = bits & 15
    complete = all(one in missing and not any(missing[one]) for one in components)
    return end, complete and bool(components)
