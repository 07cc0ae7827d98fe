"""Any pixels as 8-bit sRGB on white. For :mod:`jobs.images.pipeline`, in the sandbox's children only."""

from __future__ import annotations

import io
import math
from typing import cast

from PIL import Image, ImageCms

from core import errors

#: Modes of more than 8 bits, with what full white can be in them: the least that covers all pixels is.
#: (A file says how many bits a pixel has, but not how many of 32 it uses.)
_WHITES: dict[str, tuple[float, ...]] = {
    **dict.fromkeys(("I;16", "I;16B", "I;16L", "I;16N"), (65535.0,)),
    "I": (255.0, 65535.0),
    "F": (1.0, 255.0, 65535.0),
}
#: The modes that colour profiles are defined for; all others become RGB first.
_PROFILED = frozenset({"L", "RGB", "CMYK"})
_MODES = (
    _PROFILED
    | _WHITES.keys()
    | {"1", "LA", "P", "PA", "RGBA", "RGBa", "RGBX", "YCbCr", "LAB", "HSV"}
)


def flat(image: Image.Image) -> Image.Image:
    """Return L, RGB or CMYK of 8 bits, with white wherever the image is transparent."""
    if image.mode not in _MODES:
        raise errors.ImageRejected(
            "The image keeps its pixels in a way that cannot be read as colours.",
            code="invalid_image_mode",
        )
    if image.mode in _WHITES:
        # The transparent grey of a deep image, if it names one, is gone with its depth.
        return _to_eight_bits(image)
    if image.has_transparency_data:
        if image.mode != "LA":
            image = image.convert("RGBA")
        white = Image.new("L" if image.mode == "LA" else "RGB", image.size, "white")
        white.paste(image, mask=image)
        return white
    return image if image.mode in _PROFILED else image.convert("RGB")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Return 8-bit grey of 16-bit, 32-bit or float grey. Pillow's own conversion clips at 255."""
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
        # Such values have no natural black and white: the darkest and the brightest are.
        black, white = low, max(high, low + 1)
    scale = 255 / (white - black)
    return image.point(lambda value: value * scale + (0.5 - black * scale)).convert("L")


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Return RGB as its profile means it. A broken profile, or one of other colours, is ignored."""
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            # One that says it is sRGB, as most do, is believed: that saves time and rounding.
            if not (image.mode == "RGB" and "sRGB" in ImageCms.getProfileDescription(source)):
                target = ImageCms.createProfile("sRGB")
                return ImageCms.buildTransform(source, target, image.mode, "RGB").apply(image)
        except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
            pass
    return image if image.mode == "RGB" else image.convert("RGB")
