"""What the container of an image file says besides its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

#: Ratios of a pixel's sides within which a resolution is plausible, and from which it is noticeable.
_MAX_ASPECT = Fraction(4)
_MIN_ASPECT = Fraction(105, 100)


@dataclass(frozen=True, slots=True)
class Signal:
    """How color values become light, for files without a color profile.

    Attributes:
        primaries: CIE 1931 x and y of white, red, green, and blue.
        transfer: ``srgb``, ``linear``, ``gamma``, ``pq``, or ``hlg``.
        gamma: the exponent of ``gamma``.
        full_range: whether black and white are 0 and 255, not 16 and 235.
    """

    primaries: tuple[float, float, float, float, float, float, float, float]
    transfer: str = "srgb"
    gamma: float = 1.0
    full_range: bool = True


@dataclass(frozen=True, slots=True)
class Depth:
    """What gray values of more than 8 bits mean.

    Attributes:
        whites: the possible values of white; the smallest one that covers nearly all pixels is used. Empty: the mode of
            the decoded image decides.
        inverted: whether the smallest value is white.
    """

    whites: tuple[float, ...] = ()
    inverted: bool = False


@dataclass(frozen=True, slots=True)
class Container:
    """The facts of one file.

    Attributes:
        data: the file for the decoder.
        exif: EXIF data in TIFF form; None if the decoder reads them.
        orientation: the EXIF orientation; None if it is in the EXIF data.
        profile: the ICC profile; None if the decoder reads it.
        signal: color values without a profile; None means sRGB.
        aspect: width of a pixel divided by its height.
        frames: number of images in the file; None if the decoder counts them.
        transparent: the samples of the color that is transparent, in ``bits`` bits each.
        bits: bits per sample; None if nothing depends on it.
        depth: the meaning of deep gray values.
        unused_alpha: whether an alpha of zero everywhere means that there is no alpha.
        kind: what the file is, with an article, if the decoder does not know its kind of pixels.
    """

    data: bytes
    exif: bytes | None = None
    orientation: int | None = None
    profile: bytes | None = None
    signal: Signal | None = None
    aspect: Fraction = Fraction(1)
    frames: int | None = None
    transparent: tuple[int, ...] | None = None
    bits: int | None = None
    depth: Depth = Depth()
    unused_alpha: bool = False
    kind: str | None = None

    def verify(self) -> None:
        """Check pixels as far as that is possible without a decoder. Most formats have no checksums.

        Raises:
            core.errors.ImageRejected: they are damaged or missing (``image_parse_error``).
        """


def aspect_of(across: Fraction | int, down: Fraction | int) -> Fraction:
    """Return the width of a pixel divided by its height, by resolutions in any common unit.

    Pixels are square unless the resolutions differ by at least 5 percent and at most a factor of four: such
    differences occur in fax and in video, others are mistakes.
    """
    if across <= 0 or down <= 0:
        return Fraction(1)
    aspect = Fraction(down) / Fraction(across)
    larger = max(aspect, 1 / aspect)
    return aspect if _MIN_ASPECT <= larger <= _MAX_ASPECT else Fraction(1)
