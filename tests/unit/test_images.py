"""What becomes of an image on its way in: refused in one clear sentence, or made canonical."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import random
import re
import struct
import subprocess
import sys
import zlib
from base64 import b64encode
from collections.abc import Iterator

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageCms, ImageStat, JpegImagePlugin, PngImagePlugin, features

from jobs import errors, images, profiles
from jobs.images import geometry, pipeline
from jobs.sandbox import Sandbox
from jobs.settings import Settings

LOSSLESS = ("PNG", "GIF", "BMP", "TIFF")
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


@pytest.fixture(scope="module")
def door() -> Iterator[images.Images]:
    images_of_one_process = images.Images.start(
        Settings.read({}, sandbox_processes=1, max_image_mb=1, sandbox_seconds=60)
    )
    yield images_of_one_process
    images_of_one_process.close()


def file_of(picture: Image.Image, name: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, name, **options)
    return file.getvalue()


def gradient(width: int = 120, height: int = 90) -> Image.Image:
    """A picture no two of whose quarters are alike."""
    across = Image.linear_gradient("L").rotate(90).resize((width, height))
    down = Image.linear_gradient("L").resize((width, height))
    return Image.merge("RGB", (across, down, Image.new("L", (width, height), 60)))


def picture_of(canonical: images.Canonical) -> Image.Image:
    picture = Image.open(io.BytesIO(canonical.data))
    picture.load()
    return picture


def refusal(data: bytes) -> errors.ImageRejected:
    with pytest.raises(errors.ImageRejected) as refused:
        pipeline.canonicalise(data)
    return refused.value


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises far more than its few bytes hold."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack("!I", len(body)) + name + body + struct.pack("!I", zlib.crc32(name + body))
        )

    head = chunk(b"IHDR", struct.pack("!IIBBBBB", width, height, 8, 2, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(bytes(4096)))
    return b"\x89PNG\r\n\x1a\n" + head + rows + chunk(b"IEND", b"")


SIZES = {
    (256, 256): (81, 81, 81, 81, 81),
    (640, 480): (391, 391, 391, 391, 391),
    (1280, 720): (1196, 1196, 1196, 1196, 1196),
    (1920, 1080): (1222, 2479, 2691, 2691, 2691),
    (1240, 1754): (1260, 2520, 2772, 2772, 2772),
    (2480, 3508): (1260, 2520, 4028, 8132, 11125),
    (4032, 3024): (1230, 2494, 4015, 8112, 15552),
    (8064, 6048): (1230, 2494, 4015, 8112, 16170),
}
CAPS = (1280, 2560, 4096, 8192, 16384)


@pytest.mark.parametrize(
    ("size", "cap", "tokens"),
    [(size, cap, n) for size, row in SIZES.items() for cap, n in zip(CAPS, row, strict=True)],
)
def test_tokens_are_those_of_the_qwen2_vl_processor(
    size: tuple[int, int], cap: int, tokens: int
) -> None:
    width, height = size
    tall, wide = images.smart_resize(height, width, min_pixels=3136, max_pixels=cap * 784)

    assert (tall // 28) * (wide // 28) == tokens


@pytest.mark.parametrize(("side", "rounded"), [(70, 56), (98, 112), (99, 112), (126, 112)])
def test_halves_are_rounded_to_even(side: int, rounded: int) -> None:
    assert images.smart_resize(side, 280, min_pixels=1, max_pixels=10**6) == (rounded, 280)


@pytest.mark.parametrize(("height", "width"), [(0, 5), (201, 1), (1, 201)])
def test_what_the_processor_refuses_has_no_size(height: int, width: int) -> None:
    with pytest.raises(ValueError, match="no size"):
        images.smart_resize(height, width, min_pixels=3136, max_pixels=10**6)


@given(
    short=st.integers(2, 7000),
    ratio=st.floats(1, pipeline.MAX_RATIO),
    swap=st.sampled_from([1, -1]),
    detail=st.sampled_from(list(profiles.DETAIL_TOKENS)),
)
def test_a_canonical_size_fits_its_tier_keeps_its_shape_and_stays(
    short: int,
    ratio: float,
    swap: int,
    detail: profiles.Detail,
) -> None:
    height, width = (short, int(short * ratio))[::swap]

    tall, wide = geometry.canonical_size(height, width, detail)

    assert tall % 28 == wide % 28 == 0
    assert 4 <= (tall // 28) * (wide // 28) <= profiles.DETAIL_TOKENS[detail]
    # Each side is off by at most one token's, on either side of the division.
    assert (tall - 28) / (wide + 28) <= height / width <= (tall + 28) / max(wide - 28, 1)
    assert geometry.canonical_size(tall, wide, detail) == (tall, wide)


def test_tokens_of_a_canonical_image_heed_the_served_models_own_limits() -> None:
    assert images.image_tokens(1204, 868, profiles.QVQ) == 43 * 31
    assert images.image_tokens(1204, 868, profiles.TINY) <= profiles.TINY.max_pixels // 784
    assert images.image_tokens(56, 56, profiles.TINY) >= profiles.TINY.min_pixels // 784


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("JPEG", "image/jpeg"),
        ("PNG", "image/png"),
        ("WEBP", "image/webp"),
        ("GIF", "image/gif"),
        ("BMP", "image/bmp"),
        ("TIFF", "image/tiff"),
    ],
)
def test_every_format_is_known_by_its_bytes_and_read(name: str, media_type: str) -> None:
    data = file_of(gradient(), name)
    canonical = pipeline.canonicalise(data)

    assert images.sniff(data) == media_type
    assert canonical.original == images.Original(
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        media_type=media_type,
        width=120,
        height=90,
        orientation=1,
        frames=1,
    )
    assert picture_of(canonical).size == (canonical.width, canonical.height) == (112, 84)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"B",
        b"BM is no bitmap, it is a sentence",
        b"RIFF\x00\x00\x00\x00WAVEfmt ",
        b"\x00\x00\x00\x18ftypisom\x00\x00\x00\x00mp42isom",
        b"%PDF-1.7",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    ],
)
def test_what_is_no_image_is_nothing(data: bytes) -> None:
    assert images.sniff(data) is None


@pytest.mark.parametrize(
    ("brands", "media_type"),
    [
        (b"heic\x00\x00\x00\x00mif1heic", "image/heic"),
        (b"mif1\x00\x00\x00\x00mif1avif", "image/avif"),
        (b"avif\x00\x00\x00\x00avifmif1", "image/avif"),
        (b"mif1\x00\x00\x00\x00miafheix", "image/heic"),
    ],
)
def test_the_heif_family_is_told_apart_by_all_its_brands(brands: bytes, media_type: str) -> None:
    assert images.sniff(b"\x00\x00\x00\x18ftyp" + brands) == media_type


def test_a_photograph_stays_a_jpeg_without_subsampled_chroma() -> None:
    canonical = pipeline.canonicalise(file_of(gradient(), "JPEG", subsampling="4:2:0"))

    assert canonical.media_type == "image/jpeg"
    assert JpegImagePlugin.get_sampling(picture_of(canonical)) == 0  # 4:4:4


@pytest.mark.parametrize(
    ("options", "media_type"),
    [
        ({"lossless": True}, "image/png"),
        ({"lossless": False}, "image/jpeg"),
        ({"lossless": True, "exif": b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x00"}, "image/png"),
        ({"lossless": False, "exif": b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x00"}, "image/jpeg"),
        ({"lossless": True, "save_all": True, "append_images": [gradient()]}, "image/png"),
    ],
)
def test_a_webp_becomes_what_suits_its_loss(options: dict[str, object], media_type: str) -> None:
    canonical = pipeline.canonicalise(file_of(gradient().rotate(90), "WEBP", **options))

    assert canonical.media_type == media_type


@pytest.mark.parametrize("name", LOSSLESS)
def test_what_came_without_loss_stays_without_loss(name: str) -> None:
    whole = Image.new("RGB", (112, 84), (10, 200, 30))
    canonical = pipeline.canonicalise(file_of(whole, name))

    assert canonical.media_type == "image/png"
    assert picture_of(canonical).tobytes() == whole.tobytes()


@pytest.mark.parametrize("name", ["PNG", "WEBP", "GIF", "TIFF"])
def test_of_several_pictures_the_first_is_used(name: str) -> None:
    options: dict[str, object] = {"lossless": True} if name == "WEBP" else {}
    first, second = Image.new("RGB", (56, 56), RED), Image.new("RGB", (56, 56), BLUE)
    data = file_of(first, name, save_all=True, append_images=[second, first], **options)

    canonical = pipeline.canonicalise(data)

    assert canonical.original.frames == 3
    assert picture_of(canonical).getpixel((28, 28)) == RED


def near(found: object, expected: tuple[int, int, int], *, within: int = 3) -> bool:
    assert isinstance(found, tuple)
    return all(abs(a - b) <= within for a, b in zip(found, expected, strict=True))


def half_clear(mode: str) -> Image.Image:
    """Black, of which the left half cannot be seen at all and the right half is half there."""
    alpha = Image.new("L", (112, 84), 0)
    alpha.paste(128, (56, 0, 112, 84))
    return Image.merge(mode, [*(Image.new("L", alpha.size),) * (len(mode) - 1), alpha])


@pytest.mark.parametrize(
    ("picture", "name"),
    [
        (half_clear("RGBA"), "PNG"),
        (half_clear("LA"), "PNG"),
        (half_clear("RGBA"), "TIFF"),
        (half_clear("RGBA"), "WEBP"),
    ],
)
def test_what_is_transparent_becomes_white(picture: Image.Image, name: str) -> None:
    options: dict[str, object] = {"lossless": True, "exact": True} if name == "WEBP" else {}
    seen = picture_of(pipeline.canonicalise(file_of(picture, name, **options)))

    assert seen.mode == "RGB"
    assert seen.getpixel((20, 40)) == WHITE
    assert near(seen.getpixel((90, 40)), (127, 127, 127))


@pytest.mark.parametrize("name", ["PNG", "GIF"])
@pytest.mark.parametrize("mode", ["P", "L", "1"])
def test_a_transparent_colour_becomes_white(name: str, mode: str) -> None:
    picture = Image.new(mode, (112, 84), 0)
    picture.paste(1 if mode != "L" else 200, (56, 0, 112, 84))
    if mode == "P":
        picture.putpalette([*RED, *BLUE])
    visible = {"P": BLUE, "L": (200, 200, 200), "1": (1, 1, 1)}[mode]

    seen = picture_of(pipeline.canonicalise(file_of(picture, name, transparency=0)))

    assert seen.getpixel((20, 40)) == WHITE
    assert near(seen.getpixel((90, 40)), visible) or mode == "1"


def test_a_palette_with_alpha_keeps_its_colours() -> None:
    picture = Image.new("P", (112, 84), 0)
    picture.paste(1, (56, 0, 112, 84))
    picture.putpalette([*RED, *BLUE])

    seen = picture_of(pipeline.canonicalise(file_of(picture, transparency=bytes([0, 255]))))

    assert (seen.getpixel((20, 40)), seen.getpixel((90, 40))) == (WHITE, BLUE)


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
def test_deep_greys_are_scaled_and_not_clipped(mode: str, name: str, values: list[float]) -> None:
    seen = picture_of(pipeline.canonicalise(file_of(shades(mode, values), name)))

    found = [seen.getpixel((28 * number + 14, 28)) for number in range(4)]
    assert all(
        near(pixel, (grey, grey, grey), within=1)
        for pixel, grey in zip(found, (0, 64, 128, 255), strict=True)
    )


def test_a_dark_picture_of_sixteen_bits_stays_dark() -> None:
    seen = picture_of(pipeline.canonicalise(file_of(shades("I;16", [0, 250]))))

    assert seen.getextrema() == ((0, 1), (0, 1), (0, 1))


def test_pixels_that_are_no_numbers_are_refused() -> None:
    refused = refusal(file_of(shades("F", [0.0, float("inf")]), "TIFF"))

    assert refused.specific_code == "invalid_image_mode"


@pytest.mark.parametrize("name", ["JPEG", "TIFF"])
def test_cmyk_is_read_as_it_was_meant(name: str) -> None:
    """Pillow writes CMYK JPEGs as Adobe does, inverted."""
    inks = Image.new("CMYK", (112, 84), (0, 255, 255, 0))
    inks.paste((0, 0, 0, 0), (56, 0, 112, 84))

    seen = picture_of(pipeline.canonicalise(file_of(inks, name)))

    assert near(seen.getpixel((20, 40)), RED)
    assert near(seen.getpixel((90, 40)), WHITE)


@pytest.mark.parametrize("mode", ["1", "L", "YCbCr", "LAB"])
def test_other_kinds_of_pixels_become_rgb(mode: str) -> None:
    seen = picture_of(pipeline.canonicalise(file_of(gradient().convert(mode), "TIFF")))

    assert seen.mode == "RGB"
    assert seen.convert("L").getextrema() != (0, 0)


def swapped_profile() -> bytes:
    """A colour profile whose red is sRGB's blue and the other way round."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    entries = {
        bytes(profile[at : at + 4]): slice(at + 4, at + 12)
        for at in range(132, 132 + 12 * int.from_bytes(profile[128:132], "big"), 12)
    }
    red, blue = entries[b"rXYZ"], entries[b"bXYZ"]
    profile[red], profile[blue] = profile[blue], profile[red]
    return bytes(profile).replace("sRGB".encode("utf-16-be"), "BGRs".encode("utf-16-be"))


