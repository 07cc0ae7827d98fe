"""The canonical image: what is stored, sent to the engine, and retrieved by its key."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Self

import PIL

#: Part of every image's key, and of the question whether an original was seen before. It changes with
#: this pipeline and with Pillow, whose codecs give the same bytes only within one version.
PIPELINE_VERSION = "2/pillow-" + ".".join(PIL.__version__.split(".")[:2])


@dataclass(frozen=True)
class OriginalFile:
    """The facts kept of an uploaded file: its bytes are not.

    Attributes:
        sha256: of the file, 64 hex digits.
        size: in bytes.
        media_type: as the bytes show it.
        width: in pixels, as seen: after its orientation is applied.
        height: likewise.
        orientation: EXIF orientation, 1 to 8; 1 is upright.
        frames: number of images in the file; the first one is used.
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
    """An image as it is kept: upright 8-bit RGB on white, sRGB, at the model's size, without metadata.

    Attributes:
        detail: the tier whose size it has.
        data: a PNG, or a JPEG where the original was lossy already.
        media_type: ``image/png`` or ``image/jpeg``.
        width: in pixels, a multiple of 28.
        height: likewise.
        original: what it was made of.
    """

    detail: str
    data: bytes = field(repr=False)
    media_type: str
    width: int
    height: int
    original: OriginalFile

    @property
    def pipeline(self) -> str:
        """The version of the pipeline that made it."""
        return PIPELINE_VERSION

    @cached_property
    def key(self) -> str:
        """The content address: SHA-256 of the bytes and :data:`PIPELINE_VERSION`, 64 hex digits."""
        return hashlib.sha256(self.data + self.pipeline.encode()).hexdigest()

    @property
    def facts(self) -> dict[str, Any]:
        """All fields but the bytes, as JSON values: how an image travels out of a sandbox."""
        return {name: value for name, value in asdict(self).items() if name != "data"}

    @classmethod
    def from_facts(cls, facts: dict[str, Any], data: bytes) -> Self:
        """Return the image whose :attr:`facts` and bytes these are."""
        return cls(**{**facts, "data": data, "original": OriginalFile(**facts["original"])})
