"""Pictures and image files for the tests, all made on the spot."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
from PIL import Image, ImageCms

from core import errors
from jobs import images
from jobs.images import pipeline

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def file_of(image: Image.Image, name: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def gradient(width: int = 120, height: int = 90) -> Image.Image:
    """A picture no two of whose quarters are alike."""
    across = Image.linear_gradient("L").rotate(90).resize((width, height))
    down = Image.linear_gradient("L").resize((width, height))
    return Image.merge("RGB", (across, down, Image.new("L", (width, height), 60)))


def image_of(canonical: images.CanonicalImage) -> Image.Image:
    image = Image.open(io.BytesIO(canonical.data))
    image.load()
    return image


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises far more than its few bytes hold."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack("!I", len(body)) + name + body + struct.pack("!I", zlib.crc32(name + body))
        )

    head = chunk(b"IHDR", struct.pack("!IIBBBBB", width, height, 8, 2, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(bytes(4096)))
    return b"\x89PNG\r\n\x1a\n" + head + rows + chunk(b"IEND", b"")


def near(found: object, expected: tuple[int, int, int], *, within: int = 3) -> bool:
    assert isinstance(found, tuple)
    return all(abs(a - b) <= within for a, b in zip(found, expected, strict=True))


def with_orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def refusal(data: bytes) -> errors.ImageRejected:
    with pytest.raises(errors.ImageRejected) as refused:
        pipeline.canonicalize(data)
    return refused.value


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


def linear_profile(name: str = "Linear sRGB") -> bytes:
    """A color profile with sRGB's primaries and a straight curve."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    tags = {}
    for at in range(132, 132 + 12 * int.from_bytes(profile[128:132], "big"), 12):
        place, size = struct.unpack(">II", profile[at + 4 : at + 12])
        tags[profile[at : at + 4]] = profile[place : place + size]
    text = name.encode("utf-16-be")
    tags[b"desc"] = b"mluc" + struct.pack(">III4sII", 0, 1, 12, b"enUS", len(text), 28) + text
    for curve in (b"rTRC", b"gTRC", b"bTRC"):
        tags[curve] = b"curv" + bytes(8)
    table, body = b"", b""
    start = 132 + 12 * len(tags)
    for tag, content in tags.items():
        table += tag + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(">I", start + len(body)) + profile[4:128] + struct.pack(">I", len(tags))
    return head + table + body
