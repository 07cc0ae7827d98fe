"""Conversion of any pixels to 8-bit sRGB on white. Only :mod:`jobs.images.pipeline` in a sandbox's child uses it."""

from __future__ import annotations

import io
import math
from typing import cast

from PIL import Image, ImageCms

from core import errors

#: Modes of more than 8 bits with the possible values of white; white is the smallest value that covers all pixels.
#: (A file states how many bits a pixel has, but not how many of 32 bits it uses.)
_WHITES: dict[str, tuple[float, ...]] = {
    **dict.fromkeys(("I;16", "I;16B", "I;16L", "I;16N"), (65535.0,)),
    "I": (255.0, 65535.0),
    "F": (1.0, 255.0, 65535.0),
}
#: The modes for which color profiles are defined; other modes are converted to RGB first.
_PROFILED = frozenset({"L", "RGB", "CMYK"})
_MODES = (
    _PROFILED
    | _WHITES.keys()
    | {"1", "LA", "P", "PA", "RGBA", "RGBa", "RGBX", "YCbCr", "LAB", "HSV"}
)


def flat(image: Image.Image) -> Image.Image:
    """Return the image as 8-bit L, RGB or CMYK, with white in place of transparency."""
    if image.mode not in _MODES:
        raise errors.ImageRejected(
            f"The image's pixel mode must be convertible to RGB; {image.mode} is not.",
            code="invalid_image_mode",
        )
    if image.mode in _WHITES:
        # The conversion drops the transparent gray value of a deep image, if it has one.
        return _to_eight_bits(image)
    if image.has_transparency_data:
        if image.mode != "LA":
            image = image.convert("RGBA")
        white = Image.new("L" if image.mode == "LA" else "RGB", image.size, "white")
        white.paste(image, mask=image)
        return white
    return image if image.mode in _PROFILED else image.convert("RGB")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Convert 16-bit, 32-bit or float gray to 8-bit gray. Pillow's own conversion clips at 255."""
    whites = _WHITES[image.mode]
    if image.mode != "F":
        image = image.convert("I")
    low, high = cast("tuple[float, float]", image.getextrema())  # One channel, so one pair.
    if not (math.isfinite(low) and math.isfinite(high)):
        raise errors.ImageRejected(
            "The image's pixels must be finite numbers.", code="invalid_image_mode"
        )
    black, white = 0.0, next((white for white in whites if high <= white), high)
    if low < 0:
        # Such values have no natural black and white: use the darkest and the brightest pixel.
        black, white = low, max(high, low + 1)
    scale = 255 / (white - black)
    return image.point(lambda value: value * scale + (0.5 - black * scale)).convert("L")


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert to sRGB according to the profile. A broken profile, or one for other modes, is ignored."""
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            # Most profiles state that they are sRGB; skipping their conversion saves time and rounding errors.
            if not (image.mode == "RGB" and "sRGB" in ImageCms.getProfileDescription(source)):
                target = ImageCms.createProfile("sRGB")
                return ImageCms.buildTransform(source, target, image.mode, "RGB").apply(image)
        except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
            pass
    return image if image.mode == "RGB" else image.convert("RGB")
