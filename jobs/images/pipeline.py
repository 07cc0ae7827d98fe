"""Conversion of an untrusted file to the canonical image, in a sandbox's child: the only user of decoders.

The steps, in order:

1. Check the header against the limits, before any pixel is decoded.
2. Decode; a JPEG at the smallest scale that is still large enough.
3. Scale pixels of more than 8 bits down, and replace transparency by white.
4. Resize to the model's size.
5. Convert the colors from the file's profile to sRGB.
6. Rotate the image upright.
7. Encode without metadata.

The color conversion and the rotation follow the resize because there are fewer pixels then: the result is the same, and
a wide-gamut photograph takes half the time.
"""

from __future__ import annotations

import codecs
import hashlib
import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)

from core import errors, profiles
from jobs.images import colors, formats, geometry
from jobs.images.canonical import CanonicalImage, Original

try:
    import pillow_heif
except ImportError:  # It is an optional dependency.
    pillow_heif = None

#: An image with a larger ratio is unreadable at the model's size, and :func:`geometry.smart_resize` is not stable
#: for it.
MAX_RATIO = 50
MIN_SIDE = 2

#: Quality of canonical JPEGs. Their chroma is 4:4:4: engines that decode on the GPU enlarge subsampled chroma by
#: nearest neighbor, which produces colored edges.
JPEG_QUALITY = 95
#: Compression level of canonical PNGs. Level 4 takes 50 % more time for a screenshot and saves nothing; for a
#: photograph it takes twice the time and saves a seventh.
PNG_LEVEL = 2

#: These imports load the plugins; Pillow's own lookup would import all forty of them.
_PLUGINS: dict[formats.MediaType, type[ImageFile.ImageFile]] = {
    "image/jpeg": JpegImagePlugin.JpegImageFile,
    "image/png": PngImagePlugin.PngImageFile,
    "image/webp": WebPImagePlugin.WebPImageFile,
    "image/gif": GifImagePlugin.GifImageFile,
    "image/bmp": BmpImagePlugin.BmpImageFile,
    "image/tiff": TiffImagePlugin.TiffImageFile,
    "image/avif": AvifImagePlugin.AvifImageFile,
}
# A confined process cannot open files, so these modules are loaded before: the ones that Pillow imports when it first
# opens a file or a JPEG with several images, and the encodings of texts in metadata.
Image.preinit()
_LATE: tuple[object, ...] = (
    MpoImagePlugin,
    *map(codecs.lookup, ("ascii", "latin-1", "utf-8", "utf-16", "utf-16-le", "utf-16-be")),
)
#: What Pillow's decoders raise on files that are damaged, one way or another.
_DAMAGED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
_UPRIGHT = 1
#: EXIF orientation to the transposition that undoes it.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: Orientations that exchange width and height.
_SIDEWAYS = frozenset({5, 6, 7, 8})


def serve(payload: bytes, **arguments: Any) -> tuple[dict[str, Any], bytes]:  # noqa: ANN401 - JSON
    """Run :func:`canonicalize` as the target of a sandbox: the result is JSON and bytes."""
    canonical = canonicalize(payload, **arguments)
    return canonical.facts, canonical.data


def canonicalize(
    data: bytes, *, detail: profiles.Detail = "standard", max_pixels: int = 50_000_000
) -> CanonicalImage:
    """Return the canonical image of a file. With one version of Pillow, the bytes are always the same.

    The result is the first image of an animation, a multi-page TIFF or a multi-picture JPEG.

    Args:
        data: the file.
        detail: the detail tier that determines the size of the result.
        max_pixels: maximum number of pixels of the file's image.

    Raises:
        core.errors.ImageRejected: see :meth:`jobs.images.ImageReader.accept`.
        MemoryError: the image needs more memory than is available.
    """
    media_type = formats.sniff(data)
    if media_type is None:
        raise _rejected("The file is not an image of a known format.", "invalid_image_format")
    with warnings.catch_warnings():
        # Most of Pillow's warnings are harmless; this module checks the rest.
        warnings.simplefilter("ignore")
        with _opened(data, media_type, max_pixels) as image:
            orientation = _orientation(image)
            # Pillow rotates a TIFF while it loads it, and reports the size after the rotation.
            turn = _UPRIGHT if media_type == "image/tiff" else orientation
            seen_width, seen_height = image.size[::-1] if turn in _SIDEWAYS else image.size
            height, width = geometry.canonical_size(seen_height, seen_width, detail)
            size = (height, width) if turn in _SIDEWAYS else (width, height)
            with _damage_refused():
                frames = int(getattr(image, "n_frames", 1))
                image.draft(
                    None, size
                )  # Affects only JPEG; the result is not smaller than ``size``.
                image.load()
        pixels = colors.flat(image)
        if pixels.size != size:
            pixels = pixels.resize(size, Image.Resampling.BICUBIC)
        pixels = colors.to_srgb(pixels, image.info.get("icc_profile"))
    if turn in _TURNS:
        pixels = pixels.transpose(_TURNS[turn])
    lossy = formats.is_lossy(data, media_type)
    return CanonicalImage(
        data=_encode(pixels, lossy=lossy),
        media_type="image/jpeg" if lossy else "image/png",
        width=width,
        height=height,
        original=Original(
            sha256=hashlib.sha256(data).hexdigest(),
            size=len(data),
            media_type=media_type,
            width=seen_width,
            height=seen_height,
            orientation=orientation,
            frames=frames,
        ),
    )


