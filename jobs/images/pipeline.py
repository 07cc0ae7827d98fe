"""From a stranger's file to the canonical picture. Runs in a sandbox's child; the only user of decoders.

In order: the header is held against the limits before a pixel is decoded; a JPEG is decoded at the smallest
scale that is still large enough; pixels of more than 8 bits are scaled down; transparency becomes white; the
picture is resized to the model's size; its colors go from the file's profile to sRGB; it is turned upright;
metadata stay behind. Profile and turn come after the resize because there are fewer pixels then: the picture
is the same, a wide-gamut photograph takes half the time.
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
from jobs.images.canonical import CanonicalImage, OriginalFile

try:
    import pillow_heif
except ImportError:  # It is an optional dependency.
    pillow_heif = None

#: An image narrower than that says nothing at the model's size, and :func:`geometry.smart_resize`
#: is no longer stable.
MAX_RATIO = 50
MIN_SIDE = 2

#: Of canonical JPEGs. Their chroma is 4:4:4: engines that decode on the GPU blow subsampled chroma up by
#: nearest neighbour, which colors edges.
JPEG_QUALITY = 95
#: Of canonical PNGs. Level 4 takes half as long again for a screenshot and saves nothing, twice as long for a
#: photograph and saves a seventh.
PNG_LEVEL = 2

#: Naming the plugins loads them; Pillow's own look-up would import all of its forty.
_PLUGINS: dict[formats.MediaType, type[ImageFile.ImageFile]] = {
    "image/jpeg": JpegImagePlugin.JpegImageFile,
    "image/png": PngImagePlugin.PngImageFile,
    "image/webp": WebPImagePlugin.WebPImageFile,
    "image/gif": GifImagePlugin.GifImageFile,
    "image/bmp": BmpImagePlugin.BmpImageFile,
    "image/tiff": TiffImagePlugin.TiffImageFile,
    "image/avif": AvifImagePlugin.AvifImageFile,
}
# Loaded before the process is confined, for it may open no file later: what Pillow imports at its first look at a file,
# or for a JPEG of several pictures, and the encodings of texts in metadata.
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
#: EXIF orientation to the move that undoes it.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: Orientations that lay the picture on its side.
_SIDEWAYS = frozenset({5, 6, 7, 8})


def serve(payload: bytes, **arguments: Any) -> tuple[dict[str, Any], bytes]:  # noqa: ANN401 - JSON
    """Be a sandbox's target: :func:`canonicalize`, with what is not bytes as JSON."""
    canonical = canonicalize(payload, **arguments)
    return canonical.facts, canonical.data


def canonicalize(
    data: bytes, *, detail: profiles.Detail = "standard", max_pixels: int = 50_000_000
) -> CanonicalImage:
    """Return the canonical image of a file: with one version of Pillow always the same bytes.

    Of an animation, a multi-page TIFF or a multi-picture JPEG the first picture is used.

    Args:
        data: the file.
        detail: the tier whose size the picture gets.
        max_pixels: most pixels of the file's picture.

    Raises:
        core.errors.ImageRejected: as :meth:`jobs.images.ImageReader.accept` says.
        MemoryError: the picture needs more than there is.
    """
    media_type = formats.sniff(data)
    if media_type is None:
        raise _rejected("The file is not an image of a known format.", "invalid_image_format")
    with warnings.catch_warnings():
        # Pillow warns about much that does no harm; what does harm is looked at here.
        warnings.simplefilter("ignore")
        with _opened(data, media_type, max_pixels) as image:
            orientation = _orientation(image)
            # Pillow turns a TIFF itself while it loads it, and tells its size as it will be.
            turn = _UPRIGHT if media_type == "image/tiff" else orientation
            seen_width, seen_height = image.size[::-1] if turn in _SIDEWAYS else image.size
            height, width = geometry.canonical_size(seen_height, seen_width, detail)
            size = (height, width) if turn in _SIDEWAYS else (width, height)
            with _damage_refused():
                frames = int(getattr(image, "n_frames", 1))
                image.draft(None, size)  # Only a JPEG heeds it; never below ``size``.
                image.load()
        submitted = colors.flat(image)
        if submitted.size != size:
            submitted = submitted.resize(size, Image.Resampling.BICUBIC)
        submitted = colors.to_srgb(submitted, image.info.get("icc_profile"))
    if turn in _TURNS:
        submitted = submitted.transpose(_TURNS[turn])
    lossy = formats.is_lossy(data, media_type)
    return CanonicalImage(
        detail=detail,
        data=_encode(submitted, lossy=lossy),
        media_type="image/jpeg" if lossy else "image/png",
        width=width,
        height=height,
        original=OriginalFile(
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
            "The image file is damaged or truncated and cannot be decoded.", "image_parse_error"
        ) from None


@contextmanager
def _opened(
    data: bytes, media_type: formats.MediaType, max_pixels: int
) -> Iterator[ImageFile.ImageFile]:
    """Give the image with its header read and found to be within the limits, no pixel decoded."""
    name = _plugin(media_type)
    # Pillow's guard against bombs cannot say how large the image is, and stands at twice its limit.
    # It is kept for WebP alone, which has its canvas allocated before it can be asked for its size.
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
    """Return Pillow's name of the format, or refuse one that this installation cannot read."""
    if media_type in _PLUGINS and (media_type != "image/avif" or features.check("avif")):
        return str(_PLUGINS[media_type].format)
    if media_type == "image/heic" and pillow_heif is not None:
        pillow_heif.register_heif_opener()
        return "HEIF"
    raise _rejected(
        f"This server cannot read {media_type}; send {formats.READABLE}.",
        "unsupported_image_media_type",
    )


def _check_size(width: int, height: int, max_pixels: int) -> None:
    shape = f"The image is {width} x {height} pixels"
    if min(width, height) < MIN_SIDE:
        raise _rejected(f"{shape}; each side must be at least {MIN_SIDE}.", "image_too_small")
    if width * height > max_pixels:
        megapixels, allowed = width * height / 1e6, max_pixels / 1e6
        raise _rejected(
            f"{shape}, {megapixels:.4g} megapixels; at most {allowed:g} are allowed.",
            "image_too_large",
        )
    ratio = max(width, height) / min(width, height)
    if ratio > MAX_RATIO:
        raise _rejected(
            f"{shape}: one side is {ratio:.4g} times the other; at most {MAX_RATIO} times is allowed.",
            "invalid_image",
        )


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8. Metadata that cannot be read spoil no picture."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except _DAMAGED:
        return _UPRIGHT
    if isinstance(orientation, int) and orientation in _TURNS:
        return orientation
    return _UPRIGHT


def _encode(submitted: Image.Image, *, lossy: bool) -> bytes:
    submitted.info = {}  # Pillow would write some of it: the profile, a comment, a transparent colour.
    file = io.BytesIO()
    if lossy:
        submitted.save(file, "JPEG", quality=JPEG_QUALITY, subsampling="4:4:4")
    else:
        submitted.save(file, "PNG", compress_level=PNG_LEVEL)
    return file.getvalue()
