"""What a file's picture becomes: upright, bounded, at its size, without metadata, always the same."""

from __future__ import annotations

import hashlib
import io
import random
import re
import struct

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageStat, PngImagePlugin

from core import errors, profiles
from jobs import images
from jobs.images import geometry, pipeline
from tests import image_files

#: How a camera lays a picture into a file, by the EXIF orientation that it notes.
LAID = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(("orientation", "laid"), LAID.items())
def test_the_orientation_is_applied(
    name: str, orientation: int, laid: Image.Transpose | None
) -> None:
    upright = Image.new("RGB", (224, 112), image_files.RED)
    upright.paste(image_files.GREEN, (112, 0, 224, 56))
    upright.paste(image_files.BLUE, (0, 56, 112, 112))
    upright.paste(image_files.WHITE, (112, 56, 224, 112))
    stored = upright if laid is None else upright.transpose(laid)
    options: dict[str, object] = {"lossless": True} if name == "WEBP" else {}
    data = image_files.file_of(
        stored, name, exif=image_files.with_orientation(orientation), **options
    )

    canonical = pipeline.canonicalize(data)
    seen = image_files.image_of(canonical)

    assert (canonical.original.width, canonical.original.height) == (224, 112)
    assert canonical.original.orientation == orientation
    assert seen.size == (224, 112)
    corners = [seen.getpixel(at) for at in ((20, 20), (200, 20), (20, 90), (200, 90))]
    assert all(
        map(
            image_files.near,
            corners,
            (image_files.RED, image_files.GREEN, image_files.BLUE, image_files.WHITE),
        )
    )


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_invalid_orientation_is_ignored(value: int) -> None:
    data = image_files.file_of(
        image_files.gradient(), "JPEG", exif=image_files.with_orientation(value)
    )

    assert pipeline.canonicalize(data).original.orientation == 1


def test_a_fractional_orientation_is_ignored() -> None:
    entry = struct.pack("!HHHIIIII", 1, 0x0112, 5, 1, 26, 0, 6, 1)
    data = image_files.file_of(
        image_files.gradient(), "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08" + entry
    )

    assert Image.open(io.BytesIO(data)).getexif()[0x0112] == 6.0
    assert pipeline.canonicalize(data).original.orientation == 1


def test_damaged_metadata_are_ignored() -> None:
    data = image_files.file_of(
        image_files.gradient(), "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff\x01"
    )

    assert pipeline.canonicalize(data).original.orientation == 1


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_is_decoded_small_but_never_below_its_canonical_size(
    orientation: int,
) -> None:
    specks = Image.frombytes("L", (600, 450), random.Random(1).randbytes(600 * 450))
    scene = specks.resize((2400, 1800), Image.Resampling.NEAREST)
    data = image_files.file_of(
        scene, "JPEG", quality=95, exif=image_files.with_orientation(orientation)
    )
    if orientation == 6:
        scene = scene.transpose(Image.Transpose.ROTATE_270)

    canonical = pipeline.canonicalize(data, detail="low")

    seen = image_files.image_of(canonical).convert("L")
    expected = scene.resize(seen.size, Image.Resampling.BICUBIC)
    # Decoded at half size the mean difference is 4.5 of 255; at a quarter, too small, it is 11.
    assert 1 < ImageStat.Stat(ImageChops.difference(seen, expected)).mean[0] < 7


def test_no_metadata_is_left() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "somebody")
    exif = image_files.with_orientation(1)
    exif[0x010E] = "a secret description"
    for data in (
        image_files.file_of(
            image_files.gradient(),
            "PNG",
            pnginfo=text,
            exif=exif,
            icc_profile=image_files.swapped_profile(),
            dpi=(9, 9),
        ),
        image_files.file_of(
            image_files.gradient(),
            "JPEG",
            comment=b"somebody",
            exif=exif,
            icc_profile=image_files.swapped_profile(),
        ),
        image_files.file_of(image_files.gradient(), "GIF", comment=b"somebody"),
    ):
        canonical = pipeline.canonicalize(data)
        left = image_files.image_of(canonical).info

        assert not {"exif", "icc_profile", "comment", "Author", "xmp", "transparency"} & left.keys()
        assert b"some" not in canonical.data
        assert b"secret" not in canonical.data


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_canonical_image_keeps_its_size_when_uploaded_again(name: str) -> None:
    first = pipeline.canonicalize(
        image_files.file_of(image_files.gradient(300, 200), name), detail="low"
    )
    second = pipeline.canonicalize(first.data, detail="low")

    assert (second.width, second.height) == (first.width, first.height)
    if first.media_type == "image/png":
        assert second.key == first.key


