"""The size at which the model sees an image, and its number of tokens.

A Qwen2-VL model (QVQ is one) cuts an image into patches of 14 x 14 pixels, encodes them, and merges
2 x 2 neighbors into one visual token. So a token covers 28 x 28 pixels, and both sides must be multiples
of 28:

    tokens = (height / 28) * (width / 28)

The temporal patch of 2 frames makes no difference for a still image, which is duplicated. In the prompt,
``<|vision_start|>`` and ``<|vision_end|>`` enclose the tokens: 2 more tokens.

The processor resizes every image with :func:`smart_resize`, within its limits: 3,136 pixels (4 tokens) and 12,845,056
pixels (16,384 tokens) for QVQ-72B-Preview. An image that has such a size stays unchanged. So the service resizes
each image once, to the detail tier of the job, and the model sees exactly the stored pixels.

Sources: ``Qwen2VLImageProcessor`` in Hugging Face's transformers; "Qwen2-VL: Enhancing Vision-Language
Model's Perception of the World at Any Resolution" (arXiv 2409.12191), section 2.1.
"""

from __future__ import annotations

import math

from core import profiles

#: Pixels along a side of one visual token: patch 14, spatial merge 2.
TOKEN_SIDE = 28
#: ``<|vision_start|>`` and ``<|vision_end|>`` around the tokens of every image.
MARKER_TOKENS = 2
#: The processor's lower limit: 4 tokens. It enlarges smaller images.
MIN_PIXELS = 4 * TOKEN_SIDE**2

_MAX_RATIO = 200


def smart_resize(height: int, width: int, *, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Return the ``(height, width)`` in pixels at which Qwen2-VL sees an image of this size.

    Both sides are multiples of 28, the area is within the limits (in pixels), and the aspect ratio is as close to the
    original as that allows. Halves are rounded to even, as by :func:`round`. For ratios up to 50, the function is
    idempotent.

    Raises:
        ValueError: a side is below one pixel, or more than 200 times the other.
    """
    if min(height, width) < 1 or max(height, width) / min(height, width) > _MAX_RATIO:
        raise ValueError(f"an image of {width} x {height} pixels has no size for the model")
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
    """Return the ``(height, width)`` of the canonical image for jobs of this detail tier."""
    most = profiles.DETAIL_TOKENS[detail] * TOKEN_SIDE**2
    return smart_resize(height, width, min_pixels=MIN_PIXELS, max_pixels=most)


def image_tokens(width: int, height: int, profile: profiles.ModelProfile) -> int:
    """Return the number of visual tokens of a canonical image for the served model, without markers.

    The limits of the model's processor may be narrower than the detail tier.
    """
    tall, wide = smart_resize(
        height, width, min_pixels=profile.min_pixels, max_pixels=profile.max_pixels
    )
    return (tall // TOKEN_SIDE) * (wide // TOKEN_SIDE)