def _rejected(message: str, code: str) -> errors.ImageRejected:
    return errors.ImageRejected(message, code=code)


@contextmanager
def _damage_refused() -> Iterator[None]:
    try:
        yield
    except _DAMAGED:
        raise _rejected(
            "The image file cannot be decoded: it is damaged or truncated.", "image_parse_error"
        ) from None


@contextmanager
def _opened(
    data: bytes, media_type: formats.MediaType, max_pixels: int
) -> Iterator[ImageFile.ImageFile]:
    """Yield the image after its header was checked against the limits, before any pixel is decoded."""
    name = _plugin(media_type)
    # Pillow's guard against decompression bombs does not report the size of the image and applies at twice its limit.
    # Only WebP needs it, because Pillow allocates its canvas before the size is available.
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    if media_type == "image/webp":
        Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        with _damage_refused():
            image = Image.open(io.BytesIO(data), formats=[name])
    except Image.DecompressionBombError:
        raise _rejected(
            f"The image has more than {2 * max_pixels / 1e6:g} megapixels; "
            f"at most {max_pixels / 1e6:g} are allowed.",
            "image_too_large",
        ) from None
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    with image:
        _check_size(*image.size, max_pixels)
        yield image


def _plugin(media_type: formats.MediaType) -> str:
    """Return Pillow's name of the format, or reject a format that this installation cannot read."""
    if media_type in _PLUGINS and (media_type != "image/avif" or features.check("avif")):
        return str(_PLUGINS[media_type].format)
    if media_type == "image/heic" and pillow_heif is not None:
        pillow_heif.register_heif_opener()
        return "HEIF"
    raise _rejected(
        f"This server cannot read {media_type}; send JPEG, PNG, WebP, GIF, BMP or TIFF.",
        "unsupported_image_media_type",
    )


def _check_size(width: int, height: int, max_pixels: int) -> None:
    shape = f"The image is {width} x {height} pixels"
    if min(width, height) < MIN_SIDE:
        raise _rejected(f"{shape}; each side must have at least {MIN_SIDE}.", "image_too_small")
    if width * height > max_pixels:
        actual, allowed = width * height / 1e6, max_pixels / 1e6
        raise _rejected(
            f"{shape}, {actual:.4g} megapixels; at most {allowed:g} are allowed.", "image_too_large"
        )
    ratio = max(width, height) / min(width, height)
    if ratio > MAX_RATIO:
        raise _rejected(
            f"{shape}, one side {ratio:.4g} times the other; at most {MAX_RATIO} times is allowed.",
            "invalid_image",
        )


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8. Unreadable metadata is ignored."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except _DAMAGED:
        return _UPRIGHT
    if isinstance(orientation, int) and orientation in _TURNS:
        return orientation
    return _UPRIGHT


def _encode(pixels: Image.Image, *, lossy: bool) -> bytes:
    pixels.info = {}  # Pillow would write some of it: the profile, a comment, a transparent color.
    file = io.BytesIO()
    if lossy:
        pixels.save(file, "JPEG", quality=JPEG_QUALITY, subsampling="4:4:4")
    else:
        pixels.save(file, "PNG", compress_level=PNG_LEVEL)
    return file.getvalue()
