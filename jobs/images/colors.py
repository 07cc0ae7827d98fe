"""Converts pixels of any mode to 8-bit sRGB on white. Runs only in child processes of the sandbox."""

from __future__ import annotations

import io
import math
from typing import cast

from PIL import Image, ImageCms

from core import errors

#: Modes with more than 8 bits, and the possible values of white: the smallest one that covers all pixels is used.
#: (A file contains the number of bits of a pixel, but not how many of 32 bits it uses.)
_WHITES: dict[str, tuple[float, ...]] = {
    **dict.fromkeys(("I;16", "I;16B", "I;16L", "I;16N"), (65535.0,)),
    "I": (255.0, 65535.0),
    "F": (1.0, 255.0, 65535.0),
}
#: The modes that color profiles are defined for; all others are converted to RGB first.
_PROFILED = frozenset({"L", "RGB", "CMYK"})
_MODES = (
    _PROFILED
    | _WHITES.keys()
    | {"1", "LA", "P", "PA", "RGBA", "RGBa", "RGBX", "YCbCr", "LAB", "HSV"}
)


def flat(image: Image.Image) -> Image.Image:
    """Return the image in 8-bit L, RGB or CMYK, with white for transparency."""
    if image.mode not in _MODES:
        raise errors.ImageRejected(
            "The image has a pixel format that cannot be converted to colors.",
            code="invalid_image_mode",
        )
    if image.mode in _WHITES:
        # The conversion loses the transparent gray value that such an image may have.
        return _to_eight_bits(image)
    if image.has_transparency_data:
        if image.mode != "LA":
            image = image.convert("RGBA")
        white = Image.new("L" if image.mode == "LA" else "RGB", image.size, "white")
        white.paste(image, mask=image)
        return white
    return image if image.mode in _PROFILED else image.convert("RGB")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Return 16-bit, 32-bit or float gray as 8-bit gray. Pillow's own conversion clips at 255."""
    whites = _WHITES[image.mode]
    if image.mode != "F":
        image = image.convert("I")
    low, high = cast("tuple[float, float]", image.getextrema())  # One channel, so one pair.
    if not (math.isfinite(low) and math.isfinite(high)):
        raise errors.ImageRejected(
            "The image has pixels that are not finite numbers.", code="invalid_image_mode"
        )
    black, white = 0.0, next((white for white in whites if high <= white), high)
    if low < 0:
        # There is no natural black and white: use the darkest and the brightest value.
        black, white = low, max(high, low + 1)
    scale = 255 / (white - black)
    return image.point(lambda value: value * scale + (0.5 - black * scale)).convert("L")


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Return the image in sRGB. A damaged profile, or one for another color space, is ignored."""
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            # Most profiles are sRGB by their description; without a conversion they cost no time and no rounding.
            if not (image.mode == "RGB" and "sRGB" in ImageCms.getProfileDescription(source)):
                target = ImageCms.createProfile("sRGB")
                return ImageCms.buildTransform(source, target, image.mode, "RGB").apply(image)
        except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
            pass
    return image if image.mode == "RGB" else image.convert("RGB")
