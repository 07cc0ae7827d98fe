"""The size at which the model sees an image, and the number of its tokens.

A Qwen2-VL model such as QVQ cuts an image into patches of 14 x 14 pixels, encodes them, and merges
2 x 2 adjacent patches into one visual token. A token therefore covers 28 x 28 pixels, and both sides must be
multiples of 28:

    tokens = (height / 28) * (width / 28)

The temporal patch of 2 frames changes nothing for a still image, which is doubled. In the prompt,
``<|vision_start|>`` and ``<|vision_end|>`` surround the tokens: 2 more.

The model's processor resizes any image to such a size by :func:`smart_resize`, within its limits: 3,136 pixels
(4 tokens) and 12,845,056 pixels (16,384 tokens) for QVQ-72B-Preview. It does not change an image that already has
such a size. The service therefore resizes an image once, to the detail tier of the job, and the model
sees exactly the pixels that are stored.

Sources: ``Qwen2VLImageProcessor`` in Hugging Face's transformers; "Qwen2-VL: Enhancing Vision-Language
Model's Perception of the World at Any Resolution" (arXiv 2409.12191), section 2.1.
"""

from __future__ import annotations

import math

from core import profiles

#: Pixels along a side of one visual token: patch 14, spatial merge 2.
TOKEN_SIDE = 28
#: ``<|vision_start|>`` and ``<|vision_end|>`` around every image's tokens.
MARKER_TOKENS = 2
#: The processor's lower limit: 4 tokens. It enlarges a smaller image.
MIN_PIXELS = 4 * TOKEN_SIDE**2

_MAX_RATIO = 200


def smart_resize(height: int, width: int, *, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Return the ``(height, width)`` in pixels at which Qwen2-VL sees an image of this size.

    Both sides are multiples of 28, the area is within the limits (in pixels), and the aspect ratio is
    as close to the original as these conditions allow. Halves are rounded to even, as in :func:`round`. The
    function is idempotent for aspect ratios up to 50.

    Raises:
        ValueError: a side is below one pixel, or one side is more than 200 times the other.
    """
    if min(height, width) < 1 or max(height, width) / min(height, width) > _MAX_RATIO:
        raise ValueError(
            f"an image must have sides of at least 1 pixel and an aspect ratio of at most {_MAX_RATIO}; "
            f"this one is {width} x {height} pixels"
        )
    tall = round(height / TOKEN_SIDE) * TOKEN_SIDE
    wide = round(width / TOKEN_SIDE) * TOKEN_SIDE
    if tall * wide > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        tall = max(TOKEN_SIDE, math.floor(height / shrink / TOKEN_SIDE) * TOKEN_SIDE)
        wide = max(TOKEN_SIDE, math.floor(width / shrink / TOKEN_SIDE) * TOKEN_SIDE)
    elif tall * wide < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        tall = math.ceil(height * grow / TOKEN_SIDE) * TOKEN_SIDE
        wide = math.ceil(width * grow / TOKEN_SIDE) * TOKEN_SIDE
    return tall, wide


def canonical_size(height: int, width: int, detail: profiles.Detail) -> tuple[int, int]:
    """Return the ``(height, width)`` in pixels of the canonical image for jobs of this detail tier."""
    max_pixels = profiles.DETAIL_TOKENS[detail] * TOKEN_SIDE**2
    return smart_resize(height, width, min_pixels=MIN_PIXELS, max_pixels=max_pixels)


def image_tokens(width: int, height: int, profile: profiles.ModelProfile) -> int:
    """Return the number of visual tokens of a canonical image for the served model, without the two markers.

    The model's processor has its own limits, which may be narrower than the detail tier.
    """
    tall, wide = smart_resize(
        height, width, min_pixels=profile.min_pixels, max_pixels=profile.max_pixels
    )
    return (tall // TOKEN_SIDE) * (wide // TOKEN_SIDE)