@pytest.mark.parametrize("name", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_colours_follow_the_files_profile(name: str) -> None:
    picture = Image.new("RGB", (112, 84), RED)
    seen = picture_of(pipeline.canonicalise(file_of(picture, name, icc_profile=swapped_profile())))

    assert near(seen.getpixel((50, 40)), BLUE, within=6)


@pytest.mark.parametrize(
    ("mode", "profile"), [("RGB", b"no profile at all"), ("L", swapped_profile()), ("RGB", b"")]
)
def test_a_profile_that_is_broken_or_of_other_colours_is_ignored(mode: str, profile: bytes) -> None:
    picture = Image.new(mode, (112, 84), "white")
    seen = picture_of(pipeline.canonicalise(file_of(picture, icc_profile=profile)))

    assert seen.getpixel((50, 40)) == WHITE


def with_orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_upright(name: str, orientation: int) -> None:
    """The corners of the file are laid out so that upright they are red, green, blue, white."""
    undo = pipeline.TURNS.get(orientation)
    redo = {Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270} | {
        Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90
    }
    upright = Image.new("RGB", (224, 112), RED)
    upright.paste(GREEN, (112, 0, 224, 56))
    upright.paste(BLUE, (0, 56, 112, 112))
    upright.paste(WHITE, (112, 56, 224, 112))
    stored = upright if undo is None else upright.transpose(redo.get(undo, undo))
    options: dict[str, object] = {"lossless": True} if name == "WEBP" else {}
    data = file_of(stored, name, exif=with_orientation(orientation), **options)

    canonical = pipeline.canonicalise(data)
    seen = picture_of(canonical)

    assert (canonical.original.width, canonical.original.height) == (224, 112)
    assert canonical.original.orientation == orientation
    assert seen.size == (224, 112)
    corners = [seen.getpixel(at) for at in ((20, 20), (200, 20), (20, 90), (200, 90))]
    assert all(map(near, corners, (RED, GREEN, BLUE, WHITE)))


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_is_none_turns_nothing(value: int) -> None:
    data = file_of(gradient(), "JPEG", exif=with_orientation(value))

    assert pipeline.canonicalise(data).original.orientation == 1


def test_an_orientation_that_is_a_fraction_turns_nothing() -> None:
    entry = struct.pack("!HHHIIIII", 1, 0x0112, 5, 1, 26, 0, 6, 1)
    data = file_of(gradient(), "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08" + entry)

    assert Image.open(io.BytesIO(data)).getexif()[0x0112] == 6.0
    assert pipeline.canonicalise(data).original.orientation == 1


def test_broken_metadata_spoil_no_picture() -> None:
    data = file_of(gradient(), "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff\x01")

    assert pipeline.canonicalise(data).original.orientation == 1


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_is_decoded_small_but_never_below_its_canonical_size(
    orientation: int,
) -> None:
    specks = Image.frombytes("L", (600, 450), random.Random(1).randbytes(600 * 450))
    scene = specks.resize((2400, 1800), Image.Resampling.NEAREST)
    data = file_of(scene, "JPEG", quality=95, exif=with_orientation(orientation))
    if orientation == 6:
        scene = scene.transpose(Image.Transpose.ROTATE_270)

    canonical = pipeline.canonicalise(data, detail="low")

    seen = picture_of(canonical).convert("L")
    expected = scene.resize(seen.size, Image.Resampling.BICUBIC)
    # Decoded at half size the mean difference is 4.5 of 255; at a quarter, too small, it is 11.
    assert 1 < ImageStat.Stat(ImageChops.difference(seen, expected)).mean[0] < 7


def test_no_metadata_is_left() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "somebody")
    exif = with_orientation(1)
    exif[0x010E] = "a secret description"
    for data in (
        file_of(
            gradient(), "PNG", pnginfo=text, exif=exif, icc_profile=swapped_profile(), dpi=(9, 9)
        ),
        file_of(gradient(), "JPEG", comment=b"somebody", exif=exif, icc_profile=swapped_profile()),
        file_of(gradient(), "GIF", comment=b"somebody"),
    ):
        canonical = pipeline.canonicalise(data)
        left = picture_of(canonical).info

        assert not {"exif", "icc_profile", "comment", "Author", "xmp", "transparency"} & left.keys()
        assert b"some" not in canonical.data
        assert b"secret" not in canonical.data


