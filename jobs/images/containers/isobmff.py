"""AVIF and HEIC: what the primary image says about its colors and its pixels' shape; EXIF and XMP are hidden.

Decoders apply the rotation of the container itself; EXIF orientation has no meaning there.

Source: ISO/IEC 14496-12 (boxes, ``colr``, ``pasp``) and ISO/IEC 23008-12 (``iprp``, ``ipma``, ``iinf``).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from jobs.images.containers import signals
from jobs.images.containers.container import Container, Signal, aspect_of

#: Types of items that are metadata, and the type that hides them.
_METADATA, _HIDDEN = frozenset({b"Exif", b"mime"}), b"skip"
#: Boxes of one level that are read. Real files have a few dozen.
_MAX_BOXES = 4096


@dataclass(frozen=True, slots=True)
class _Box:
    name: bytes
    start: int
    end: int


def read(data: bytes) -> Container:
    """Return the facts of an AVIF or a HEIC. A structure that cannot be read is left to the decoder."""
    hidden = bytearray(data)
    signal, aspect, profiled = None, Fraction(1), False
    meta = _first(data, b"meta", 0, len(data))
    if meta is not None:
        try:
            _hide_metadata(hidden, meta)
            for box in _properties(data, meta):
                if box.name == b"pasp":
                    aspect = aspect_of(*_reversed_pair(data, box))
                elif box.name == b"colr":
                    kind = data[box.start : box.start + 4]
                    profiled |= kind in {b"prof", b"rICC"}
                    if kind == b"nclx":
                        signal = _signal(data, box)
        except (struct.error, IndexError):
            pass
    return Container(data=bytes(hidden), signal=None if profiled else signal, aspect=aspect)


def _boxes(data: bytes | bytearray, start: int, end: int) -> Iterator[_Box]:
    for _ in range(_MAX_BOXES):
        if start + 8 > end:
            return
        size, name = struct.unpack_from(">I4s", data, start)
        head = 8
        if size == 1 and start + 16 <= end:
            (size,), head = struct.unpack_from(">Q", data, start + 8), 16
        elif size == 0:
            size = end - start
        if size < head or start + size > end:
            return
        yield _Box(name, start + head, start + size)
        start += size


def _first(data: bytes | bytearray, name: bytes, start: int, end: int) -> _Box | None:
    box = next((box for box in _boxes(data, start, end) if box.name == name), None)
    # A full box has a version and flags in front of its content.
    return _Box(name, box.start + 4, box.end) if box and name == b"meta" else box


def _hide_metadata(data: bytearray, meta: _Box) -> None:
    items = _first(data, b"iinf", meta.start, meta.end)
    if items is None:
        return
    version = data[items.start]
    for entry in _boxes(data, items.start + (6 if version == 0 else 8), items.end):
        # Version 2 has a short item id and version 3 a long one, in front of the type.
        at = entry.start + {2: 8, 3: 10}.get(data[entry.start], 0)
        if entry.name == b"infe" and at > entry.start and bytes(data[at : at + 4]) in _METADATA:
            data[at : at + 4] = _HIDDEN


def _properties(data: bytes, meta: _Box) -> Iterator[_Box]:
    """Return the properties of the primary item."""
    primary, properties = (_first(data, name, meta.start, meta.end) for name in (b"pitm", b"iprp"))
    if primary is None or properties is None:
        return
    wide = data[primary.start] > 0
    item = int.from_bytes(data[primary.start + 4 : primary.start + (8 if wide else 6)], "big")
    contents = _first(data, b"ipco", properties.start, properties.end)
    links = _first(data, b"ipma", properties.start, properties.end)
    if contents is None or links is None:
        return
    boxes = list(_boxes(data, contents.start, contents.end))
    for index in _indices(data, links, item):
        if 1 <= index <= len(boxes):
            yield boxes[index - 1]


def _indices(data: bytes, links: _Box, item: int) -> Iterator[int]:
    version, wide = data[links.start], data[links.start + 3] & 1
    (entries,) = struct.unpack_from(">I", data, links.start + 4)
    at = links.start + 8
    for _ in range(min(entries, _MAX_BOXES)):
        (owner,) = struct.unpack_from(">I" if version else ">H", data, at)
        at += 4 if version else 2
        count, at = data[at], at + 1
        if owner == item:
            for number in range(count):
                (index,) = struct.unpack_from(
                    ">H" if wide else ">B", data, at + number * (1 + wide)
                )
                yield index & (0x7FFF if wide else 0x7F)
        at += count * (1 + wide)


def _signal(data: bytes, box: _Box) -> Signal | None:
    primaries, transfer = struct.unpack_from(">HH", data, box.start + 4)
    # Decoders expand a narrow range when they convert to RGB.
    return signals.of_codes(primaries, transfer, full_range=True)[1]


def _reversed_pair(data: bytes, box: _Box) -> tuple[int, int]:
    """Return vertical and horizontal spacing, which are to each other as resolutions across and down."""
    across, down = struct.unpack_from(">II", data, box.start)
    return down, across
