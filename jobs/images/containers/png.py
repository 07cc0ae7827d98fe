"""PNG: checks what decides the pixels, takes what decides the colors, and drops all other chunks.

A chunk has a CRC, and the compressed pixels have a checksum of their own. Damage to either is damage to the image;
damage to a chunk that a decoder may skip (its name starts with a lowercase letter) costs nothing but that chunk.

Source: PNG specification, third edition, sections 5 (chunks), 7.2 and 8 (scanlines, interlacing), 11 (chunks).
"""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from jobs.images import rejections
from jobs.images.containers import signals
from jobs.images.containers.container import Container, Signal, aspect_of

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_LENGTH = 2**31 - 1
#: Length and name in front of a chunk's content, and the CRC behind it.
_HEAD, _CRC = 8, 4
_LOWERCASE = 0x20
_NEEDED = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
#: Chunks that decide colors, orientation, or the number of frames.
_WANTED = frozenset(
    {b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"tRNS", b"eXIf", b"pHYs", b"acTL", b"fcTL"}
)
#: Samples per pixel and permitted bit depths by color type.
_COLOR_TYPES = {
    0: (1, {1, 2, 4, 8, 16}),
    2: (3, {8, 16}),
    3: (1, {1, 2, 4, 8}),
    4: (2, {8, 16}),
    6: (4, {8, 16}),
}
_GRAY, _RGB, _PALETTE = 0, 2, 3
#: Start and step across and down of the seven passes of interlacing.
_PASSES = (
    (0, 8, 0, 8),
    (4, 8, 0, 8),
    (0, 4, 4, 8),
    (2, 4, 0, 4),
    (0, 2, 2, 4),
    (1, 2, 0, 2),
    (0, 1, 1, 2),
)
#: Compressed and decompressed bytes at a time, when pixels are checked.
_READ, _INFLATED = 1 << 14, 1 << 16
_MAX_PROFILE = 16 * 2**20


