"""A file that is intact but of a kind that is not read is named; it is not called damaged."""

from __future__ import annotations

import base64
import struct
import zlib

import pytest

from tests import image_files
from tests import image_writers as writers

SIZE = (84, 56)
DAMAGED, UNSUPPORTED, FOREIGN = (
    "image_parse_error",
    "unsupported_image_media_type",
    "invalid_image_format",
)


def jpeg(frame: int = 0xC0, bits: int = 8) -> bytes:
    """A JPEG whose frame has this marker and this number of bits per sample."""
    data = bytearray(image_files.file_of(image_files.gradient(*SIZE), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 1], data[at + 4] = frame, bits
    return bytes(data)


def tiff(
    bits: int = 8, photometric: int = 2, samples: int = 3, **numbers: int | list[int]
) -> bytes:
    """An uncompressed TIFF of one color; keyword arguments like ``t259=8`` are further tags."""
    tags: dict[int, writers.Values] = {
        int(name[1:]): (writers.SHORT, value if isinstance(value, list) else [value])
        for name, value in numbers.items()
    }
    page = writers.page(
        SIZE, 8, photometric, writers.flat(*(1,) * (samples * bits // 8)), tags=tags
    )
    described: dict[int, writers.Values] = {
        258: (writers.SHORT, [bits] * samples),
        277: (writers.SHORT, [samples]),
    }
    return writers.tiff(({**page[0], **described, **tags}, page[1]))


def raw_photo(photometric: int = 32803, *, mark: int = 1) -> bytes:
    """A small copy, marked as reduced or not, and the full image as samples of a sensor below it."""
    copy = writers.page((28, 28), 8, 2, writers.flat(9, 9, 9), tags={254: (writers.LONG, [mark])})
    full = writers.page(SIZE, 16, photometric, lambda x, y: (x * y,))
    return writers.tiff(copy, below=[full])


def bmp(compression: int) -> bytes:
    data = bytearray(writers.bmp(SIZE, 32, lambda _x, _y: 0))
    struct.pack_into("<I", data, 30, compression)
    return bytes(data)


def cgbi() -> bytes:
    rows = zlib.compress(bytes(57 * 28))
    header = struct.pack(">IIBBBBB", 14, 28, 8, 6, 0, 0, 0)
    chunks = ((b"CgBI", b"\x50\x00\x20\x02"), (b"IHDR", header), (b"IDAT", rows[2:-4]))
    return writers.PNG + b"".join(writers.chunk(name, content) for name, content in chunks)


KINDS: dict[str, tuple[bytes, str]] = {
    "12-bit JPEG": (jpeg(0xC1, 12), "a JPEG with 12 bits per sample"),
    "lossless JPEG": (jpeg(0xC3), "a lossless JPEG"),
    "deep lossless JPEG": (jpeg(0xC3, 16), "a lossless JPEG"),
    "JPEG-LS": (jpeg(0xF7), "a JPEG-LS image"),
    "hierarchical JPEG": (jpeg(0xC5), "a hierarchical JPEG"),
    "CgBI": (cgbi(), "Apple's format"),
    "unknown critical chunk": (
        writers.png(SIZE, 8, 0, lambda x, _y: (x,), chunks=[writers.chunk(b"ZzZz", b"")]),
        "unknown chunk ZzZz",
    ),
    "raw photo": (raw_photo(), "a raw photo"),
    "linear raw photo": (raw_photo(34892), "a raw photo"),
    "raw photo with an unmarked copy": (raw_photo(mark=0), "a raw photo"),
    "sensor first": (tiff(16, 32803, 1), "a raw photo"),
    "CR2": (b"II*\x00\x10\x00\x00\x00CR\x02\x00" + tiff()[16:], "a raw photo (CR2)"),
    "CR3": (b"\x00\x00\x00\x18ftypcrx \x00\x00\x00\x01crx isom", "a raw photo (CR3)"),
    "RAF": (b"FUJIFILMCCD-RAW 0201", "a raw photo (RAF)"),
    "float RGB": (tiff(32, 2, 3, t339=[3, 3, 3]), "3 samples of 32 floating-point bits"),
    "double RGB": (tiff(64, 2, 3, t339=[3, 3, 3]), "3 samples of 64 floating-point bits"),
    "half-precision gray": (tiff(16, 1, 1, t339=3), "16 floating-point bits"),
    "alpha in a plane": (tiff(8, 1, 2, t284=2, t338=2), "two samples in separate planes"),
    "signed bytes": (tiff(8, 1, 1, t339=2), "signed samples of 8 bits"),
    "RGB of 32 bits": (tiff(32, 2, 3), "3 samples of 32 bits"),
    "gray of 24 bits": (tiff(24, 1, 1), "one sample of 24 bits"),
    "WebP in TIFF": (tiff(t259=50001), "WebP compression"),
    "JPEG 2000 in TIFF": (tiff(t259=34712), "JPEG 2000 compression"),
    "JPEG XL in TIFF": (tiff(t259=50002), "JPEG XL compression"),
    "color that ends at 4095": (tiff(16, 2, 3, t281=[4095] * 3), "samples end at 4095"),
    "JPEG in BMP": (bmp(4), "a BMP that contains a JPEG"),
    "PNG in BMP": (bmp(5), "a BMP that contains a PNG"),
    "odd bit fields": (
        writers.bmp(SIZE, 32, lambda _x, _y: 0, masks=(0x3FF00000, 0xFFC00, 0x3FF)),
        "unusual bit fields",
    ),
    "JPEG XL": (b"\xff\x0a\xfa\x7f\x00", "a JPEG XL image"),
    "JPEG XL in a container": (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "a JPEG XL image"),
    "JPEG 2000": (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
    "SVG": (b"<?xml version='1.0'?>\n<!-- a -->\n<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
    "SVG with a mark": (b"\xef\xbb\xbf<svg width='9'/>", "SVG"),
    "icon": (b"\x00\x00\x01\x00\x01\x00", "icon"),
    "Photoshop": (b"8BPS\x00\x01", "Photoshop"),
    "Netpbm": (b"P6\n2 2\n255\n", "Netpbm"),
    "OpenEXR": (b"v/1\x01\x02\x00\x00\x00", "OpenEXR"),
}
NO_IMAGES: dict[str, tuple[bytes, str]] = {
    "PDF": (b"%PDF-1.7\n", "a PDF document"),
    "HTML": (b"\n<!DOCTYPE html><html><title>Log in", "an HTML page"),
    "HTML in UTF-16": ("<html>".encode("utf-16"), "an HTML page"),
    "XML": (b"<?xml version='1.0'?><Error><Code>AccessDenied", "an XML document"),
    "JSON": (b'{"error": "not found"}', "JSON"),
    "base64 of a JPEG": (base64.b64encode(jpeg()), "a JPEG as base64 text"),
    "base64 of a PNG in lines": (
        base64.encodebytes(image_files.file_of(image_files.gradient())),
        "a PNG as base64 text",
    ),
    "data URL": (b"data:image/png;base64,iVBORw0KGgo", "a data URL"),
    "Python bytes": (b"b'\\x89PNG\\r\\n'", "a Python bytes object"),
    "text": (b"how many pelicans?", "it appears to be text"),
    "video": (b"\x00\x00\x00\x18ftypisom\x00\x00\x00\x00mp42isom", "a video"),
    "WebM": (b"\x1aE\xdf\xa3", "video"),
    "WAV": (b"RIFF\x00\x00\x00\x00WAVEfmt ", "a WAV file"),
    "ZIP": (b"PK\x03\x04\x14\x00", "ZIP"),
    "gzip": (b"\x1f\x8b\x08\x00", "gzip"),
    "unknown": (b"\x01\x02\x03\x04\x05", "fit no known format"),
}


@pytest.mark.parametrize(("data", "said"), KINDS.values(), ids=KINDS)
def test_an_image_of_a_kind_that_is_not_read_is_named(data: bytes, said: str) -> None:
    rejected = image_files.refusal(data)

    assert rejected.specific_code == UNSUPPORTED
    assert rejected.http_status == 415
    assert said in rejected.message
    assert "damaged" not in rejected.message
    assert "HEIC, or AVIF" in rejected.message


@pytest.mark.parametrize(("data", "said"), NO_IMAGES.values(), ids=NO_IMAGES)
def test_a_file_that_is_not_an_image_is_named(data: bytes, said: str) -> None:
    rejected = image_files.refusal(data)

    assert rejected.specific_code == FOREIGN
    assert rejected.http_status == 422
    assert said in rejected.message


@pytest.mark.parametrize(
    "data",
    [jpeg(bits=9), tiff(t258=[200] * 3), tiff(photometric=77), tiff(t259=77), tiff()[:-20]],
    ids=["9 bits", "200 bits", "unknown colors", "unknown compression", "truncated"],
)
def test_what_no_writer_makes_is_damage_and_not_a_kind(data: bytes) -> None:
    assert image_files.refusal(data).specific_code == DAMAGED


def test_reduced_copies_without_their_original_are_no_image() -> None:
    tags: dict[int, writers.Values] = {254: (writers.LONG, [1])}
    copy = writers.page(SIZE, 8, 2, writers.flat(9, 9, 9), tags=tags)

    rejected = image_files.refusal(writers.tiff(copy, copy))

    assert rejected.specific_code == UNSUPPORTED
    assert "only reduced copies" in rejected.message


def test_a_reduced_copy_whose_original_is_lost_is_damage() -> None:
    tags: dict[int, writers.Values] = {
        254: (writers.LONG, [1]),
        330: (writers.LONG, [0xFFFFFF]),
    }
    copy = writers.page(SIZE, 8, 2, writers.flat(9, 9, 9), tags=tags)

    assert image_files.refusal(writers.tiff(copy)).specific_code == DAMAGED
