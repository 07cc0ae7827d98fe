"""Reads what the containers of image files say besides pixels, and gives decoders only what they need.

A decoder stops at the first fault in a file, even if the fault is in metadata. So each module here walks the structure
of one format in bounded time, takes the facts that decide how pixels become colors, and returns a file
without the rest. No module here decodes pixels or loads a decoder.
"""

from __future__ import annotations

from collections.abc import Callable

from jobs.images.containers import bmp, isobmff, jpeg, png, tiff, webp
from jobs.images.containers.container import Container, Depth, Signal
from jobs.images.formats import MediaType

__all__ = ["Container", "Depth", "Signal", "read"]

_READERS: dict[MediaType, Callable[[bytes], Container]] = {
    "image/jpeg": jpeg.read,
    "image/png": png.read,
    "image/tiff": tiff.read,
    "image/webp": webp.read,
    "image/bmp": bmp.read,
    "image/avif": isobmff.read,
    "image/heic": isobmff.read,
}


def read(data: bytes, media_type: MediaType) -> Container:
    """Return what the container of a file says, and the file for the decoder.

    Raises:
        core.errors.ImageRejected: the file is damaged (``image_parse_error``), or of a kind that Longlook does not read
            (``unsupported_image_media_type``).
    """
    reader = _READERS.get(media_type)
    return Container(data=data) if reader is None else reader(data)
