"""Converts pixels of any mode to 8-bit sRGB on white. Runs only in child processes of the sandbox."""

from __future__ import annotations

import functools
import io
import itertools
from typing import cast

from PIL import Image, ImageChops, ImageCms

from core import errors
from jobs.images import deep, icc
from jobs.images.containers import Container, Signal

#: The modes that color profiles are defined for; all others are converted to RGB first.
_PROFILED = frozenset({"L", "RGB", "CMYK"})
_MODES = (
    _PROFILED
    | deep.WHITES.keys()
    | {"1", "LA", "La", "P", "PA", "RGBA", "RGBa", "RGBX", "YCbCr", "LAB", "HSV"}
)
#: A profile that moves no sample color by more than this counts as sRGB.
_TOLERANCE = 1
_SAMPLES = tuple(itertools.product((0, 16, 48, 96, 144, 200, 255), repeat=3))
#: Profiles up to this size are remembered; those of cameras and programs for sRGB have up to 4 KB.
_REMEMBERED_BYTES = 16 * 1024


def flat(image: Image.Image, container: Container, clear: Image.Image | None) -> Image.Image:
    """Return the image in 8-bit L, RGB or CMYK, with white for transparency.

    Args:
        image: the decoded image.
        container: the facts of its file.
        clear: a mask of the pixels that are transparent besides those that ``image`` says; or None.
    """
    if image.mode not in _MODES:
        raise errors.ImageRejected(
            "The image has a pixel format that cannot be converted to colors.",
            code="invalid_image_mode",
        )
    if image.mode in deep.WHITES:
        opaque = deep.to_eight_bits(image, container.depth)
    elif image.has_transparency_data:
        opaque = _on_white(image, unused_alpha=container.unused_alpha)
    else:
        opaque = image if image.mode in _PROFILED else image.convert("RGB")
    if clear is not None:
        opaque.paste("white", mask=clear)
    return opaque


def _on_white(image: Image.Image, *, unused_alpha: bool) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")
    elif image.mode != "LA":
        image = image.convert("RGBA")
    if unused_alpha and image.getchannel("A").getextrema() == (0, 0):
        return image.convert("L" if image.mode == "LA" else "RGB")
    white = Image.new("L" if image.mode == "LA" else "RGB", image.size, "white")
    white.paste(image, mask=image)
    return white


def equal(bands: list[Image.Image], values: list[int]) -> Image.Image:
    """Return a mask of the pixels whose 8-bit samples have these values."""
    masks = [
        band.point([255 * (sample == value) for sample in range(256)])
        for band, value in zip(bands, values, strict=True)
    ]
    return functools.reduce(ImageChops.darker, masks)


def to_srgb(image: Image.Image, profile: bytes | None, signal: Signal | None) -> Image.Image:
    """Return the image in sRGB. A damaged profile, or one for another color space, is ignored.

    Args:
        image: in mode L, RGB or CMYK.
        profile: the ICC profile of the file.
        signal: what the file says about its colors without a profile.
    """
    if not profile and signal is not None:
        profile = icc.profile(signal)
    if not profile:
        return image if image.mode == "RGB" else image.convert("RGB")
    try:
        if image.mode == "L" and _space(profile) == "RGB":
            image = image.convert("RGB")
        if image.mode != "RGB" or not _is_srgb(profile):
            return _transform(profile, image.mode).apply(image)
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        pass
    return image if image.mode == "RGB" else image.convert("RGB")


def _is_srgb(profile: bytes) -> bool:
    """Return whether a profile changes nothing that is visible, whatever its name is.

    Most profiles are sRGB; without a conversion they cost no time and no rounding.
    """
    if len(profile) > _REMEMBERED_BYTES:
        return _changes_nothing(profile)
    return _remembered(profile)


def _changes_nothing(profile: bytes) -> bool:
    samples = Image.new("RGB", (len(_SAMPLES), 1))
    samples.putdata(_SAMPLES)
    converted = _transform(profile, "RGB").apply(samples)
    bands = ImageChops.difference(samples, converted).split()
    return all(cast("int", band.getextrema()[1]) <= _TOLERANCE for band in bands)


_remembered = functools.lru_cache(maxsize=32)(_changes_nothing)


def _space(profile: bytes) -> str:
    return ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space.strip()


def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    return ImageCms.buildTransform(source, _SRGB, mode, "RGB")


_SRGB = ImageCms.createProfile("sRGB")
