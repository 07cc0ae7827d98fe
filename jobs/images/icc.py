"""Makes ICC profiles of files that describe their colors without one.

A profile here is a matrix and one curve (ICC.1:2010, section 8.3.3): the curve leads from values to light, the matrix
to the connection space. The light of HDR transfer functions is tone-mapped in the curve: up to three quarters
of white, which is at 203 cd/m² (ITU-R BT.2408), it stays as it is, and the range up to 1,000 cd/m² is
compressed into the rest.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence

from jobs.images.containers import Signal

Matrix = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]
Vector = tuple[float, float, float]

_D50: Vector = (0.9642, 1.0, 0.8249)
_BRADFORD: Matrix = (
    (0.8951, 0.2664, -0.1614),
    (-0.7502, 1.7135, 0.0367),
    (0.0389, -0.0685, 1.0296),
)
_POINTS = 4096
_WHITE_NITS, _PEAK_NITS = 203.0, 1000.0
_KNEE = 0.75
_SYSTEM_GAMMA = 1.2


def profile(signal: Signal) -> bytes:
    """Return the profile of RGB values with these primaries and this transfer function."""
    white, red, green, blue = (
        _xyz(x, y) for x, y in zip(signal.primaries[0::2], signal.primaries[1::2], strict=True)
    )
    columns: Matrix = (red, green, blue)
    shares = _times(_inverse(_transposed(columns)), white)
    adapted = [
        _times(_adaptation(white), _scaled(column, share))
        for column, share in zip(columns, shares, strict=True)
    ]
    curve = _curve(signal)
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 7) + b"signal\x00" + bytes(78),
        b"cprt": b"text" + bytes(4) + b"none\x00",
        b"wtpt": _xyz_tag(_D50),
        **dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), map(_xyz_tag, adapted), strict=True)),
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
    }
    return _file(tags)


def _file(tags: dict[bytes, bytes]) -> bytes:
    at, table, body = 132 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        table += name + struct.pack(">II", at + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    size = at + len(body)
    head = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + b"".join(map(_fixed, _D50))
    return head.ljust(128, b"\x00") + struct.pack(">I", len(tags)) + table + body


def _curve(signal: Signal) -> bytes:
    function = _transfer(signal)
    values = []
    for index in range(_POINTS):
        value = index / (_POINTS - 1)
        if not signal.full_range:
            value = min(max((value * 255 - 16) / 219, 0.0), 1.0)
        values.append(round(65535 * min(max(function(value), 0.0), 1.0)))
    return b"curv" + bytes(4) + struct.pack(f">I{_POINTS}H", _POINTS, *values)


def _transfer(signal: Signal) -> Callable[[float], float]:
    """Return the function from values to light, both 0 to 1."""
    functions: dict[str, Callable[[float], float]] = {
        "srgb": _srgb,
        "linear": lambda value: value,
        "gamma": lambda value: math.pow(value, signal.gamma),
        "pq": lambda value: _tone_mapped(_pq_nits(value)),
        "hlg": lambda value: _tone_mapped(_hlg_nits(value)),
    }
    return functions[signal.transfer]


def _srgb(value: float) -> float:
    """Return sRGB's light (IEC 61966-2-1)."""
    if value <= 0.04045:  # noqa: PLR2004 - where the straight part ends
        return value / 12.92
    return math.pow((value + 0.055) / 1.055, 2.4)


def _pq_nits(value: float) -> float:
    """Return the light of SMPTE ST 2084 in cd/m²."""
    power = math.pow(value, 32 / 2523)
    ratio = max(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)
    return 10_000 * math.pow(ratio, 8192 / 1305)


def _hlg_nits(value: float) -> float:
    """Return the light of hybrid log-gamma (ITU-R BT.2100) on a display of 1,000 cd/m²."""
    scene = value**2 / 3
    if value > 0.5:  # noqa: PLR2004 - where the logarithmic part begins
        scene = (math.exp((value - 0.55991073) / 0.17883277) + 0.28466892) / 12
    return _PEAK_NITS * math.pow(scene, _SYSTEM_GAMMA)


def _tone_mapped(nits: float) -> float:
    light = nits / _WHITE_NITS
    if light <= _KNEE:
        return light
    # A hyperbola that continues the line with the same slope and ends in white at the peak.
    over, peak, room = light - _KNEE, _PEAK_NITS / _WHITE_NITS - _KNEE, 1 - _KNEE
    return min(1.0, _KNEE + over / (1 + over * (1 / room - 1 / peak)))


def _xyz(x: float, y: float) -> Vector:
    return (x / y, 1.0, (1 - x - y) / y)


def _adaptation(white: Vector) -> Matrix:
    """Return Bradford's matrix from this white to D50."""
    source, target = _times(_BRADFORD, white), _times(_BRADFORD, _D50)
    scaled = tuple(
        _scaled(row, to / of) for row, to, of in zip(_BRADFORD, target, source, strict=True)
    )
    back = _inverse(_BRADFORD)
    columns = [_times(back, column) for column in zip(*scaled, strict=True)]
    return _transposed(columns)


def _times(matrix: Sequence[Sequence[float]], vector: Sequence[float]) -> Vector:
    a, b, c = (sum(x * y for x, y in zip(row, vector, strict=True)) for row in matrix)
    return a, b, c


def _scaled(vector: Sequence[float], factor: float) -> Vector:
    a, b, c = (value * factor for value in vector)
    return a, b, c


def _transposed(matrix: Sequence[Sequence[float]]) -> Matrix:
    a, b, c = ((row[0], row[1], row[2]) for row in zip(*matrix, strict=True))
    return a, b, c


def _inverse(matrix: Sequence[Sequence[float]]) -> Matrix:
    """Return the inverse by the adjugate; the matrices here are regular."""
    (a, b, c), (d, e, f), (g, h, i) = matrix
    determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    return _transposed(
        [
            _scaled((e * i - f * h, f * g - d * i, d * h - e * g), 1 / determinant),
            _scaled((c * h - b * i, a * i - c * g, b * g - a * h), 1 / determinant),
            _scaled((b * f - c * e, c * d - a * f, a * e - b * d), 1 / determinant),
        ]
    )


def _xyz_tag(vector: Sequence[float]) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(map(_fixed, vector))


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(65536 * min(max(value, -32768.0), 32767.0)))
