"""TIFF: finds the page that is the image, and gives decoders a file with that page alone.

A file can contain several pages and, below them, further directories. A page that is marked as a reduced copy or as
a mask is not the image. The decoder's file ends with a new directory that has only the tags that decide
pixels and colors, and refers to the values in the rest of the file.

Sources: TIFF 6.0; Adobe's supplements (BigTIFF, DNG 1.7, TIFF Technical Note 1: SubIFDs).
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Final

from jobs.images import rejections
from jobs.images.containers.container import Container, Depth, aspect_of

_Value = int | Fraction

#: Bytes of the types of values.
_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_BIG_SIZES: Final = {**_SIZES, 16: 8, 17: 8, 18: 8}
_FORMATS: Final = {
    1: "B",
    3: "H",
    4: "I",
    6: "b",
    8: "h",
    9: "i",
    13: "I",
    16: "Q",
    17: "q",
    18: "Q",
}
_RATIONAL: Final = 5
_SHORT, _LONG, _LONG8 = 3, 4, frozenset({16, 17, 18})
#: Bytes of values that fit into an entry of classic TIFF.
_INLINE: Final = 4
#: Most values of a tag that are read here, and most entries of a directory.
_MAX_VALUES, _MAX_ENTRIES = 64, 4096
#: Most directories that are counted, and most that are searched for the image.
_MAX_DIRECTORIES, _MAX_SEARCHED = 65_536, 64

SUBFILE, OLD_SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = (
    254,
    255,
    256,
    257,
    258,
    259,
    262,
)
STRIPS, ORIENTATION, SAMPLES, MAX_SAMPLE = 273, 274, 277, 281
ACROSS, DOWN, UNIT, TILES, SUBDIRECTORIES, EXTRA, SAMPLE_FORMAT = 282, 283, 296, 324, 330, 338, 339
ROWS, STRIP_SIZES, PLANES = 278, 279, 284
TILE_WIDTH, TILE_HEIGHT, TILE_SIZES = 322, 323, 325
MAX_SAMPLE_VALUE, PROFILE, DNG, JPEG_OFFSET = 341, 34675, 50706, 513
#: Tags that the decoder gets if their values are in the file, and those without which there is no image.
_NEEDED: Final = frozenset({WIDTH, HEIGHT, STRIPS, TILES})
_DECISIVE: Final = _NEEDED | frozenset(
    {
        *(BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, EXTRA, SAMPLE_FORMAT, PROFILE),
        *(266, 278, 279, 284, 292, 293, 317, 320, 322, 323, 325, 332, 347),
        *range(512, 522),
        *range(529, 533),
    }
)
#: Bits of NewSubfileType, and values of the older SubfileType.
_REDUCED, _MASK = 1, 4
_OLD_REDUCED = 2
#: Photometric interpretations: 0 is white, 0 is black; color filters and linear data of a sensor.
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _TRANSPARENCY, _YCBCR = 0, 1, 2, 4, 6
_RGB_SAMPLES = 3
#: The greatest code of uncompressed pixels, and the code of separate planes.
_UNCOMPRESSED, _SEPARATE = 1, 2
_FAX: Final = frozenset({2, 3, 4})
_SENSOR: Final = frozenset({32803, 34892})
_COLORS: Final = {
    0: "gray",
    1: "gray",
    2: "RGB",
    3: "palette",
    4: "mask",
    5: "CMYK",
    6: "YCbCr",
    8: "Lab",
    9: "Lab",
    10: "Lab",
    32844: "LogL",
    32845: "LogLuv",
}
#: Compressions that decoders read; others, with their names.
_READ_COMPRESSIONS: Final = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 34925, 50000})
_COMPRESSIONS: Final = {
    9: "JBIG",
    10: "JBIG",
    32766: "NeXT",
    32771: "CCITT RLE",
    32809: "ThunderScan",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34661: "JBIG",
    34676: "SGI Log",
    34677: "SGI Log",
    34712: "JPEG 2000",
    34887: "LERC",
    34892: "lossy JPEG of DNG",
    34933: "PNG",
    34934: "JPEG XR",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_SAMPLE_FORMATS: Final = {
    _SIGNED: "signed ",
    _FLOAT: "floating-point ",
    5: "complex ",
    6: "complex ",
}
_EIGHT_BITS, _SIXTEEN_BITS = 8, 16
#: The versions in the headers of classic TIFF and BigTIFF.
_CLASSIC, _BIG = 42, 43
#: Inch and centimeter; without a unit, resolutions still give the shape of pixels.
_UNITS: Final = frozenset({1, 2, 3})


@dataclass(frozen=True, slots=True)
class _Entry:
    tag: int
    kind: int
    count: int
    #: Where the values are.
    values: int
    #: Whether the values are not in the file.
    lost: bool


class _Reader:
    """The structure of a file: byte order, and the sizes of classic TIFF or BigTIFF."""

    def __init__(self, data: bytes) -> None:
        #: The file; its first eight bytes are the header of classic TIFF, or the beginning of BigTIFF's.
        self.data = data
        self.order = "<" if data[:2] == b"II" else ">"
        self.big = _BIG in data[2:4]
        self.offset_format = "Q" if self.big else "I"
        self.offset_size = 8 if self.big else 4
        self._count_format = "Q" if self.big else "H"
        self._count_size = 8 if self.big else 2
        self._entry_size = 20 if self.big else 12

    @property
    def header(self) -> int:
        """The size of the header; its last field is the place of the first directory."""
        return 16 if self.big else 8

    @property
    def first(self) -> int:
        """The place of the first directory."""
        return self._number(self.offset_format, self.header - self.offset_size)

    def directory(self, at: int) -> _Directory | None:
        """Return the directory at this place, or None if it is not complete."""
        if not self.header <= at <= len(self.data) - self._count_size:
            return None
        count = self._number(self._count_format, at)
        start = at + self._count_size
        end = start + count * self._entry_size
        if not 0 < count <= _MAX_ENTRIES or end > len(self.data):
            return None
        # Some writers omit the place of the next directory at the end of the file.
        following = (
            self._number(self.offset_format, end) if end + self.offset_size <= len(self.data) else 0
        )
        return _Directory(self, at, start, count, following)

    def entries(self, start: int, count: int) -> Iterator[_Entry]:
        """Return the entries of a directory whose types are known."""
        sizes = _BIG_SIZES if self.big else _SIZES
        for at in range(start, start + count * self._entry_size, self._entry_size):
            tag, kind = struct.unpack_from(f"{self.order}HH", self.data, at)
            number = self._number(self.offset_format, at + 4)
            field = at + 4 + self.offset_size
            if kind in sizes:
                inline = number * sizes[kind] <= self.offset_size
                values = field if inline else self._number(self.offset_format, field)
                lost = values + number * sizes[kind] > len(self.data)
                yield _Entry(tag, kind, 0 if lost else number, values, lost)

    def values(self, entry: _Entry) -> tuple[_Value, ...]:
        """Return the numbers of an entry, at most the first 64; none for text and floating-point values."""
        count = min(entry.count, _MAX_VALUES)
        if entry.kind == _RATIONAL:
            numbers = struct.unpack_from(f"{self.order}{2 * count}I", self.data, entry.values)
            pairs = zip(numbers[0::2], numbers[1::2], strict=True)
            return tuple(Fraction(above, below) if below else Fraction(0) for above, below in pairs)
        letter = _FORMATS.get(entry.kind)
        if letter is None:
            return ()
        return struct.unpack_from(f"{self.order}{count}{letter}", self.data, entry.values)

    def all_numbers(self, entry: _Entry) -> tuple[int, ...]:
        """Return all values of an entry, which are whole numbers."""
        letter = _FORMATS.get(entry.kind)
        if letter is None:
            return ()
        return struct.unpack_from(f"{self.order}{entry.count}{letter}", self.data, entry.values)

    def content(self, entry: _Entry) -> tuple[int, bytes]:
        """Return the type and the bytes of all values of an entry, without types that only BigTIFF has."""
        size = entry.count * _BIG_SIZES[entry.kind]
        content = self.data[entry.values : entry.values + size]
        if entry.kind not in _LONG8:
            return entry.kind, content
        numbers = struct.unpack(f"{self.order}{entry.count}Q", content)
        return _LONG, struct.pack(f"{self.order}{entry.count}I", *numbers)

    def alone(self, directory: _Directory, photometric: int) -> bytes:
        """Return the file as a classic TIFF with one directory, at its end, that has only the needed tags."""
        tail = bytearray(len(self.data) % 2)
        entries = {}
        for tag in _DECISIVE & directory.entries.keys():
            entry = directory.entries[tag]
            if entry.lost and tag != PROFILE:
                raise rejections.damaged()
            kind, content = self.content(entry)
            count = len(content) // _SIZES[kind]
            if len(content) > _INLINE:
                place = struct.pack(f"{self.order}I", len(self.data) + len(tail))
                tail += content + bytes(len(content) % 2)
                content = place
            head = struct.pack(f"{self.order}HHI", tag, kind, count)
            entries[tag] = head + content.ljust(_INLINE, b"\x00")
        entries[PHOTOMETRIC] = struct.pack(
            f"{self.order}HHIHH", PHOTOMETRIC, _SHORT, 1, photometric, 0
        )
        mark = self.data[:2] + struct.pack(f"{self.order}HI", _CLASSIC, len(self.data) + len(tail))
        rows = [entries[tag] for tag in sorted(entries)]
        count_field = struct.pack(f"{self.order}H", len(rows))
        return b"".join([mark, memoryview(self.data)[8:], tail, count_field, *rows, bytes(4)])

    def _number(self, letter: str, at: int) -> int:
        number: int = struct.unpack_from(self.order + letter, self.data, at)[0]
        return number


class _Directory:
    """One page of a file, or a directory below a page."""

    def __init__(self, reader: _Reader, at: int, start: int, count: int, following: int) -> None:
        self.reader, self.at, self.following = reader, at, following
        self._start, self._count = start, count

    @cached_property
    def entries(self) -> dict[int, _Entry]:
        """The first entry of each tag."""
        first: dict[int, _Entry] = {}
        for entry in self.reader.entries(self._start, self._count):
            first.setdefault(entry.tag, entry)
        return first

    def numbers(self, tag: int) -> tuple[_Value, ...]:
        """Return the values of a tag; none if it is missing."""
        entry = self.entries.get(tag)
        return () if entry is None else self.reader.values(entry)

    def number(self, tag: int, default: int) -> int:
        """Return the first value of a tag."""
        numbers = self.numbers(tag)
        return int(numbers[0]) if numbers else default

    def all_numbers(self, tag: int) -> tuple[int, ...]:
        """Return all values of a tag with whole numbers; none if it is missing."""
        entry = self.entries.get(tag)
        return () if entry is None else self.reader.all_numbers(entry)

    @property
    def is_full(self) -> bool:
        """Whether this is an image, and neither a reduced copy nor a mask."""
        return (
            not self.number(SUBFILE, 0) & (_REDUCED | _MASK)
            and self.number(OLD_SUBFILE, 0) != _OLD_REDUCED
            and self.photometric != _TRANSPARENCY
        )

    @property
    def photometric(self) -> int:
        """How samples become colors. Without the tag, readers conclude it from the other ones."""
        guess = _BLACK_IS_ZERO
        if self.number(SAMPLES, 1) >= _RGB_SAMPLES:
            guess = _RGB
        elif self.number(COMPRESSION, 1) in _FAX:
            guess = _WHITE_IS_ZERO
        return self.number(PHOTOMETRIC, guess)

    @property
    def is_raw(self) -> bool:
        """Whether the samples are those of a camera's sensor."""
        return self.photometric in _SENSOR

    @property
    def has_pixels(self) -> bool:
        """Whether the places of pixels are known."""
        return not self.entries.keys().isdisjoint({STRIPS, TILES, JPEG_OFFSET})