@pytest.mark.parametrize("name", ["JPEG", "WEBP", *LOSSLESS])
def test_a_canonical_image_keeps_its_size_when_it_comes_in_again(name: str) -> None:
    first = pipeline.canonicalise(file_of(gradient(1000, 700), name), detail="low")
    second = pipeline.canonicalise(first.data, detail="low")

    assert (second.width, second.height) == (first.width, first.height)
    if first.media_type == "image/png":
        assert second.key == first.key


@given(width=st.integers(2, 300), height=st.integers(2, 300), name=st.sampled_from(["JPEG", "PNG"]))
@hypothesis.settings(max_examples=30)
def test_a_picture_of_any_size_comes_out_at_its_canonical_size(
    width: int, height: int, name: str
) -> None:
    data = file_of(Image.new("RGB", (width, height), GREEN), name)
    if max(width, height) > pipeline.MAX_RATIO * min(width, height):
        assert refusal(data).specific_code == "invalid_image"
        return
    canonical = pipeline.canonicalise(data)

    assert (canonical.height, canonical.width) == geometry.canonical_size(height, width, "standard")
    assert picture_of(canonical).size == (canonical.width, canonical.height)


def test_the_details_differ_in_size_and_key() -> None:
    data = file_of(gradient(3000, 2600), "JPEG")
    made = [pipeline.canonicalise(data, detail=detail) for detail in profiles.DETAIL_TOKENS]

    assert [one.width * one.height // 784 for one in made] == [1254, 2538, 4012, 8148]
    assert len({one.key for one in made}) == 4


def test_the_key_is_of_bytes_and_pipeline() -> None:
    canonical = pipeline.canonicalise(file_of(gradient()))

    mixed = canonical.data + images.PIPELINE_VERSION.encode()
    assert canonical.key == hashlib.sha256(mixed).hexdigest()
    assert re.fullmatch(r"\d+/pillow-\d+\.\d+", images.PIPELINE_VERSION)


@pytest.mark.parametrize(
    ("data", "code", "said"),
    [
        (png_header(20_000, 12_000), "image_too_large", "20000 x 12000 pixels, 240 megapixels"),
        (png_header(7_072, 7_072), "image_too_large", "at most 50 are allowed"),
        (png_header(3_000, 10), "invalid_image", "300 times"),
        (png_header(10, 3_000), "invalid_image", "at most 50 times"),
        (png_header(1, 1), "image_too_small", "1 x 1 pixels; each side needs at least 2"),
        (png_header(1, 40), "image_too_small", "1 x 40"),
        (b"plain words, no picture", "invalid_image_format", "known format"),
    ],
)
def test_bounds_are_kept_before_anything_is_decoded(data: bytes, code: str, said: str) -> None:
    refused = refusal(data)

    assert refused.specific_code == code
    assert said in refused.message


def test_a_webp_bomb_is_refused_before_its_canvas_is_allocated() -> None:
    canvas = (16_382).to_bytes(3, "little") * 2
    chunks = b"WEBPVP8X\x0a\x00\x00\x00" + bytes(4) + canvas
    refused = refusal(b"RIFF" + len(chunks).to_bytes(4, "little") + chunks)

    assert refused.specific_code == "image_too_large"
    assert "at most 50" in refused.message


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_truncated_image_is_refused(name: str) -> None:
    data = file_of(gradient(), name)
    for left in (len(data) // 2, len(data) * 3 // 4):
        refused = refusal(data[:left])

        assert refused.specific_code == "image_parse_error"
        assert refused.message == ("The image file is damaged or cut short: it cannot be decoded.")


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_damaged_file_is_read_or_refused_and_nothing_else(name: str) -> None:
    whole = file_of(gradient(), name, **({"save_all": True} if name == "TIFF" else {}))
    chance = random.Random(name)
    outcomes = set()
    for _ in range(120):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 4, 16))):
            data[chance.randrange(min(len(data), chance.choice((64, len(data)))))] = (
                chance.randrange(256)
            )
        try:
            pipeline.canonicalise(bytes(data), max_pixels=1_000_000)
        except errors.ImageRejected as refused:
            outcomes.add(refused.specific_code)

    assert "image_parse_error" in outcomes


