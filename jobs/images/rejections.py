"""The rejections of files that are damaged, and of files whose kind Longlook does not read."""

from __future__ import annotations

from core import errors
from jobs.images.formats import READABLE


def rejected(message: str, code: str) -> errors.ImageRejected:
    """Return the rejection with this message and code."""
    return errors.ImageRejected(message, code=code)


def damaged() -> errors.ImageRejected:
    """Return the rejection of a file whose pixels are damaged or missing."""
    return rejected(
        "The image file is damaged or truncated and cannot be decoded.", "image_parse_error"
    )


def unsupported(kind: str) -> errors.ImageRejected:
    """Return the rejection of an intact file of a kind that Longlook does not read.

    Args:
        kind: what the file is, with an article: ``a JPEG with 12 bits per sample``.
    """
    return rejected(
        f"The file is {kind}. Longlook cannot read this kind of image; send {READABLE}.",
        "unsupported_image_media_type",
    )


def not_an_image(kind: str | None) -> errors.ImageRejected:
    """Return the rejection of a file that is not an image.

    Args:
        kind: what the file appears to be, with an article; None if that is unknown.
    """
    seen = f"it appears to be {kind}" if kind else "its first bytes fit no known format"
    return rejected(f"The file is not an image: {seen}. Send {READABLE}.", "invalid_image_format")