def read(data: bytes) -> Container:
    """Return the facts of a TIFF, and a file with its full page alone.

    Raises:
        core.errors.ImageRejected: as :func:`jobs.images.containers.read` says.
    """
    try:
        reader = _Reader(data)
        pages = list(_pages(reader, [reader.first]))
        if not pages:
            raise rejections.damaged()
        return _container(reader, _image(pages), frames=len(pages))
    except struct.error:
        raise rejections.damaged() from None


def first_numbers(data: bytes) -> dict[int, int]:
    """Return the first number of each tag in the first directory of TIFF data; empty if they are damaged."""
    try:
        directory = _Reader(data).directory(_Reader(data).first)
        if directory is None:
            return {}
        return {tag: directory.number(tag, 0) for tag in directory.entries}
    except struct.error:
        return {}


def _pages(reader: _Reader, starts: Iterable[int]) -> Iterator[_Directory]:
    """Return the directories of chains, each up to the first one that is damaged or was seen before."""
    seen: set[int] = set()
    for start in starts:
        at = start
        while at not in seen and len(seen) < _MAX_DIRECTORIES:
            seen.add(at)
            directory = reader.directory(at)
            if directory is None:
                break
            yield directory
            at = directory.following


def _image(pages: list[_Directory]) -> _Directory:
    """Return the page that is the image.

    Raises:
        core.errors.ImageRejected: the file is a raw photo, or its full page is missing.
    """
    first = pages[0]
    if first.reader.data[8:11] == b"CR\x02":
        raise rejections.unsupported("a raw photo (CR2)")
    places = [int(place) for place in first.numbers(SUBDIRECTORIES)]
    below = list(itertools.islice(_pages(first.reader, places), _MAX_SEARCHED))
    # Some cameras do not mark their preview as a reduced copy.
    if any(one.is_raw for one in (first, *below)):
        raise rejections.unsupported("a raw photo")
    if first.is_full and first.has_pixels:
        return first
    others = [*pages[1:_MAX_SEARCHED], *below]
    full = [one for one in others if one.is_full and one.has_pixels]
    if DNG in first.entries or any(one.is_raw for one in full):
        raise rejections.unsupported("a raw photo")
    if full:
        return full[0]
    if others:
        raise rejections.unsupported("a TIFF that has only reduced copies of an image")
    if places or first.is_full:
        # The original of the copy, or the pixels of the page, are lost.
        raise rejections.damaged()
    # A copy without an original in the file is the image of the file.
    return first


