"""BMP: the embedded profile, the resolution, and kinds of BMP that decoders do not read.

Source: Windows GDI, BITMAPINFOHEADER, BITMAPV4HEADER, and BITMAPV5HEADER.
"""

from __future__ import annotations

import struct

from jobs.images import rejections
from jobs.images.containers.container import Container, aspect_of

#: Where the header of the image starts, and the sizes of its versions.
_START = 14
_OS2_SHORT, _INFO, _V5 = 16, 40, 124
_EMBEDDED = b"DEBM"
_MAX_PROFILE = 16 * 2**20
#: Compressions that are other formats.
_FOREIGN = {
    4: "a BMP that contains a JPEG",
    5: "a BMP that contains a PNG",
    11: "a BMP in CMYK",
    12: "a BMP in CMYK",
    13: "a BMP in CMYK",
}
_BIT_FIELDS = frozenset({3, 6})
#: Bits per pixel of Windows CE and of deep colors.
_UNREAD_BITS = frozenset({2, 64})
_PALETTE_BITS = 8


def read(data: bytes) -> Container:
    """Return the facts of a BMP.

    Raises:
        core.errors.ImageRejected: as :func:`jobs.images.containers.read` says.
    """
    size = int.from_bytes(data[_START : _START + 4], "little")
    if size == _OS2_SHORT:
        raise rejections.unsupported("a BMP of OS/2 2.x with a short header")
    if size < _INFO or len(data) < _START + size:
        return Container(data=data, orientation=1, unused_alpha=True)
    bits, compression = struct.unpack_from("<HI", data, _START + 14)
    across, down = struct.unpack_from("<ii", data, _START + 24)
    if compression in _FOREIGN:
        raise rejections.unsupported(_FOREIGN[compression])
    if bits in _UNREAD_BITS:
        raise rejections.unsupported(f"a BMP with {bits} bits per pixel")
    return Container(
        data=_with_usual_palette(data, bits),
        orientation=1,
        profile=_profile(data) if size == _V5 else b"",
        aspect=aspect_of(across, down),
        unused_alpha=True,
        kind=f"a BMP with {bits} bits per pixel in unusual bit fields"
        if compression in _BIT_FIELDS
        else None,
    )


def _with_usual_palette(data: bytes, bits: int) -> bytes:
    """Return the file with no more colors in its palette than pixels can name: decoders reject more."""
    place = _START + 32
    if bits > _PALETTE_BITS or int.from_bytes(data[place : place + 4], "little") <= 1 << bits:
        return data
    return data[:place] + (1 << bits).to_bytes(4, "little") + data[place + 4 :]


def _profile(data: bytes) -> bytes:
    if data[_START + 56 : _START + 60] != _EMBEDDED:
        return b""
    offset, size = struct.unpack_from("<II", data, _START + 112)
    profile = data[_START + offset : _START + offset + min(size, _MAX_PROFILE)]
    return profile if len(profile) == size else b""
