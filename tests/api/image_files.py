"""Image files of all sorts, made on the spot."""

from __future__ import annotations

import base64
import io
import random
import struct
import zlib

from PIL import Image


def png(width: int = 60, height: int = 40, *, seed: int = 1) -> bytes:
    """Return a small image; another ``seed`` gives another image."""
    return encoded(Image.new("RGB", (width, height), (seed % 256, 120, 30)), "PNG")


def encoded(image: Image.Image, name: str, **options: object) -> bytes:
    """Return ``image`` as a file."""
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def noise(seed: int, *, side: int = 300) -> bytes:
    """Return an image that does not compress; another ``seed`` gives another image."""
    pixels = random.Random(seed).randbytes(3 * side * side)
    return encoded(Image.frombytes("RGB", (side, side), pixels), "PNG")


def data_url(data: bytes) -> str:
    """Return ``data`` as a data URL."""
    return "data:image/png;base64," + base64.b64encode(data).decode()


def bomb(width: int = 20000, height: int = 12000) -> bytes:
    """Return a PNG of a few kilobytes whose pixels would take 700 megabytes."""
    row = b"\x00" + bytes(width // 8)
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND")


def animated() -> bytes:
    """Return a GIF of three frames."""
    frames = [Image.new("P", (50, 50), colour) for colour in (1, 2, 3)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


def deep() -> bytes:
    """Return a PNG with 16 bits a pixel."""
    return encoded(Image.new("I;16", (60, 40), 40_000), "PNG")


def cmyk() -> bytes:
    """Return a JPEG for a printing press."""
    return encoded(Image.new("CMYK", (60, 40), (10, 80, 90, 0)), "JPEG")


def palette_with_alpha() -> bytes:
    """Return a PNG with a palette, one colour of which is transparent."""
    return encoded(Image.new("P", (60, 40), 3), "PNG", transparency=3)


def turned() -> bytes:
    """Return a JPEG that lies on its side and says so."""
    image = Image.new("RGB", (120, 60), (200, 10, 10))
    exif = image.getexif()
    exif[0x0112] = 6
    return encoded(image, "JPEG", exif=exif)


def _chunk(name: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
