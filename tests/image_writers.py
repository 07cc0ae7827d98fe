"""Writes image files of kinds that Pillow does not write: all depths, byte orders, layouts, and damage."""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

Pixel = tuple[int, ...]
#: The samples of the pixel at (x, y).
Picture = Callable[[int, int], Pixel]


def flat(*pixel: int) -> Picture:
    """Return a picture of one color."""
    return lambda _x, _y: pixel


_PASSES = (
    (0, 8, 0, 8),
    (4, 8, 0, 8),
    (0, 4, 4, 8),
    (2, 4, 0, 4),
    (0, 2, 2, 4),
    (1, 2, 0, 2),
    (0, 1, 1, 2),
)
PNG = b"\x89PNG\r\n\x1a\n"


def chunk(name: bytes, content: bytes) -> bytes:
    """Return a PNG chunk with the right CRC."""
    crc = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)


def png(
    size: tuple[int, int],
    bits: int,
    color_type: int,
    picture: Picture,
    *,
    chunks: Sequence[bytes] = (),
    interlaced: bool = False,
    block: int = 1 << 20,
) -> bytes:
    """Return a PNG whose rows use all five filters in turn.

    Args:
        size: width and height.
        bits: bits per sample.
        color_type: PNG's.
        picture: gives samples of that many bits.
        chunks: ancillary chunks in front of the pixels, and the palette.
        interlaced: whether it has seven passes.
        block: bytes of pixels in a chunk.
    """
    width, height = size
    rows = b""
    for left, right, top, down in _PASSES if interlaced else ((0, 1, 0, 1),):
        columns = range(left, width, right)
        if columns:
            lines = [
                packed([picture(x, y) for x in columns], bits) for y in range(top, height, down)
            ]
            step = max(1, len(picture(0, 0)) * bits // 8)
            rows += b"".join(_filtered(lines, step))
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, interlaced)
    pixels = zlib.compress(rows)
    blocks = [chunk(b"IDAT", pixels[at : at + block]) for at in range(0, len(pixels), block)]
    return b"".join([PNG, chunk(b"IHDR", header), *chunks, *blocks, chunk(b"IEND", b"")])


def packed(pixels: Sequence[Pixel], bits: int, order: str = ">") -> bytes:
    """Return one row of samples, the first one in the upper bits."""
    samples = [sample for pixel in pixels for sample in pixel]
    if bits in {8, 16, 32}:
        return struct.pack(f"{order}{len(samples)}{ {8: 'B', 16: 'H', 32: 'I'}[bits] }", *samples)
    length = (len(samples) * bits + 7) // 8
    number = 0
    for sample in samples:
        number = number << bits | sample
    return (number << (length * 8 - len(samples) * bits)).to_bytes(length, "big")


