"""Any pixels become 8-bit sRGB on white, as they were meant."""

from __future__ import annotations

import pytest
from PIL import Image

from jobs.images import pipeline
from tests import image_files


def half_clear(mode: str) -> Image.Image:
    """Black, of which the left half cannot be seen at all and the right half is half there."""
    alpha = Image.new("L", (112, 84), 0)
    alpha.paste(128, (56, 0, 112, 84))
    return Image.merge(mode, [*(Image.new("L", alpha.size),) * (len(mode) - 1), alpha])


@pytest.mark.parametrize(
    ("image", "name"),
    [
        (half_clear("RGBA"), "PNG"),
        (half_clear("LA"), "PNG"),
        (half_clear("RGBA"), "TIFF"),
        (half_clear("RGBA"), "WEBP"),
    ],
)
def test_transparency_becomes_white(image: Image.Image, name: str) -> None:
    options: dict[str, object] = {"lossless": True, "exact": True} if name == "WEBP" else {}
    seen = image_files.image_of(pipeline.canonicalize(image_files.file_of(image, name, **options)))

    assert seen.mode == "RGB"
    assert seen.getpixel((20, 40)) == image_files.WHITE
    assert image_files.near(seen.getpixel((90, 40)), (127, 127, 127))


@pytest.mark.parametrize("name", ["PNG", "GIF"])
@pytest.mark.parametrize("mode", ["P", "L", "1"])
def test_a_transparent_color_becomes_white(name: str, mode: str) -> None:
    image = Image.new(mode, (112, 84), 0)
    image.paste(1 if mode != "L" else 200, (56, 0, 112, 84))
    if mode == "P":
        image.putpalette([*image_files.RED, *image_files.BLUE])
    visible = {"P": image_files.BLUE, "L": (200, 200, 200), "1": (1, 1, 1)}[mode]

    seen = image_files.image_of(
        pipeline.canonicalize(image_files.file_of(image, name, transparency=0))
    )

    assert seen.getpixel((20, 40)) == image_files.WHITE
    assert image_files.near(seen.getpixel((90, 40)), visible) or mode == "1"


def test_a_palette_with_alpha_keeps_its_colors() -> None:
    image = Image.new("P", (112, 84), 0)
    image.paste(1, (56, 0, 112, 84))
    image.putpalette([*image_files.RED, *image_files.BLUE])

    seen = image_files.image_of(
        pipeline.canonicalize(image_files.file_of(image, transparency=bytes([0, 255])))
    )

    assert (seen.getpixel((20, 40)), seen.getpixel((90, 40))) == (
        image_files.WHITE,
        image_files.BLUE,
    )


def shades(mode: str, values: list[float]) -> Image.Image:
    """One vertical stripe of 28 pixels for each value."""
    row = Image.new(mode, (len(values), 1))
    for number, value in enumerate(values):
        row.putpixel((number, 0), value)
    return row.resize((28 * len(values), 56), Image.Resampling.NEAREST)


@pytest.mark.parametrize(
    ("mode", "name", "values"),
    [
        ("I;16", "PNG", [0, 0x4040, 0x8080, 0xFFFF]),
        ("I;16", "TIFF", [0, 0x4040, 0x8080, 0xFFFF]),
        ("I;16B", "TIFF", [0, 0x4040, 0x8080, 0xFFFF]),
        ("I", "TIFF", [0, 0x4040, 0x8080, 0xFFFF]),
        ("I", "TIFF", [0, 64, 128, 255]),
        ("I", "TIFF", [-1000, -498, 4, 1000]),
        ("F", "TIFF", [0.0, 0.251, 0.502, 1.0]),
        ("F", "TIFF", [0.0, 64.0, 128.0, 255.0]),
        ("F", "TIFF", [0.0, 25_100.0, 50_200.0, 100_000.0]),
    ],
)
def test_deep_grays_are_scaled_and_not_clipped(mode: str, name: str, values: list[float]) -> None:
    seen = image_files.image_of(
        pipeline.canonicalize(image_files.file_of(shades(mode, values), name))
    )

    found = [seen.getpixel((28 * number + 14, 28)) for number in range(4)]
    assert all(
        image_files.near(pixel, (grey, grey, grey), within=1)
        for pixel, grey in zip(found, (0, 64, 128, 255), strict=True)
    )


def test_a_dark_image_of_16_bits_stays_dark() -> None:
    seen = image_files.image_of(
        pipeline.canonicalize(image_files.file_of(shades("I;16", [0, 250])))
    )

    assert seen.getextrema() == ((0, 1), (0, 1), (0, 1))


def test_pixels_that_are_not_finite_are_rejected() -> None:
    refused = image_files.refusal(image_files.file_of(shades("F", [0.0, float("inf")]), "TIFF"))

    assert refused.specific_code == "invalid_image_mode"


@pytest.mark.parametrize("name", ["JPEG", "TIFF"])
def test_cmyk_has_the_right_colors(name: str) -> None:
    """Pillow writes CMYK JPEGs as Adobe does, inverted."""
    inks = Image.new("CMYK", (112, 84), (0, 255, 255, 0))
    inks.paste((0, 0, 0, 0), (56, 0, 112, 84))

    seen = image_files.image_of(pipeline.canonicalize(image_files.file_of(inks, name)))

    assert image_files.near(seen.getpixel((20, 40)), image_files.RED)
    assert image_files.near(seen.getpixel((90, 40)), image_files.WHITE)


@pytest.mark.parametrize("mode", ["1", "L", "YCbCr", "LAB"])
def test_other_pixel_formats_become_rgb(mode: str) -> None:
    seen = image_files.image_of(
        pipeline.canonicalize(image_files.file_of(image_files.gradient().convert(mode), "TIFF"))
    )

    assert seen.mode == "RGB"
    assert seen.convert("L").getextrema() != (0, 0)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_colors_follow_the_files_profile(name: str) -> None:
    image = Image.new("RGB", (112, 84), image_files.RED)
    seen = image_files.image_of(
        pipeline.canonicalize(
            image_files.file_of(image, name, icc_profile=image_files.swapped_profile())
        )
    )

    assert image_files.near(seen.getpixel((50, 40)), image_files.BLUE, within=6)


@pytest.mark.parametrize(
    ("mode", "profile"),
    [("RGB", b"no profile at all"), ("L", image_files.swapped_profile()), ("RGB", b"")],
)
def test_a_damaged_or_unsuitable_profile_is_ignored(mode: str, profile: bytes) -> None:
    image = Image.new(mode, (112, 84), "white")
    seen = image_files.image_of(
        pipeline.canonicalize(image_files.file_of(image, icc_profile=profile))
    )

    assert seen.getpixel((50, 40)) == image_files.WHITE
