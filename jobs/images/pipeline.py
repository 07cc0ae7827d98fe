"""From an uploaded file to the canonical image. Runs in a sandbox's child; the only user of decoders.

In order: the container says what the file is and what its values mean; the header is checked against the limits before
a pixel is decoded; checksums are verified; a JPEG is decoded at the smallest scale that is still large enough; pixels
of more than 8 bits are scaled down; transparency becomes white; the image is resized to the model's size, with
square pixels; its colors are converted from the file's profile to sRGB; it is turned upright; metadata stay
behind. Profile and turn come after the resize because there are fewer pixels then: the image is the same, a
wide-gamut photograph takes half the time.
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
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)

from core import errors, profiles
from jobs.images import colors, containers, foreign, formats, geometry, rejections
from jobs.images.canonical import CanonicalImage, OriginalFile
from jobs.images.containers import jpeg
from jobs.images.rejections import rejected

try:
    import pillow_heif as heif  # Newer decoders, under the GPL because of their encoder.
except ImportError:
    import pi_heif as heif

#: An image narrower than that says nothing at the model's size, and :func:`geometry.smart_resize`
#: is no longer stable.
MAX_RATIO = 50
MIN_SIDE = 2

#: Of canonical JPEGs. Their chroma is 4:4:4: engines that decode on the GPU blow subsampled chroma up by
#: nearest neighbor, which colors edges.
JPEG_QUALITY = 95
#: Of canonical PNGs. Level 4 takes half as long again for a screenshot and saves nothing, twice as long for a
#: photograph and saves a seventh.
PNG_LEVEL = 2

#: Naming the plugins loads them; Pillow's own lookup would import all of its forty.
_PLUGINS: dict[formats.MediaType, type[ImageFile.ImageFile]] = {
    "image/jpeg": JpegImagePlugin.JpegImageFile,
    "image/png": PngImagePlugin.PngImageFile,
    "image/webp": WebPImagePlugin.WebPImageFile,
    "image/gif": GifImagePlugin.GifImageFile,
    "image/bmp": BmpImagePlugin.BmpImageFile,
    "image/tiff": TiffImagePlugin.TiffImageFile,
    "image/avif": AvifImagePlugin.AvifImageFile,
}
# Loaded before the process is confined, for it may open no file later: what Pillow imports when it reads its first
# file, and the encodings of texts in metadata.
Image.preinit()
heif.register_heif_opener()
# libtiff also decodes uncompressed pixels, which Pillow misreads in separate planes of 16 bits.
TiffImagePlugin.READ_LIBTIFF = True
#: Kinds of deep gray TIFF that Pillow's decoders read although its table does not have them, or has a signed type:
#: big-endian 12 bits, unsigned 32 bits, and floating-point 64 bits. The keys are as in the table.
TiffImagePlugin.OPEN_INFO.update(
    {
        (TiffImagePlugin.MM, 1, (1,), 1, (12,), ()): ("I;16", "I;12"),
        (TiffImagePlugin.II, 1, (1,), 1, (32,), ()): ("F", "F;32"),
        (TiffImagePlugin.MM, 1, (1,), 1, (32,), ()): ("F", "F;32B"),
        (TiffImagePlugin.II, 1, (3,), 1, (64,), ()): ("F", "F;64F"),
        (TiffImagePlugin.MM, 1, (3,), 1, (64,), ()): ("F", "F;64BF"),
    }
)
#: Raw modes of deep gray in the byte order of a TIFF, and in that of this machine, in which libtiff returns samples.
_NATIVE = {
    "I;16S": "I;16NS",
    "I;16BS": "I;16NS",
    "I;32S": "I;32NS",
    "I;32BS": "I;32NS",
    "F;32": "F;32N",
    "F;32B": "F;32N",
    "F;32F": "F;32NF",
    "F;32BF": "F;32NF",
    "F;64F": "F;64NF",
    "F;64BF": "F;64NF",
}
_LATE: tuple[object, ...] = (
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
#: Pillow's names of XMP, and of EXIF data in a PNG's text.
_XMP = ("xmp", "XML:com.adobe.xmp", "Raw profile type exif")
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
#: Orientations that lay the image on its side.
_SIDEWAYS = frozenset({5, 6, 7, 8})


def serve(payload: bytes, **arguments: Any) -> tuple[dict[str, Any], bytes]:  # noqa: ANN401 - JSON
    """Be a sandbox's target: :func:`canonicalize`, with what is not bytes as JSON."""
    canonical = canonicalize(payload, **arguments)
    return canonical.facts, canonical.data


