"""Layout of tables: the width of each column, and the text of a cell in it. Pure."""

from collections.abc import Sequence
from typing import Final

from rich.cells import cell_len
from rich.text import Text

#: Cells between two columns.
GAP: Final = 2
#: A column that is cut, or the last one if it is wrapped, has at least this many cells; otherwise rows are stacked.
NARROWEST: Final = 10
_NARROWEST_WRAPPED: Final = 24


def widths(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, width: int | None, whole: int
) -> list[int] | None:
    """Return the width of each column in cells, or None if the rows do not fit next to each other.

    Args:
        columns: names.
        rows: cells, each on one line or several.
        width: of the terminal; None: unlimited.
        whole: number of columns at the start that are never cut; the others share what is left. With 0, only the last
            column may be narrower than its texts: they are wrapped at spaces.
    """
    natural = [
        max([cell_len(name), *(_widest(row[position]) for row in rows)])
        for position, name in enumerate(columns)
    ]
    if width is None or sum(natural) + GAP * (len(natural) - 1) <= width:
        return natural
    full = whole or len(natural) - 1
    left = width - sum(natural[:full]) - GAP * (len(natural) - 1)
    cut = natural[full:]
    narrowest = NARROWEST if whole else _NARROWEST_WRAPPED
    if left < sum(min(wanted, narrowest) for wanted in cut):
        return None
    return [*natural[:full], *_shares(cut, left)]


def cut(text: str, width: int) -> str:
    """Return one line of text in at most ``width`` cells; a text that is cut ends with an ellipsis."""
    if cell_len(text) <= width:
        return text
    shown = Text(text)
    shown.truncate(width, overflow="ellipsis")
    return shown.plain


def padded(text: str, width: int) -> str:
    """Return ``text`` with spaces up to ``width`` cells."""
    return text + " " * (width - cell_len(text))


def _widest(cell: str) -> int:
    return max(cell_len(line) for line in cell.split("\n"))


def _shares(wanted: Sequence[int], left: int) -> list[int]:
    """Return the widths of columns that share ``left`` cells: the widest ones give way."""
    shares = [0] * len(wanted)
    open_ = sorted(range(len(wanted)), key=lambda position: wanted[position])
    for number, position in enumerate(open_):
        shares[position] = min(wanted[position], left // (len(open_) - number))
        left -= shares[position]
    return shares
