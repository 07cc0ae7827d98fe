"""Draws the packages and the directions of their imports as an SVG, from the contracts in ``pyproject.toml``."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from xml.sax.saxutils import escape

_WIDTH: Final = 960
_MARGIN: Final = 16
#: Space between the rows of boxes, for the arrow.
_GAP: Final = 36
_LINE: Final = 16
_TITLE: Final = 26
#: Width of a character of the small font, in pixels; a little more than it takes.
_CHARACTER: Final = 6.4
_COLORS: Final = (
    "#dbeafe",
    "#dcfce7",
    "#fef3c7",
    "#fae8ff",
    "#e0e7ff",
    "#fee2e2",
    "#ccfbf1",
    "#f1f5f9",
)


@dataclass(frozen=True)
class Box:
    """A package: its name, and the lines of text that list its modules, top layer first."""

    name: str
    lines: tuple[str, ...]

    @property
    def height(self) -> int:
        """The height of the box in pixels."""
        return _TITLE + _LINE * len(self.lines) + 18


def draw(contracts: Sequence[Mapping[str, Any]]) -> str:
    """Return the picture.

    Args:
        contracts: the contracts of import-linter. The layers contract without a container gives the rows;
            those with a container list the modules of a package.
    """
    layers = [contract for contract in contracts if contract["type"] == "layers"]
    [top] = [contract for contract in layers if "containers" not in contract]
    inside = {
        container: contract["layers"]
        for contract in layers
        for container in contract.get("containers", ())
    }
    rows = [_names(layer) for layer in top["layers"]]
    parts: list[str] = []
    y = _MARGIN
    for number, row in enumerate(rows):
        width = (_WIDTH - _MARGIN * (len(row) + 1)) / len(row)
        boxes = [_box(name, inside.get(name, ()), width) for name in row]
        height = max(box.height for box in boxes)
        for column, box in enumerate(boxes):
            x = _MARGIN + column * (width + _MARGIN)
            parts += _drawn(
                box, x=x, y=y, width=width, height=height, color=_COLORS[number % len(_COLORS)]
            )
        y += height
        if number < len(rows) - 1:
            parts.append(
                f'<path d="M{_WIDTH / 2:g} {y + 4} V{y + _GAP - 6}" stroke="#475569" stroke-width="2" '
                'marker-end="url(#arrow)"/>'
            )
            y += _GAP
    return _document(parts, y + _MARGIN)


def _names(layer: str) -> list[str]:
    return re.findall(r"[\w.]+", layer)


def _box(name: str, layers: Sequence[str], width: float) -> Box:
    most = int((width - 2 * 12) / _CHARACTER)
    lines: list[str] = []
    for layer in layers:
        lines += textwrap.wrap(" · ".join(_names(layer)), most, subsequent_indent="  ")
    return Box(name, tuple(lines))


def _drawn(box: Box, *, x: float, y: float, width: float, height: float, color: str) -> list[str]:
    texts = [
        f'<text x="{x + 12:g}" y="{y + _TITLE + 8 + _LINE * number:g}" font-size="11" '
        f'xml:space="preserve">{escape(line)}</text>'
        for number, line in enumerate(box.lines, 1)
    ]
    return [
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" fill="{color}" stroke="#475569"/>',
        f'<text x="{x + 12:g}" y="{y + 22:g}" font-size="15" font-weight="bold">{escape(box.name)}</text>',
        *texts,
    ]


def _document(parts: Sequence[str], height: float) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:g}" '
        'font-family="system-ui, sans-serif" fill="#0f172a" role="img">'
    )
    arrow = (
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="4" refY="4" markerWidth="6" '
        'markerHeight="6" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#475569"/></marker></defs>'
    )
    lines = [
        head,
        "<title>The packages of Longlook: a package imports only packages below it</title>",
        arrow,
        f'<rect width="{_WIDTH}" height="{height:g}" fill="#ffffff"/>',
        *parts,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"