def canonicalize(
    data: bytes, *, detail: profiles.Detail = "standard", max_pixels: int = 50_000_000
) -> CanonicalImage:
    """Return the canonical image of a file: with one version of Pillow always the same bytes.

    Of an animation, a multi-page TIFF or a multi-image JPEG, the first image is used.

    Args:
        data: the file.
        detail: the tier that determines the size of the image.
        max_pixels: maximum number of pixels of the file's image.

    Raises:
        core.errors.ImageRejected: as :meth:`jobs.images.ImageReader.accept` says.
        MemoryError: the image needs more than there is.
    """
    media_type = formats.sniff(data)
    if media_type is None:
        raise foreign.rejection(data)
    with warnings.catch_warnings():
        # Pillow warns about much that does no harm; what does harm is checked here.
        warnings.simplefilter("ignore")
        decoded = _decoded(containers.read(data, media_type), media_type, detail, max_pixels)
    submitted = decoded.image
    if submitted.size != decoded.size:
        submitted = submitted.resize(decoded.size, Image.Resampling.BICUBIC)
    submitted = colors.to_srgb(submitted, decoded.profile, decoded.signal)
    if decoded.orientation in _TURNS:
        submitted = submitted.transpose(_TURNS[decoded.orientation])
    lossy = formats.is_lossy(data, media_type)
    seen_width, seen_height = decoded.seen
    return CanonicalImage(
        detail=detail,
        data=_encode(submitted, lossy=lossy),
        media_type="image/jpeg" if lossy else "image/png",
        width=submitted.width,
        height=submitted.height,
        original=OriginalFile(
            sha256=hashlib.sha256(data).hexdigest(),
            size=len(data),
            media_type=media_type,
            width=seen_width,
            height=seen_height,
            orientation=decoded.orientation,
            frames=decoded.frames,
        ),
    )


@dataclass(frozen=True)
class _Decoded:
    """The pixels of a file, not yet turned, and what is still to be done with them.

    Attributes:
        image: in 8-bit L, RGB or CMYK.
        size: the canonical size before the turn.
        seen: the size in the file after the turn, with square pixels.
        orientation: EXIF orientation, 1 to 8.
        frames: number of images in the file.
        profile: the ICC profile, if there is one.
        signal: what the file says about its colors without a profile.
    """

    image: Image.Image
    size: tuple[int, int]
    seen: tuple[int, int]
    orientation: int
    frames: int
    profile: bytes | None
    signal: containers.Signal | None


def _decoded(
    container: containers.Container,
    media_type: formats.MediaType,
    detail: profiles.Detail,
    max_pixels: int,
) -> _Decoded:
    with _opened(container, media_type, max_pixels) as image:
        orientation = _orientation(image, container)
        seen = _squared(image.size, container.aspect)
        _check_ratio(*seen)
        if orientation in _SIDEWAYS:
            seen = seen[::-1]
        height, width = geometry.canonical_size(seen[1], seen[0], detail)
        size = (height, width) if orientation in _SIDEWAYS else (width, height)
        container.verify()
        pixels, clear = _pixels(image, container, media_type, size)
        profile = container.profile
        return _Decoded(
            image=colors.flat(pixels, container, clear),
            size=size,
            seen=seen,
            orientation=orientation,
            frames=_frames(image, container, media_type),
            profile=image.info.get("icc_profile") if profile is None else profile,
            signal=container.signal,
        )


