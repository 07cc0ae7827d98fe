"""The canonical image, which is stored, sent to the engine, and looked up by its key."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Self

import PIL

#: Part of the key of every image and of the lookup of a known original. It changes with this pipeline and with
#: Pillow, whose codecs produce the same bytes only within one version.
PIPELINE_VERSION = "1/pillow-" + ".".join(PIL.__version__.split(".")[:2])


@dataclass(frozen=True)
class Original:
    """Metadata of an uploaded file, whose bytes are not stored.

    Attributes:
        sha256: SHA-256 of the file, 64 hex digits.
        size: size of the file in bytes.
        media_type: media type, detected from the bytes.
        width: width in pixels after the orientation is applied.
        height: height in pixels after the orientation is applied.
        orientation: EXIF orientation, 1 to 8; 1 is upright.
        frames: number of images in the file, of which only the first one is used.
    """

    sha256: str
    size: int
    media_type: str
    width: int
    height: int
    orientation: int
    frames: int


@dataclass(frozen=True)
class CanonicalImage:
    """An image in its stored form: upright 8-bit sRGB on white, at the model's size, without metadata.

    Attributes:
        data: a PNG, or a JPEG if the original was lossy.
        media_type: ``image/png`` or ``image/jpeg``.
        width: width in pixels, a multiple of 28.
        height: height in pixels, a multiple of 28.
        original: metadata of the uploaded file.
    """

    data: bytes
    media_type: str
    width: int
    height: int
    original: Original

    @cached_property
    def key(self) -> str:
        """The content address: SHA-256 of the bytes and :data:`PIPELINE_VERSION`, 64 hex digits."""
        return hashlib.sha256(self.data + PIPELINE_VERSION.encode()).hexdigest()

    @property
    def facts(self) -> dict[str, Any]:
        """All fields except the bytes, as JSON values, for the transfer out of a sandbox."""
        return {name: value for name, value in asdict(self).items() if name != "data"}

    @classmethod
    def from_facts(cls, facts: dict[str, Any], data: bytes) -> Self:
        """Return the image with these :attr:`facts` and bytes."""
        return cls(**{**facts, "data": data, "original": Original(**facts["original"])})