@dataclass(frozen=True, slots=True)
class _Header:
    width: int
    height: int
    bits: int
    color_type: int
    interlaced: bool

    @property
    def inflated(self) -> int:
        """The number of bytes of all scanlines, with one byte for the filter of each."""
        bits = self.bits * _COLOR_TYPES[self.color_type][0]
        total = 0
        for left, right, top, down in _PASSES if self.interlaced else ((0, 1, 0, 1),):
            wide = -((left - self.width) // right)
            tall = -((top - self.height) // down)
            if wide > 0 and tall > 0:
                total += tall * (1 + (wide * bits + 7) // 8)
        return total


@dataclass(frozen=True, slots=True)
class Png(Container):
    """The facts of a PNG, and where its compressed pixels are.

    Attributes:
        source: the whole file.
        pixels: start and end of the compressed pixels in ``source``, in order.
        inflated: the number of bytes that they must contain.
    """

    source: bytes = b""
    pixels: tuple[tuple[int, int], ...] = ()
    inflated: int = 0

    def verify(self) -> None:
        """Decompress all pixels without keeping them: their number and their checksum must be right.

        The checksum may be missing at the end of a file, if all pixels are there.
        """
        inflater, count = zlib.decompressobj(), 0
        try:
            for block in self._blocks():
                rest = block
                while rest and not inflater.eof:
                    count += len(inflater.decompress(rest, _INFLATED))
                    rest = inflater.unconsumed_tail
                    if count > self.inflated:
                        return  # Longer than the image: decoders ignore the rest.
            # What the last call held back for lack of room.
            while count < self.inflated and (more := inflater.decompress(b"", _INFLATED)):
                count += len(more)
        except zlib.error:
            raise rejections.damaged() from None
        if count < self.inflated:
            raise rejections.damaged()

    def _blocks(self) -> Iterator[bytes]:
        for start, end in self.pixels:
            for at in range(start, end, _READ):
                yield self.source[at : min(at + _READ, end)]


class _Chunks:
    """The chunks of a file that matter, each checked."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        #: The content of the first intact chunk of each name, apart from pixels.
        self.contents: dict[bytes, bytes] = {}
        self.pixels: list[tuple[int, int]] = []
        #: Whether the last block of pixels reaches the end of the file, without its CRC.
        self.cut = False
        self.frame_in_front = False
        at: int | None = len(_SIGNATURE)
        while at is not None:
            at = self._take(at) if at + _HEAD <= len(data) else None
        if not self.pixels:
            raise rejections.damaged()

    def _take(self, at: int) -> int | None:
        """Take the chunk at this place; return the place of the next one, None after the last one."""
        length: int
        name: bytes
        length, name = struct.unpack_from(">I4s", self._data, at)
        start, end = at + _HEAD, at + _HEAD + length
        if length > _MAX_LENGTH or not name.isalpha():
            raise rejections.damaged()
        if name == b"IDAT":
            if self.cut:
                raise rejections.damaged()
            self.cut = end + _CRC > len(self._data)
            self._check(at, name, min(end, len(self._data)))
            self.pixels.append((start, min(end, len(self._data))))
            return None if self.cut else end + _CRC
        if end + _CRC > len(self._data):
            return (
                None  # Without pixels so far, that is damage; after them, only the tail is missing.
            )
        if name == b"IEND":
            return None
        if not name[0] & _LOWERCASE:
            self._check(at, name, end)
            self._understand(name)
        if name in _WANTED | _NEEDED and name not in self.contents and self._intact(at, end):
            self.contents[name] = self._data[start:end]
            self.frame_in_front |= name == b"fcTL" and not self.pixels
        return end + _CRC

    def _understand(self, name: bytes) -> None:
        if name == b"CgBI":
            raise rejections.unsupported("a PNG in Apple's format for iOS apps (CgBI)")
        if name not in _NEEDED:
            raise rejections.unsupported(f"a PNG with the unknown chunk {name.decode('ascii')}")
        if name != b"IHDR" and b"IHDR" not in self.contents:
            raise rejections.damaged()

    def _check(self, at: int, name: bytes, end: int) -> None:
        if name == b"IDAT" and b"IHDR" not in self.contents:
            raise rejections.damaged()
        if not (name == b"IDAT" and self.cut) and not self._intact(at, end):
            raise rejections.damaged()

    def _intact(self, at: int, end: int) -> bool:
        crc = zlib.crc32(memoryview(self._data)[at + 4 : end])
        return self._data[end : end + _CRC] == crc.to_bytes(4, "big")


def read(data: bytes) -> Png:
    """Return the facts of a PNG.

    Raises:
        core.errors.ImageRejected: as :func:`jobs.images.containers.read` says.
    """
    chunks = _Chunks(data)
    contents = chunks.contents
    header = _header(contents)
    exif = contents.get(b"eXIf", b"")
    # Decoders differ in the transparent color of deep pixels, so only a palette's transparency is theirs.
    transparent = None if header.color_type == _PALETTE else _transparent(contents, header)
    needed = [_chunk(b"IHDR", contents[b"IHDR"])]
    if header.color_type == _PALETTE:
        needed += [_chunk(name, contents[name]) for name in (b"PLTE", b"tRNS") if name in contents]
    profile, signal = _color(contents)
    return Png(
        data=b"".join([_SIGNATURE, *needed, *_pixels(data, chunks), _chunk(b"IEND", b"")]),
        exif=exif.removeprefix(b"Exif\x00\x00"),
        orientation=None if exif else 1,
        profile=profile,
        signal=signal,
        aspect=_aspect(contents.get(b"pHYs", b"")),
        frames=_frames(contents.get(b"acTL", b""), hidden=not chunks.frame_in_front),
        transparent=transparent,
        bits=header.bits,
        source=data,
        pixels=tuple(chunks.pixels),
        inflated=header.inflated,
    )


def _header(contents: dict[bytes, bytes]) -> _Header:
    try:
        width, height, bits, color_type, method, filters, interlacing = struct.unpack(
            ">IIBBBBB", contents[b"IHDR"]
        )
    except struct.error:
        raise rejections.damaged() from None
    valid = (
        0 < width <= _MAX_LENGTH
        and 0 < height <= _MAX_LENGTH
        and bits in _COLOR_TYPES.get(color_type, (0, set()))[1]
        and method == filters == 0
        and interlacing in {0, 1}
        and (color_type != _PALETTE or b"PLTE" in contents)
    )
    if not valid:
        raise rejections.damaged()
    return _Header(width, height, bits, color_type, interlaced=bool(interlacing))


def _pixels(data: bytes, chunks: _Chunks) -> Iterator[bytes | memoryview]:
    """Return the chunks of pixels as they are; only one that was cut off is made again."""
    whole = chunks.pixels[:-1] if chunks.cut else chunks.pixels
    for start, end in whole:
        yield memoryview(data)[start - _HEAD : end + _CRC]
    if chunks.cut:
        start, end = chunks.pixels[-1]
        yield _chunk(b"IDAT", data[start:end])


def _transparent(contents: dict[bytes, bytes], header: _Header) -> tuple[int, ...] | None:
    samples = {_GRAY: 1, _RGB: 3}.get(header.color_type, 0)
    content = contents.get(b"tRNS", b"")
    if not samples or len(content) != 2 * samples:
        return None
    return tuple(
        value & ((1 << header.bits) - 1) for value in struct.unpack(f">{samples}H", content)
    )


def _color(contents: dict[bytes, bytes]) -> tuple[bytes, Signal | None]:
    """Return the profile (empty: none), or what else says how to see the values; in the specification's order."""
    if b"cICP" in contents and len(contents[b"cICP"]) == 4:  # noqa: PLR2004 - its fields
        primaries, transfer, _, full_range = contents[b"cICP"]
        known, signal = signals.of_codes(primaries, transfer, full_range=bool(full_range))
        if known:
            return b"", signal
    if profile := _profile(contents.get(b"iCCP", b"")):
        return profile, None
    if b"sRGB" in contents:
        return b"", None
    return b"", _gamma(contents.get(b"gAMA", b""), contents.get(b"cHRM", b""))


def _profile(content: bytes) -> bytes:
    """Return the profile in an iCCP chunk: a name, a zero, the compression method (0), and zlib data."""
    name, zero, rest = content.partition(b"\x00")
    if not (name and zero and rest[:1] == b"\x00"):
        return b""
    inflater = zlib.decompressobj()
    try:
        profile = inflater.decompress(rest[1:], _MAX_PROFILE)
    except zlib.error:
        return b""
    return profile if inflater.eof else b""


def _gamma(gamma: bytes, chromaticities: bytes) -> Signal | None:
    exponent = None
    if len(gamma) == 4 and (value := int.from_bytes(gamma, "big")):  # noqa: PLR2004 - a 32-bit number
        exponent = 100_000 / value
    primaries = None
    if len(chromaticities) == 32:  # noqa: PLR2004 - eight 32-bit numbers
        points = [value / 100_000 for value in struct.unpack(">8I", chromaticities)]
        primaries = signals.plausible(points)
    return signals.of_gamma(exponent, primaries)


def _aspect(content: bytes) -> Fraction:
    if len(content) != 9:  # noqa: PLR2004 - two 32-bit numbers and a unit
        return Fraction(1)
    return aspect_of(*struct.unpack(">II", content[:8]))


def _frames(content: bytes, *, hidden: bool) -> int:
    """Return the number of images: those of the animation, and one in front that is not part of it."""
    if len(content) != 8:  # noqa: PLR2004 - two 32-bit numbers
        return 1
    return max(1, int.from_bytes(content[:4], "big") + hidden)


def _chunk(name: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(name + content)
    return b"".join(
        itertools.chain((struct.pack(">I", len(content)), name, content, struct.pack(">I", crc)))
    )