def _pixels(
    image: ImageFile.ImageFile,
    container: containers.Container,
    media_type: formats.MediaType,
    size: tuple[int, int],
) -> tuple[Image.Image, Image.Image | None]:
    """Return the decoded image, and a mask of the pixels that are transparent without an alpha channel."""
    frame = image.tile[0].extents if media_type == "image/gif" and image.tile else None
    mode = image.mode
    try:
        with _damage_rejected():
            image.draft(None, size)  # Only a JPEG uses it; never below ``size``.
            image.tile = [_native(tile) for tile in image.tile]
            image.load()
    except errors.ImageRejected:
        if not isinstance(container, jpeg.Jpeg):
            raise
        return _ended(container, size), None
    if isinstance(container, jpeg.Jpeg) and _is_flat(image.crop(_corner(image.size))):
        # Decoders make missing pixels flat.
        _ended(container, (1, 1))
    if frame is not None and frame != (0, 0, *image.size):
        return image, _outside(frame, image.size)
    if container.transparent is not None and container.bits is not None:
        return image, _of_color(image, mode, container, container.transparent)
    return image, None


def _native(tile: ImageFile._Tile) -> ImageFile._Tile:
    """Return the tile of a TIFF with the byte order in which libtiff returns its samples."""
    if tile.codec_name != "libtiff" or not isinstance(tile.args, tuple):
        return tile
    rawmode, *others = tile.args
    return tile._replace(args=(_NATIVE.get(rawmode, rawmode), *others))


def _ended(container: jpeg.Jpeg, size: tuple[int, int]) -> Image.Image:
    """Return the image of a JPEG, decoded at the smallest scale that is not below ``size``.

    Raises:
        core.errors.ImageRejected: pixels are missing (``image_parse_error``).
    """
    images = []
    for one in container.ended():
        with _damage_rejected():
            image = Image.open(io.BytesIO(one.data), formats=["JPEG"])
            image.draft(None, size)
            image.load()
            images.append(image)
    if not images or any(image.tobytes() != images[0].tobytes() for image in images):
        raise rejections.damaged()
    return images[0]


