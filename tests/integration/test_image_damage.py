"""Damage in pixels is rejected, damage elsewhere costs nothing, and a missing end is one rule for all formats."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterator

import pytest
from PIL import Image

from core import errors
from jobs.images import pipeline
from tests import image_files
from tests import image_writers as writers

SIZE = (84, 56)
EXIF = b"II*\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00"
DAMAGED, UNSUPPORTED = "image_parse_error", "unsupported_image_media_type"


def outcome(data: bytes) -> str | bytes:
    """The code of the rejection, or the canonical image."""
    try:
        return pipeline.canonicalize(data).data
    except errors.ImageRejected as rejected:
        return rejected.specific_code


def noise(width: int = 120, height: int = 90) -> Image.Image:
    return Image.frombytes("RGB", (width, height), random.Random(3).randbytes(width * height * 3))


def in_front(data: bytes, *chunks: bytes) -> bytes:
    """Put chunks between the header of a PNG and its pixels."""
    return data[:33] + b"".join(chunks) + data[33:]


def behind(data: bytes, *chunks: bytes) -> bytes:
    """Put chunks between the pixels of a PNG and its end."""
    return data[:-12] + b"".join(chunks) + data[-12:]


PNGS = {
    "one chunk": image_files.file_of(noise()),
    "interlaced, many chunks": writers.png(
        SIZE, 8, 2, lambda x, y: (x, y, x ^ y), interlaced=True, block=64
    ),
    "EXIF in front": in_front(image_files.file_of(noise()), writers.chunk(b"eXIf", EXIF)),
    "EXIF behind": behind(image_files.file_of(noise()), writers.chunk(b"eXIf", EXIF)),
    "text behind": behind(image_files.file_of(noise()), writers.chunk(b"tEXt", b"a\x00b")),
}


@pytest.mark.parametrize("data", PNGS.values(), ids=PNGS)
def test_a_png_with_one_flipped_bit_in_its_pixels_is_rejected(data: bytes) -> None:
    chance = random.Random(7)
    first, last = data.index(b"IDAT") + 4, data.rindex(b"IEND") - 16
    if b"tEXt" in data or data.rindex(b"eXIf" if b"eXIf" in data else b"IHDR") > first:
        last -= 40  # The chunk behind the pixels, and its head.
    for _ in range(60):
        damaged = bytearray(data)
        damaged[chance.randrange(first, last)] ^= 1 << chance.randrange(8)

        assert outcome(bytes(damaged)) == DAMAGED


def png_of(pixels: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", *SIZE, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    return writers.PNG + b"".join(writers.chunk(name, content) for name, content in chunks)


ROWS = b"".join(b"\x00" + bytes([y] * SIZE[0]) for y in range(SIZE[1]))
PIXELS = zlib.compress(ROWS)


@pytest.mark.parametrize(
    "pixels",
    [zlib.compress(ROWS[:-85]), zlib.compress(b""), b"", PIXELS[:-4] + b"\x00" * 4, PIXELS[:40]],
    ids=["a row is missing", "no row", "no data", "wrong checksum", "ends early"],
)
def test_a_png_whose_pixels_are_wrong_under_a_right_crc_is_rejected(pixels: bytes) -> None:
    assert outcome(png_of(pixels)) == DAMAGED


def test_a_png_with_more_pixels_than_its_size_is_read() -> None:
    assert outcome(png_of(zlib.compress(ROWS + bytes(5000)))) == outcome(png_of(PIXELS))


HARMLESS: dict[str, bytes] = {
    "text over a megabyte": writers.chunk(b"zTXt", b"k\x00\x00" + zlib.compress(bytes(1_500_000))),
    "international text": writers.chunk(
        b"iTXt", b"k\x00\x01\x00\x00\x00" + zlib.compress(bytes(1_500_000))
    ),
    "plain text over a megabyte": writers.chunk(b"tEXt", b"k\x00" + b"a" * 1_500_000),
    "broken compressed text": writers.chunk(b"zTXt", b"k\x00\x00broken"),
    "text with a wrong CRC": b"\x00\x00\x00\x05tEXta\x00bcd\x00\x00\x00\x00",
    "profile with a wrong method": writers.chunk(b"iCCP", b"x\x00\x01" + zlib.compress(b"x")),
    "empty profile": writers.chunk(b"iCCP", b""),
    "broken profile": writers.chunk(b"iCCP", b"x\x00\x00broken"),
    "profile that is none": writers.chunk(b"iCCP", b"x\x00\x00" + zlib.compress(bytes(1_200_000))),
    "short gamma": writers.chunk(b"gAMA", b"\x00"),
    "gamma of zero": writers.chunk(b"gAMA", bytes(4)),
    "short resolution": writers.chunk(b"pHYs", b"\x00\x01"),
    "short primaries": writers.chunk(b"cHRM", b"\x00"),
    "primaries of zero": writers.chunk(b"cHRM", bytes(32)),
    "short codes": writers.chunk(b"cICP", b"\x09"),
    "unknown codes": writers.chunk(b"cICP", b"\xc8\xc8\x00\x01"),
    "short time": writers.chunk(b"tIME", b"\x00"),
    "short transparency": writers.chunk(b"tRNS", b"\x00"),
    "broken EXIF": writers.chunk(b"eXIf", b"broken"),
    "short animation": writers.chunk(b"acTL", b"\x00"),
    "unknown": writers.chunk(b"puNK", b"anything"),
}


@pytest.mark.parametrize("place", [in_front, behind])
@pytest.mark.parametrize("chunk", HARMLESS.values(), ids=HARMLESS)
def test_harm_in_a_chunk_that_may_be_skipped_costs_nothing(
    place: Callable[..., bytes], chunk: bytes
) -> None:
    data = image_files.file_of(image_files.gradient())
    with_exif = in_front(data, writers.chunk(b"eXIf", EXIF))

    assert outcome(place(data, chunk)) == outcome(data)
    assert outcome(place(with_exif, chunk)) == outcome(data)


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


SEGMENTS: dict[str, bytes] = {
    "short JFIF": segment(0xE0, b"JFIF\x00\x01"),
    "EXIF": segment(0xE1, b"Exif\x00\x00broken"),
    "XMP": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\x00\xff\xfe<"),
    "short profile": segment(0xE2, b"ICC_PROFILE\x00"),
    "part of a profile": segment(0xE2, b"ICC_PROFILE\x00\x02\x03abc"),
    "several images": segment(0xE2, b"MPF\x00broken"),
    "Photoshop": segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\x00\x00\xff\xff\xff\xff"),
    "short Adobe": segment(0xEE, b"Adobe"),
    "comment": segment(0xFE, b"\xff\xfe"),
}


@pytest.mark.parametrize("broken", SEGMENTS.values(), ids=SEGMENTS)
def test_harm_in_the_metadata_of_a_jpeg_costs_nothing(broken: bytes) -> None:
    data = image_files.file_of(image_files.gradient(), "JPEG")

    assert outcome(data[:2] + broken + data[2:]) == outcome(data)
    assert outcome(data[:20] + broken + data[20:]) == outcome(data)


def test_harm_in_the_metadata_of_a_webp_costs_nothing() -> None:
    data = image_files.file_of(
        image_files.gradient(), "WEBP", exif=b"broken", xmp=b"\xff<", icc_profile=b"broken"
    )

    assert outcome(data) == outcome(image_files.file_of(image_files.gradient(), "WEBP"))


def test_harm_in_the_metadata_of_an_avif_costs_nothing() -> None:
    exif = Image.Exif()
    exif[0x010E] = "a description"
    data = image_files.file_of(image_files.gradient(), "AVIF", exif=exif)
    broken = data.replace(b"MM\x00*", b"none").replace(b"II*\x00", b"none")

    assert broken != data
    assert outcome(broken) == outcome(data)


def test_a_wrong_place_of_the_next_page_costs_nothing() -> None:
    page = writers.page(SIZE, 8, 2, lambda x, y: (x, y, 0))
    sound = writers.tiff(page)

    for place in (1, 7, len(sound) + 1000, 0xFFFFFFFF):
        assert outcome(writers.tiff(page, last=place)) == outcome(sound)


def test_harm_in_unneeded_tags_of_a_tiff_costs_nothing() -> None:
    size_and_pixels, strip = writers.page(SIZE, 8, 2, lambda x, y: (x, y, 0))
    broken: dict[int, writers.Values] = {
        34665: (writers.LONG, [0xFFFFFF]),  # EXIF
        34853: (writers.LONG, [3]),  # GPS
        700: (writers.UNDEFINED, b"<x tiff:Orientation='6'"),
        34675: (writers.UNDEFINED, b"no profile"),
    }

    assert outcome(writers.tiff(({**size_and_pixels, **broken}, strip))) == outcome(
        writers.tiff((size_and_pixels, strip))
    )


def complete() -> Iterator[tuple[str, bytes, int]]:
    """Files, and the number of bytes at their end without which all pixels are still there."""
    gradient = image_files.gradient(*SIZE)
    yield "PNG", image_files.file_of(gradient), 20
    kinds: dict[str, dict[str, object]] = {
        "baseline": {},
        "progressive": {"progressive": True},
        "noise": {"quality": 100},
    }
    for name, options in kinds.items():
        image = noise() if name == "noise" else gradient
        yield f"JPEG {name}", image_files.file_of(image, "JPEG", **options), 2
    yield "JPEG gray", image_files.file_of(gradient.convert("L"), "JPEG"), 2
    yield "GIF", image_files.file_of(gradient, "GIF"), 2
    yield "WebP with metadata", image_files.file_of(gradient, "WEBP", xmp=b"<x/>" * 9), 40
    yield "TIFF", writers.tiff(writers.page(SIZE, 8, 2, lambda x, y: (x, y, 0))), 4


@pytest.mark.parametrize(
    ("data", "tail"), [pytest.param(data, tail, id=name) for name, data, tail in complete()]
)
def test_a_file_may_lack_its_end_but_no_pixels(data: bytes, tail: int) -> None:
    sound = outcome(data)
    for missing in range(1, tail + 1):
        assert outcome(data[:-missing]) == sound, f"without {missing} bytes"
    for missing in (tail + 30, len(data) // 3, len(data) // 2):
        assert outcome(data[:-missing]) == DAMAGED, f"without {missing} bytes"


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": "4:4:4"}])
def test_no_jpeg_that_lacks_bits_of_pixels_is_taken(options: dict[str, object]) -> None:
    for image in (noise(), image_files.gradient()):
        data = image_files.file_of(image, "JPEG", **options)
        outcomes = [outcome(data[:-missing]) for missing in range(3, 60)]

        # The last byte may have nothing but padding.
        assert set(outcomes[1:]) == {DAMAGED}
        assert outcomes[0] in {DAMAGED, outcome(data)}


def test_a_progressive_jpeg_that_lacks_whole_scans_is_rejected() -> None:
    data = image_files.file_of(image_files.gradient(), "JPEG", progressive=True)
    scans = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]

    assert len(scans) > 3
    assert {outcome(data[:place]) for place in scans[1:]} == {DAMAGED}


@pytest.mark.parametrize("share", [2, 3, 10])
def test_a_jpeg_that_was_cut_and_closed_again_is_rejected(share: int) -> None:
    data = image_files.file_of(noise(600, 450).resize((1200, 900)), "JPEG")

    assert outcome(data[: len(data) - len(data) // share] + b"\xff\xd9") == DAMAGED


def test_fill_bytes_in_front_of_the_end_of_a_jpeg_cost_nothing() -> None:
    for image in (image_files.gradient(), Image.new("RGB", (112, 84), "white")):
        data = image_files.file_of(image, "JPEG")

        assert outcome(data[:-2] + b"\xff" * 9 + b"\xd9") == outcome(data)


def test_what_follows_the_end_of_a_jpeg_does_not_matter() -> None:
    for image in (image_files.gradient(), Image.new("RGB", (112, 84), "white")):
        data = image_files.file_of(image, "JPEG")

        assert outcome(data + data[: len(data) // 2] + b"motion") == outcome(data)


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_deflate", "raw"])
def test_a_tiff_whose_strip_is_cut_is_rejected(compression: str) -> None:
    data = image_files.file_of(image_files.gradient(), "TIFF", compression=compression)

    assert {outcome(data[:-missing]) for missing in (1, 2, 9, 40, 4000)} == {DAMAGED}


def test_an_animation_is_read_although_its_later_frames_are_damaged() -> None:
    first, second = image_files.gradient(), image_files.gradient().rotate(90)
    for name, options in (("GIF", {}), ("WEBP", {"lossless": True})):
        data = image_files.file_of(
            first, name, save_all=True, append_images=[second, first], **options
        )

        assert outcome(data[: len(data) * 3 // 4]) == outcome(data)
