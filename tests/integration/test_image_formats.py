"""Which kinds of files are images, and which are read."""

from __future__ import annotations

import hashlib

import pytest
from PIL import Image, JpegImagePlugin, features

from jobs import images
from jobs.images import pipeline
from tests import image_files


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
def test_every_format_is_detected_by_content_and_read(name: str, media_type: str) -> None:
    data = image_files.file_of(image_files.gradient(), name)
    canonical = pipeline.canonicalize(data)

    assert images.sniff(data) == media_type
    assert canonical.original == images.OriginalFile(
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        media_type=media_type,
        width=120,
        height=90,
        orientation=1,
        frames=1,
    )
    assert image_files.image_of(canonical).size == (canonical.width, canonical.height) == (112, 84)


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
def test_other_content_is_not_an_image(data: bytes) -> None:
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
def test_formats_of_the_heif_family_are_detected_by_all_brands(
    brands: bytes, media_type: str
) -> None:
    assert images.sniff(b"\x00\x00\x00\x18ftyp" + brands) == media_type


def test_a_photograph_stays_a_jpeg_without_subsampled_chroma() -> None:
    canonical = pipeline.canonicalize(
        image_files.file_of(image_files.gradient(), "JPEG", subsampling="4:2:0")
    )

    assert canonical.media_type == "image/jpeg"
    assert JpegImagePlugin.get_sampling(image_files.image_of(canonical)) == 0  # 4:4:4


@pytest.mark.parametrize(
    ("options", "media_type"),
    [
        ({"lossless": True}, "image/png"),
        ({"lossless": False}, "image/jpeg"),
        ({"lossless": True, "exif": b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x00"}, "image/png"),
        ({"lossless": False, "exif": b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x00"}, "image/jpeg"),
        (
            {"lossless": True, "save_all": True, "append_images": [image_files.gradient()]},
            "image/png",
        ),
    ],
)
def test_a_webp_becomes_jpeg_or_png_by_its_compression(
    options: dict[str, object], media_type: str
) -> None:
    canonical = pipeline.canonicalize(
        image_files.file_of(image_files.gradient().rotate(90), "WEBP", **options)
    )

    assert canonical.media_type == media_type


@pytest.mark.parametrize("name", ["PNG", "GIF", "BMP", "TIFF"])
def test_a_lossless_image_stays_lossless(name: str) -> None:
    whole = Image.new("RGB", (112, 84), (10, 200, 30))
    canonical = pipeline.canonicalize(image_files.file_of(whole, name))

    assert canonical.media_type == "image/png"
    assert image_files.image_of(canonical).tobytes() == whole.tobytes()


@pytest.mark.parametrize("name", ["PNG", "WEBP", "GIF", "TIFF"])
def test_the_first_of_several_images_is_used(name: str) -> None:
    options: dict[str, object] = {"lossless": True} if name == "WEBP" else {}
    first, second = (
        Image.new("RGB", (56, 56), image_files.RED),
        Image.new("RGB", (56, 56), image_files.BLUE),
    )
    data = image_files.file_of(first, name, save_all=True, append_images=[second, first], **options)

    canonical = pipeline.canonicalize(data)

    assert canonical.original.frames == 3
    assert image_files.image_of(canonical).getpixel((28, 28)) == image_files.RED


def test_a_heic_photograph_is_read_with_the_required_libraries() -> None:
    canonical = pipeline.canonicalize(image_files.HEIC)

    assert canonical.original.media_type == "image/heic"
    assert canonical.media_type == "image/jpeg"
    assert (canonical.original.width, canonical.original.height) == (224, 112)
    assert all(
        map(
            image_files.near,
            image_files.colors_of_quarters(image_files.image_of(canonical)),
            (image_files.RED, image_files.GREEN, image_files.BLUE, image_files.WHITE),
        )
    )


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_an_avif_is_read_if_pillow_supports_it() -> None:
    canonical = pipeline.canonicalize(image_files.file_of(image_files.gradient(), "AVIF"))

    assert (canonical.original.media_type, canonical.media_type) == ("image/avif", "image/jpeg")