def _corner(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the place of the pixels that a file has last."""
    return max(0, size[0] - 4), max(0, size[1] - 4), *size


def _is_flat(image: Image.Image) -> bool:
    return all(len(set(band.tobytes())) == 1 for band in image.split())


def _outside(frame: tuple[int, int, int, int], size: tuple[int, int]) -> Image.Image:
    """Return a mask of the canvas that a frame does not cover."""
    mask = Image.new("L", size, 255)
    mask.paste(0, frame)
    return mask


def _of_color(
    image: ImageFile.ImageFile,
    mode: str,
    container: containers.Container,
    color: tuple[int, ...],
) -> Image.Image:
    """Return a mask of the pixels of a PNG that have this color, in all of their bits."""
    bits = container.bits or 8
    if bits < 8:  # noqa: PLR2004 - such samples are scaled to 8 bits
        return colors.equal([image.convert("L")], [color[0] * 255 // ((1 << bits) - 1)])
    if bits == 8:  # noqa: PLR2004 - such samples stay as they are
        return colors.equal(list(image.split()), list(color))
    if mode == "RGB":
        # The decoder keeps the upper byte of each sample; with this mode, it keeps the lower one.
        lower = Image.open(io.BytesIO(container.data), formats=["PNG"])
        lower.tile = [tile._replace(args="RGB;16L") for tile in lower.tile]
        lower.load()
        bands = [*image.split(), *lower.split()]
        return colors.equal(
            bands, [value >> 8 for value in color] + [value & 255 for value in color]
        )
    # As pairs of bytes, the lower one first.
    pairs = Image.frombytes("LA", image.size, image.tobytes("raw", "I;16"))
    return colors.equal(list(pairs.split()), [color[0] & 255, color[0] >> 8])


def _frames(
    image: ImageFile.ImageFile, container: containers.Container, media_type: formats.MediaType
) -> int:
    """Return the number of images in the file. Damage behind the first one does not matter."""
    if container.frames is not None:
        return container.frames
    try:
        if media_type == "image/gif":
            # To count, the decoder moves to the last frame.
            image = Image.open(io.BytesIO(container.data), formats=["GIF"])
        return max(1, int(getattr(image, "n_frames", 1)))
    except _DAMAGED:
        return 1


@contextmanager
def _damage_rejected() -> Iterator[None]:
    try:
        yield
    except _DAMAGED:
        raise rejections.damaged() from None


@contextmanager
def _opened(
    container: containers.Container, media_type: formats.MediaType, max_pixels: int
) -> Iterator[ImageFile.ImageFile]:
    """Give the image with its header read and found to be within the limits, no pixel decoded."""
    name = _plugin(media_type)
    # Pillow's guard against bombs cannot say how large the image is, and is at twice its limit.
    # It is kept for WebP alone, which has its canvas allocated before it can be asked for its size.
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    if media_type == "image/webp":
        Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        image = Image.open(io.BytesIO(container.data), formats=[name])
    except Image.DecompressionBombError:
        raise rejected(
            f"The image has more than {2 * max_pixels / 1e6:g} megapixels; "
            f"at most {max_pixels / 1e6:g} are allowed.",
            "image_too_large",
        ) from None
    except _DAMAGED:
        if container.kind is not None:
            raise rejections.unsupported(container.kind) from None
        raise rejections.damaged() from None
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    with image:
        # XMP can state an orientation too, which browsers ignore.
        for name in _XMP:
            image.info.pop(name, None)
        _check_size(*image.size, max_pixels)
        yield image


def _plugin(media_type: formats.MediaType) -> str:
    """Return Pillow's name of the format, or reject one that this installation cannot read."""
    if media_type in _PLUGINS and (media_type != "image/avif" or features.check("avif")):
        return str(_PLUGINS[media_type].format)
    if media_type == "image/heic":
        return "HEIF"
    raise rejections.unsupported(f"an image of type {media_type}")


def _check_size(width: int, height: int, max_pixels: int) -> None:
    shape = f"The image is {width} x {height} pixels"
    if min(width, height) < MIN_SIDE:
        raise rejected(f"{shape}; each side must be at least {MIN_SIDE}.", "image_too_small")
    if width * height > max_pixels:
        megapixels, allowed = width * height / 1e6, max_pixels / 1e6
        raise rejected(
            f"{shape}, {megapixels:.4g} megapixels; at most {allowed:g} are allowed.",
            "image_too_large",
        )


def _check_ratio(width: int, height: int) -> None:
    ratio = max(width, height) / min(width, height)
    if ratio > MAX_RATIO:
        raise rejected(
            f"The image is {width} x {height} pixels: one side is {ratio:.4g} times the other; "
            f"at most {MAX_RATIO} times is allowed.",
            "invalid_image",
        )


def _squared(size: tuple[int, int], aspect: Fraction) -> tuple[int, int]:
    """Return the size with square pixels: the side with the lower resolution grows."""
    width, height = size
    if aspect >= 1:
        return round(width * aspect), height
    return width, round(height / aspect)


def _orientation(image: Image.Image, container: containers.Container) -> int:
    """Return the EXIF orientation, 1 to 8. Metadata that cannot be read spoil no image."""
    if container.orientation is not None:
        return container.orientation
    try:
        if container.exif is None:
            exif = image.getexif()
        else:
            exif = Image.Exif()
            exif.load(container.exif)
        orientation = exif.get(ExifTags.Base.Orientation)
    except _DAMAGED:
        return _UPRIGHT
    if isinstance(orientation, int) and orientation in _TURNS:
        return orientation
    return _UPRIGHT


def _encode(submitted: Image.Image, *, lossy: bool) -> bytes:
    submitted.info = {}  # Pillow would write some of it: the profile, a comment, a transparent color.
    file = io.BytesIO()
    if lossy:
        submitted.save(file, "JPEG", quality=JPEG_QUALITY, subsampling="4:4:4")
    else:
        submitted.save(file, "PNG", compress_level=PNG_LEVEL)
    return file.getvalue()
