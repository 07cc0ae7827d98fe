"""Pictures and image files for the tests, all made on the spot."""

from __future__ import annotations

import base64
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


def quarters(width: int = 224, height: int = 112) -> Image.Image:
    """An image of red, green, blue and white quarters."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(GREEN, (width // 2, 0, width, height // 2))
    image.paste(BLUE, (0, height // 2, width // 2, height))
    image.paste(WHITE, (width // 2, height // 2, width, height))
    return image


def colors_of_quarters(image: Image.Image) -> list[object]:
    """The colors in the middle of the quarters, in the order of :func:`quarters`."""
    across, down = (
        (image.width // 4, 3 * image.width // 4),
        (image.height // 4, 3 * image.height // 4),
    )
    return [image.convert("RGB").getpixel((x, y)) for y in down for x in across]


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


#: A HEIC of 224 x 112 pixels: red, green, blue and white quarters. The installed decoder has no encoder.
HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAVZtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAA"
    "ACJpbG9jAAAAAERAAAEAAQAAAAABegABAAAAAAAAAZAAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRt"
    "AAAAAAABAAAA1mlwcnAAAAC3aXBjbwAAAHhodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMA"
    "AAMAHroCQGEAAQArQgEBA3AAAAMAkAAAAwAAAwAeoBwgcWW6kkprm4CGgwIAAAMAMgAAAwACEGIAAQAHRAHBcrBiQAAAABNjb2xy"
    "bmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAADgAAAAcAAAABBwaXhpAAAAAAMICAgAAAAXaXBtYQAAAAAAAAABAAEEgQIDBAAAAZht"
    "ZGF0AAABjCgBrwnQifgjNqI///vRff/+3Meh/rWzkAddhGzWUYpMP/SiE74Db/+q9pPZ7cp5wDbS+//nJR3+x0F/8ozsWvRbxeB/"
    "O+X44CPRgAAdZN8ABHcrq3Nxw2oq1NKcCAAPYCTohMTMfBlLTwFjxfABRMOtzG7dVW8TuxRVABP+SVbnyPxhKH6YZq6DY+oU/tOc"
    "/dYn84oEVXpnd/oyNqCxe7gB4ClFbLf144AAAAMAwfZIPXRN6bWZwy1ocOLJ/dk0oGqoIfeFNkDKGh5eMiBwVDRsnbLxhrYbEnSR"
    "tSZz/cz8iYgwntgR+bUpm9PY1CYoNUjlzNElWM0SmRA69p89ZwJy8INy9S+KYipdvALoyQSGG3/ZgAGxWndFDVtxI2YCIKt+Kt6x"
    "T96W23nXkzXa9IpJLwMPJTWtAGZiT3chA0mnvYHS5kg1daNm3FmRTH1RPS40Zqmt6qQ//OHrYnufgt9spO/qqYWhMcbvC/h/hewi"
    "Z4P8P8L2f/WvrWDXxrHKVOHDn9DFDgAADCB/gA=="
)