def _container(reader: _Reader, page: _Directory, *, frames: int) -> Container:
    _check_kind(page)
    _check_places(page)
    bits = page.number(BITS, 1)
    photometric = page.photometric
    inverted = photometric == _WHITE_IS_ZERO and bits > _EIGHT_BITS
    if inverted:
        photometric = _BLACK_IS_ZERO
    orientation = page.number(ORIENTATION, 1)
    return Container(
        data=reader.alone(page, photometric),
        exif=b"",
        orientation=orientation if 1 <= orientation <= 8 else 1,  # noqa: PLR2004 - EXIF's values
        aspect=_aspect(page),
        frames=frames,
        depth=Depth(whites=_whites(page, bits), inverted=inverted),
        kind=_kind(page),
    )


def _check_places(page: _Directory) -> None:
    """Reject a page whose pixels are not completely in the file."""
    tiled = TILES in page.entries
    # Each row may have a strip, but not more; tiles have at least one pixel.
    most = (
        page.number(SAMPLES, 1) * page.number(HEIGHT, 0) * (page.number(WIDTH, 0) if tiled else 1)
    )
    places = page.all_numbers(TILES if tiled else STRIPS)[: max(1, most)]
    # Chroma of uncompressed YCbCr may be subsampled.
    if page.number(COMPRESSION, 1) <= _UNCOMPRESSED and page.photometric != _YCBCR:
        sizes = [
            _bytes_of_part(page, len(places), number, tiled=tiled) for number in range(len(places))
        ]
    else:
        sizes = list(page.all_numbers(TILE_SIZES if tiled else STRIP_SIZES))
    ends = map(int.__add__, places, sizes)
    if any(end > len(page.reader.data) for end in ends):
        raise rejections.damaged()