def test_a_format_that_cannot_be_read_here_is_named() -> None:
    if importlib.util.find_spec("pillow_heif"):
        pytest.skip("this installation reads HEIC")
    refused = refusal(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic")

    assert refused.specific_code == "unsupported_image_media_type"
    assert refused.http_status == 415
    assert "image/heic" in refused.message


def test_a_heic_photograph_is_read_where_its_decoder_is_installed() -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    canonical = pipeline.canonicalise(file_of(gradient(), "HEIF"))

    assert canonical.original.media_type == "image/heic"
    assert canonical.media_type == "image/jpeg"
    assert (canonical.original.width, canonical.original.height) == (120, 90)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_an_avif_is_read_where_pillow_can() -> None:
    canonical = pipeline.canonicalise(file_of(gradient(), "AVIF"))

    assert (canonical.original.media_type, canonical.media_type) == ("image/avif", "image/jpeg")


def test_an_upload_is_made_canonical_in_a_child(door: images.Images) -> None:
    data = file_of(gradient(), "JPEG", exif=with_orientation(6))

    assert door.accept(data, detail="low") == pipeline.canonicalise(data, detail="low")


def test_two_children_make_the_same_bytes(door: images.Images) -> None:
    data = file_of(gradient(640, 480), "WEBP", lossless=True)
    again = images.Images.start(Settings.read({}, sandbox_processes=1))
    try:
        assert again.accept(data).key == door.accept(data).key == door.accept(data).key
    finally:
        again.close()


def test_an_avif_fits_into_a_childs_memory(door: images.Images) -> None:
    if not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")

    assert door.accept(file_of(gradient(), "AVIF")).media_type == "image/jpeg"


@pytest.mark.parametrize(
    ("data", "code", "status"),
    [
        (b"", "empty_image_file", 422),
        (b"\xff\xd8\xff" + bytes(2**20), "image_file_too_large", 413),
        (b"GIF, as in gift", "invalid_image_format", 422),
        (png_header(20_000, 12_000), "image_too_large", 422),
    ],
)
def test_the_door_refuses_with_one_sentence_and_a_code(
    door: images.Images, data: bytes, code: str, status: int
) -> None:
    with pytest.raises(errors.ImageRejected) as refused:
        door.accept(data)

    assert (refused.value.specific_code, refused.value.http_status) == (code, status)
    assert refused.value.message.endswith(".")


def test_the_door_names_found_and_allowed_bytes(door: images.Images) -> None:
    with pytest.raises(errors.ImageRejected, match=r"has 1,048,579 bytes; at most 1,048,576 are"):
        door.accept(b"\xff\xd8\xff" + bytes(2**20))


@pytest.mark.parametrize(
    ("order", "seconds", "said"),
    [("sleep_forever", 0.2, "too long"), ("eat", 60.0, "too much memory")],
)
def test_a_decoder_that_hangs_or_crashes_is_the_images_fault(
    order: str, seconds: float, said: str
) -> None:
    target = f"tests.unit.sandbox_targets:{order}_on_any_image"
    with Sandbox(target, processes=1, seconds=seconds, memory_mb=512) as sandbox:
        door = images.Images(sandbox, limits=images.Limits())
        with pytest.raises(errors.ImageRejected, match=said) as refused:
            door.accept(file_of(gradient()))

    assert refused.value.specific_code == "image_parse_error"


def test_reading_stops_at_the_cap() -> None:
    stream = io.BytesIO(bytes(5000))

    with pytest.raises(errors.ImageRejected, match="more than 1,000 bytes") as refused:
        images.read_capped(stream, 1000)
    assert refused.value.http_status == 413
    assert stream.tell() == 1001


def test_a_stream_of_exactly_the_cap_is_read_whole_in_whatever_pieces_it_comes() -> None:
    class Trickle(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 0, 7))

    assert images.read_capped(Trickle(b"0123456789" * 100), 1000) == b"0123456789" * 100


