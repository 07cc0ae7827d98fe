"""Converts gray values of more than 8 bits to 8 bits. Runs only in child processes of the sandbox."""

from __future__ import annotations

import math
from typing import cast

from PIL import Image

from core import errors
from jobs.images.containers import Depth

#: Modes with more than 8 bits, and the possible values of white where a file does not state it.
WHITES: dict[str, tuple[float, ...]] = {
    **dict.fromkeys(("I;16", "I;16B", "I;16L", "I;16N"), (65535.0,)),
    "I": (255.0, 65535.0),
    "F": (1.0, 255.0, 65535.0),
}
#: One of this many pixels may be an outlier: it does not decide black or white, and is clipped.
_PER_OUTLIER = 1000
#: The number of pixels from which one outlier is permitted.
_LEAST_PIXELS = 100
#: Values above a usual white by this factor are overshoot. Values that end within 4 bits above a usual white are not
#: meant for the next one, which would make a dark image: 12 bits in 32-bit integers, for instance.
_OVERSHOOT, _NEAR = 1.1, 16.5
#: Values below zero by less than this share of white are inaccurate black.
_UNDERSHOOT = 0.05
#: The extreme value is an outlier if it is this many times farther from zero than the others.
_FAR = 2.0
#: Each round reduces the range by up to 256: enough for all floating-point numbers of 32 bits.
_ROUNDS = 40


def to_eight_bits(image: Image.Image, depth: Depth) -> Image.Image:
    """Return 16-bit, 32-bit or float gray as 8-bit gray. Pillow's own conversion clips at 255.

    Raises:
        core.errors.ImageRejected: pixels are not finite numbers (``invalid_image_mode``).
    """
    whites = depth.whites or WHITES[image.mode]
    if len(whites) == 1:
        black, white = 0.0, whites[0]
        image = image.convert("I") if image.mode != "F" else image
    else:
        image = image.convert("F")
        black, white = _range(image, whites)
    scale = 255 / (white - black)
    gray = image.point(lambda value: value * scale + (0.5 - black * scale)).convert("L")
    return gray.point([255 - value for value in range(256)]) if depth.inverted else gray


def _range(image: Image.Image, whites: tuple[float, ...]) -> tuple[float, float]:
    """Return black and white, which no outlier decides."""
    mean = cast("float", image.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0)))
    low, high = cast("tuple[float, float]", image.getextrema())  # One channel, so one pair.
    if not all(map(math.isfinite, (mean, low, high))):
        raise errors.ImageRejected(
            "The image has pixels that are not finite numbers.", code="invalid_image_mode"
        )
    bright = _brightest(image, low, high)
    dark = -_brightest(image.point(lambda value: value * -1 + 0), -high, -low)
    high = high if high <= _FAR * bright else bright
    low = low if low >= _FAR * dark else dark
    white = _white(bright, high, whites)
    if low >= -_UNDERSHOOT * white:
        return 0.0, white
    # There is no natural black and white: the darkest and the brightest value are.
    return low, max(high, low + 1)


def _white(bright: float, high: float, whites: tuple[float, ...]) -> float:
    for white in whites:
        if bright <= _OVERSHOOT * white and (high <= white or high <= _OVERSHOOT * bright):
            return white
        if bright <= _NEAR * white:
            return max(high, white)
    return high


def _brightest(image: Image.Image, low: float, high: float) -> float:
    """Return the brightest value that is not an outlier, within a 128th of the distance to the darkest one."""
    pixels = image.width * image.height
    allowed = max(pixels // _PER_OUTLIER, int(pixels >= _LEAST_PIXELS))
    if not allowed:
        return high
    for _ in range(_ROUNDS):
        if low >= high:
            break
        counts = image.histogram(extrema=(low, high))
        above, step = pixels - sum(counts), (high - low) / 255
        index = 255
        while index and above + counts[index] <= allowed:
            above += counts[index]
            index -= 1
        if index == 255:  # noqa: PLR2004 - the last of the 256 counts
            break
        high = low + (index + 1) * step
        if index >= 128:  # noqa: PLR2004 - more rounds would not reduce the range by half
            break
    return high
