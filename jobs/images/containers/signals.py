"""Codes and numbers that say how color values become light: ITU-T H.273, and PNG's gAMA and cHRM.

The transfer functions of video (BT.709 and its relatives) count as sRGB: images that carry their codes were made
from sRGB for sRGB displays.
"""

from __future__ import annotations

from collections.abc import Sequence

from jobs.images.containers.container import Signal

_D65 = (0.3127, 0.329)
_C = (0.31, 0.316)
Points = tuple[float, float, float, float, float, float, float, float]
SRGB: Points = (*_D65, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
#: ColourPrimaries of H.273: white, red, green, blue. Code 2 says nothing.
_PRIMARIES: dict[int, Points] = {
    1: SRGB,
    2: SRGB,
    4: (*_C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.6, 0.15, 0.06),
    6: (*_D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    7: (*_D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    8: (*_C, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (*_D65, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
    12: (*_D65, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
    22: (*_D65, 0.63, 0.34, 0.295, 0.605, 0.155, 0.077),
}
#: TransferCharacteristics of H.273, with the exponent of a gamma.
_TRANSFERS: dict[int, tuple[str, float]] = {
    **dict.fromkeys((1, 2, 6, 11, 12, 13, 14, 15), ("srgb", 1.0)),
    4: ("gamma", 2.2),
    5: ("gamma", 2.8),
    8: ("linear", 1.0),
    16: ("pq", 1.0),
    18: ("hlg", 1.0),
}
#: PNG says that a gamma of 2.2 stands for sRGB's curve.
_SRGB_GAMMA, _SIMILAR_GAMMA = 2.2, 0.05
_MIN_GAMMA, _MAX_GAMMA = 0.1, 10.0
_SIMILAR_POINT = 0.005
_MIN_AREA = 0.001


def of_codes(primaries: int, transfer: int, *, full_range: bool) -> tuple[bool, Signal | None]:
    """Return whether the codes are known, and what they say; None means sRGB."""
    if primaries not in _PRIMARIES or transfer not in _TRANSFERS:
        return False, None
    name, gamma = _TRANSFERS[transfer]
    signal = Signal(_PRIMARIES[primaries], name, gamma, full_range=full_range)
    return True, None if signal == Signal(SRGB) else signal


def of_gamma(exponent: float | None, primaries: Points | None) -> Signal | None:
    """Return what an exponent and primaries say, each None if it is unknown; None means sRGB."""
    if primaries is None or all(
        abs(a - b) < _SIMILAR_POINT for a, b in zip(primaries, SRGB, strict=True)
    ):
        primaries = SRGB
    if exponent is None or not _MIN_GAMMA <= exponent <= _MAX_GAMMA:
        exponent = _SRGB_GAMMA
    if abs(exponent / _SRGB_GAMMA - 1) <= _SIMILAR_GAMMA:
        return None if primaries == SRGB else Signal(primaries)
    return Signal(primaries, "gamma", exponent)


def plausible(points: Sequence[float]) -> Points | None:
    """Return eight coordinates as primaries, or None if white is not inside their triangle."""
    white, red, green, blue = zip(points[0::2], points[1::2], strict=True)
    if not all(0 <= x <= 1 and 0 < y <= 1 for x, y in (white, red, green, blue)):
        return None
    areas = [_area(white, a, b) for a, b in ((red, green), (green, blue), (blue, red))]
    inside = all(area > 0 for area in areas) or all(area < 0 for area in areas)
    if not inside or abs(sum(areas)) < _MIN_AREA:
        return None
    return (*white, *red, *green, *blue)


def _area(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    return ((b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])) / 2
