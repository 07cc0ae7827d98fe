"""Images: what comes in is bounded, decoded in a sandbox, and kept as one canonical picture.

The door uses :class:`ImageReader`; who counts tokens uses :func:`image_tokens`. Only
:mod:`jobs.images.pipeline`, which runs in the sandbox's children, loads decoders: a process that serves
requests never has one in its address space.
"""

from __future__ import annotations

from jobs.images.canonical import PIPELINE_VERSION, CanonicalImage, OriginalFile
from jobs.images.formats import sniff
from jobs.images.geometry import MARKER_TOKENS, image_tokens, smart_resize
from jobs.images.reader import ImageLimits, ImageReader, from_data_url, read_capped

__all__ = [
    "MARKER_TOKENS",
    "PIPELINE_VERSION",
    "CanonicalImage",
    "ImageLimits",
    "ImageReader",
    "OriginalFile",
    "from_data_url",
    "image_tokens",
    "read_capped",
    "smart_resize",
    "sniff",
]
