"""Images: uploads are limited in size, decoded in a sandbox, and stored as one canonical image.

The API uses :class:`ImageReader`, and everything that counts tokens uses :func:`image_tokens`. Only
:mod:`jobs.images.pipeline`, which runs in child processes of the sandbox, loads decoders: a process that serves
requests never has one in its address space.
"""

from __future__ import annotations

from jobs.images.canonical import PIPELINE_VERSION, CanonicalImage, OriginalFile
from jobs.images.contents import describe
from jobs.images.data_urls import decode as decode_data_url
from jobs.images.data_urls import from_data_url, pieces_of
from jobs.images.formats import READABLE, sniff
from jobs.images.geometry import MARKER_TOKENS, image_tokens, smart_resize
from jobs.images.reader import ImageLimits, ImageReader, check_size

__all__ = [
    "MARKER_TOKENS",
    "PIPELINE_VERSION",
    "READABLE",
    "CanonicalImage",
    "ImageLimits",
    "ImageReader",
    "OriginalFile",
    "check_size",
    "decode_data_url",
    "describe",
    "from_data_url",
    "image_tokens",
    "pieces_of",
    "smart_resize",
    "sniff",
]