def _filtered(lines: list[bytes], step: int) -> Iterator[bytes]:
    above = bytes(len(lines[0]))
    for number, line in enumerate(lines):
        kind = number % 5
        left = bytes(step) + line
        corner = bytes(step) + above
        guesses = [
            (0, a, b, (a + b) // 2, _paeth(a, b, c))[kind]
            for a, b, c in zip(left, above, corner, strict=False)
        ]
        yield bytes([kind, *((x - guess) & 255 for x, guess in zip(line, guesses, strict=True))])
        above = line


def _paeth(a: int, b: int, c: int) -> int:
    estimate = a + b - c
    return min((a, b, c), key=lambda value: (abs(estimate - value), (a, b, c).index(value)))


#: TIFF types: SHORT, LONG, RATIONAL, FLOAT, UNDEFINED.
SHORT, LONG, RATIONAL, UNDEFINED = 3, 4, 5, 7
Values = tuple[int, Sequence[int | Fraction]]
Page = tuple[dict[int, Values], bytes]


def tiff(
    *pages: Page, order: str = "<", big: bool = False, below: Sequence[Page] = (), last: int = 0
) -> bytes:
    """Return a TIFF of pages of ``{tag: (type, values)}`` and one strip each.

    Args:
        pages: tags without the place and the length of the strip, and the strip.
        order: ``<`` or ``>``.
        big: whether it is a BigTIFF.
        below: pages that the first page refers to as SubIFDs.
        last: the place of the page behind the last one.
    """
    mark = b"II" if order == "<" else b"MM"
    offset, count, pad = ("Q", "Q", 8) if big else ("I", "H", 4)
    out = bytearray(mark + struct.pack(f"{order}H", 43 if big else 42))
    out += struct.pack(f"{order}HHQ", 8, 0, 0) if big else bytes(4)

    def write(page: Page) -> tuple[int, int]:
        """Return the places of the directory, and of its pointer to the next one."""
        tags, strip = page
        out.extend(bytes(-len(out) % 4))
        sizes = [int(size) for size in tags.get(279, (LONG, [len(strip)]))[1]]
        offsets = [len(out) + sum(sizes[:number]) for number in range(len(sizes))]
        full = {273: (LONG, offsets), 279: (LONG, sizes), **tags}
        out.extend(strip + bytes(-len(strip) % 4))
        entries = []
        for tag, (kind, values) in sorted(full.items()):
            raw = _values(kind, values, order)
            if len(raw) > pad:
                place = len(out)
                out.extend(raw + bytes(-len(raw) % 4))
                raw = struct.pack(order + offset, place)
            head = struct.pack(f"{order}HH{offset}", tag, kind, len(values))
            entries.append(head + raw.ljust(pad, b"\x00"))
        place = len(out)
        out.extend(struct.pack(order + count, len(entries)) + b"".join(entries))
        out.extend(bytes(pad))
        return place, len(out) - pad

    places = [write(page)[0] for page in below]
    pointer = len(out[: 16 if big else 8]) - pad
    for number, (tags, strip) in enumerate(pages):
        extra: dict[int, Values] = {330: (LONG, places)} if places and not number else {}
        place, following = write(({**tags, **extra}, strip))
        struct.pack_into(order + offset, out, pointer, place)
        pointer = following
    struct.pack_into(order + offset, out, pointer, last)
    return bytes(out)


def _values(kind: int, values: Sequence[int | Fraction], order: str) -> bytes:
    if kind == UNDEFINED:
        return bytes(int(value) for value in values)
    if kind == RATIONAL:
        parts = itertools.chain.from_iterable(
            Fraction(value).as_integer_ratio() for value in values
        )
        return struct.pack(f"{order}{2 * len(values)}I", *parts)
    letter = {SHORT: "H", LONG: "I"}[kind]
    return struct.pack(f"{order}{len(values)}{letter}", *map(int, values))


def page(
    size: tuple[int, int],
    bits: int,
    photometric: int,
    picture: Picture,
    *,
    order: str = "<",
    compression: int = 1,
    tags: dict[int, Values] | None = None,
    planes: bool = False,
) -> Page:
    """Return a TIFF page with one strip, or one strip for each plane, uncompressed (1) or deflated (8)."""
    width, height = size
    samples = len(picture(0, 0))
    pixels = [[picture(x, y) for x in range(width)] for y in range(height)]
    if planes:
        strips = [
            b"".join(packed([(pixel[plane],) for pixel in row], bits, order) for row in pixels)
            for plane in range(samples)
        ]
    else:
        strips = [b"".join(packed(row, bits, order) for row in pixels)]
    if compression == 8:
        strips = [zlib.compress(strip) for strip in strips]
    all_tags: dict[int, Values] = {
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, [bits] * samples),
        259: (SHORT, [compression]),
        262: (SHORT, [photometric]),
        277: (SHORT, [samples]),
        278: (LONG, [height]),
        279: (LONG, [len(strip) for strip in strips]),
        284: (SHORT, [2 if planes else 1]),
        **(tags or {}),
    }
    return all_tags, b"".join(strips)


def float_bits(value: float) -> int:
    """Return a number whose 32 bits are those of a floating-point number."""
    number: int = struct.unpack("<I", struct.pack("<f", value))[0]
    return number


def bmp(
    size: tuple[int, int],
    bits: int,
    picture: Callable[[int, int], int],
    *,
    masks: Sequence[int] = (),
    header: int = 40,
    resolution: tuple[int, int] = (0, 0),
    tail: bytes = b"",
) -> bytes:
    """Return an uncompressed BMP of 16, 24 or 32 bits per pixel; ``tail`` follows the pixels."""
    width, height = size
    rows = b""
    for y in reversed(range(height)):
        row = b"".join(picture(x, y).to_bytes(bits // 8, "little") for x in range(width))
        rows += row + bytes(-len(row) % 4)
    outside = struct.pack(f"<{len(masks)}I", *masks) if header == 40 else b""
    inside = b"" if header == 40 else struct.pack(f"<{len(masks)}I", *masks)
    start = 14 + header + len(outside)
    info = struct.pack(
        "<IiiHHIIiiII",
        *(header, width, height, 1, bits, 3 if masks else 0, len(rows), *resolution, 0, 0),
    )
    head = b"BM" + struct.pack("<IHHI", start + len(rows) + len(tail), 0, 0, start)
    return head + (info + inside).ljust(header, b"\x00") + outside + rows + tail