def _bytes_of_part(page: _Directory, parts: int, number: int, *, tiled: bool) -> int:
    """Return the size of an uncompressed tile or strip by its number; strips of all planes follow each other."""
    planes = page.number(SAMPLES, 1) if page.number(PLANES, 1) == _SEPARATE else 1
    samples = page.number(SAMPLES, 1) // planes
    height = page.number(HEIGHT, 0)
    wide = page.number(TILE_WIDTH if tiled else WIDTH, 0)
    tall = page.number(TILE_HEIGHT if tiled else ROWS, height)
    if not tiled and tall:
        tall = min(tall, height - number % max(1, parts // planes) * tall)
    return max(0, tall) * ((wide * samples * page.number(BITS, 1) + 7) // 8)


def _check_kind(page: _Directory) -> None:
    """Reject a page whose compression no decoder reads, or whose deep colors have an unusual white."""
    compression = page.number(COMPRESSION, 1)
    if compression in _COMPRESSIONS:
        raise rejections.unsupported(f"a TIFF with {_COMPRESSIONS[compression]} compression")
    bits, samples = page.number(BITS, 1), page.number(SAMPLES, 1)
    if samples == 2 and page.number(PLANES, 1) == _SEPARATE:  # noqa: PLR2004 - gray and alpha
        raise rejections.unsupported("a TIFF with two samples in separate planes")
    if page.number(SAMPLE_FORMAT, _UNSIGNED) == _SIGNED and (bits <= _EIGHT_BITS or samples > 1):
        raise rejections.unsupported(f"a TIFF with signed samples of {bits} bits")
    if samples > 1 and bits == _SIXTEEN_BITS:
        white = max((int(value) for value in page.numbers(MAX_SAMPLE)), default=0xFFFF)
        # Decoders keep the upper 8 bits.
        if 1 < white < 0x8000 and not white & (white + 1):  # noqa: PLR2004 - half of the range
            raise rejections.unsupported(f"a TIFF in color whose samples end at {white}")


def _whites(page: _Directory, bits: int) -> tuple[float, ...]:
    """Return the possible values of white, as the page states them."""
    form = page.number(SAMPLE_FORMAT, _UNSIGNED)
    if form == _FLOAT:
        return ()
    most = (1 << min(bits, 64)) - 1 if form == _UNSIGNED else (1 << min(bits - 1, 63)) - 1
    for tag in (MAX_SAMPLE, MAX_SAMPLE_VALUE):
        stated = page.number(tag, 0)
        # Only all ones in binary state a depth: other values are the maximum of this image, which may be dark.
        if bits > _EIGHT_BITS and 1 < stated < most and not stated & (stated + 1):
            return (float(stated),)
    if form == _UNSIGNED and bits <= _SIXTEEN_BITS:
        return (float(most),)
    return (255.0, 32767.0 if bits <= _SIXTEEN_BITS else 65535.0)


def _aspect(page: _Directory) -> Fraction:
    across, down = page.numbers(ACROSS), page.numbers(DOWN)
    if not (across and down) or page.number(UNIT, 2) not in _UNITS:
        return Fraction(1)
    return aspect_of(across[0], down[0])


def _kind(page: _Directory) -> str | None:
    """Return what the page is, if its structure makes sense; a decoder may not know it all the same."""
    width, height = page.number(WIDTH, 0), page.number(HEIGHT, 0)
    bits, samples = page.number(BITS, 1), page.number(SAMPLES, 1)
    color = _COLORS.get(page.photometric)
    form = page.number(SAMPLE_FORMAT, _UNSIGNED)
    sound = (
        width > 0
        and height > 0
        and 1 <= bits <= 128  # noqa: PLR2004 - complex numbers of 64-bit floats
        and 1 <= samples <= _MAX_VALUES
        and 1 <= form <= 6  # noqa: PLR2004 - the values of SampleFormat
        and page.number(COMPRESSION, 1) in _READ_COMPRESSIONS
        and page.has_pixels
    )
    if color is None or not sound:
        return None
    each = f"{samples} samples" if samples > 1 else "one sample"
    return f"a TIFF in {color} with {each} of {bits} {_SAMPLE_FORMATS.get(form, '')}bits per pixel"