@given(data=st.binary(max_size=200), media_type=st.sampled_from(["image/png", "text/plain", ""]))
def test_a_data_url_gives_its_bytes_whatever_type_it_claims(data: bytes, media_type: str) -> None:
    text = b64encode(data).decode()
    lines = "\r\n".join(text[at : at + 76] for at in range(0, len(text), 76))

    assert images.from_data_url(f"data:{media_type};base64,{text}") == data
    assert images.from_data_url(f"DATA:{media_type};charset=x;Base64,{lines}\n") == data


@pytest.mark.parametrize(
    "url",
    [
        "",
        "aGVsbG8=",
        "https://example.com/cat.png",
        "data:image/png,plain",
        "data:image/png;base64",
        "data:image/png;base64,aGVsbG8",
        "data:image/png;base64,aGV*bG8=",
        "data:image/png;base64,aGVsbé8=",
    ],
)
def test_what_is_no_data_url_in_base64_is_refused(url: str) -> None:
    with pytest.raises(errors.ImageRejected) as refused:
        images.from_data_url(url)

    assert refused.value.specific_code == "invalid_base64_image"


def test_a_process_that_takes_images_in_loads_no_decoder() -> None:
    script = "import sys, jobs.images; print('PIL.Image' in sys.modules)"
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    ).stdout

    assert told.strip() == "False"