@given(width=st.integers(2, 300), height=st.integers(2, 300), name=st.sampled_from(["JPEG", "PNG"]))
@hypothesis.settings(max_examples=30)
def test_an_image_of_any_size_gets_its_canonical_size(width: int, height: int, name: str) -> None:
    data = image_files.file_of(Image.new("RGB", (width, height), image_files.GREEN), name)
    if max(width, height) > pipeline.MAX_RATIO * min(width, height):
        assert image_files.refusal(data).specific_code == "invalid_image"
        return
    canonical = pipeline.canonicalize(data)

    assert (canonical.height, canonical.width) == geometry.canonical_size(height, width, "standard")
    assert image_files.image_of(canonical).size == (canonical.width, canonical.height)


def test_detail_tiers_differ_in_size_and_key() -> None:
    data = image_files.file_of(Image.new("RGB", (3000, 2600), image_files.GREEN), "JPEG")
    made = [pipeline.canonicalize(data, detail=detail) for detail in profiles.DETAIL_TOKENS]

    assert [one.width * one.height // 784 for one in made] == [1254, 2538, 4012, 8148]
    assert len({one.key for one in made}) == 4


def test_the_key_depends_on_bytes_and_pipeline() -> None:
    canonical = pipeline.canonicalize(image_files.file_of(image_files.gradient()))

    mixed = canonical.data + images.PIPELINE_VERSION.encode()
    assert canonical.key == hashlib.sha256(mixed).hexdigest()
    assert re.fullmatch(r"\d+/pillow-\d+\.\d+", images.PIPELINE_VERSION)


@pytest.mark.parametrize(
    ("width", "height", "code", "said"),
    [
        (20_000, 12_000, "image_too_large", "20000 x 12000 pixels, 240 megapixels; at most 50 are"),
        (7_072, 7_072, "image_too_large", "at most 50 are allowed"),
        (3_000, 10, "invalid_image", "3000 x 10 pixels: one side is 300 times the other"),
        (10, 3_000, "invalid_image", "at most 50 times is allowed"),
        (1, 1, "image_too_small", "1 x 1 pixels; each side must be at least 2"),
        (1, 40, "image_too_small", "1 x 40 pixels"),
    ],
)
def test_limits_are_checked_before_anything_is_decoded(
    width: int, height: int, code: str, said: str
) -> None:
    data = image_files.png_header(width, height)
    refused = image_files.refusal(data)

    assert len(data) < 4096
    assert refused.specific_code == code
    assert said in refused.message


def test_other_files_are_rejected() -> None:
    assert image_files.refusal(b"plain words, no picture").specific_code == "invalid_image_format"


def test_a_webp_bomb_is_rejected_before_its_canvas_is_allocated() -> None:
    canvas = (16_382).to_bytes(3, "little") * 2
    chunks = b"WEBPVP8X\x0a\x00\x00\x00" + bytes(4) + canvas
    refused = image_files.refusal(b"RIFF" + len(chunks).to_bytes(4, "little") + chunks)

    assert refused.specific_code == "image_too_large"
    assert "at most 50" in refused.message


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_truncated_image_is_rejected(name: str) -> None:
    data = image_files.file_of(image_files.gradient(), name)
    for left in (len(data) // 2, len(data) * 3 // 4):
        refused = image_files.refusal(data[:left])

        assert refused.specific_code == "image_parse_error"
        assert refused.message == ("The image file is damaged or truncated and cannot be decoded.")


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_damaged_file_is_read_or_rejected(name: str) -> None:
    whole = image_files.file_of(
        image_files.gradient(), name, **({"save_all": True} if name == "TIFF" else {})
    )
    chance = random.Random(name)
    outcomes = set()
    for _ in range(120):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 4, 16))):
            data[chance.randrange(min(len(data), chance.choice((64, len(data)))))] = (
                chance.randrange(256)
            )
        try:
            pipeline.canonicalize(bytes(data), max_pixels=1_000_000)
        except errors.ImageRejected as refused:
            outcomes.add(refused.specific_code)

    assert "image_parse_error" in outcomes
