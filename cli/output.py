"""What the terminal gets: lines, tables, a growing trace, JSON for pipes, and the exit codes."""

from __future__ import annotations

import enum
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from core import errors, escapes

Json = dict[str, Any]

_STYLES: Final = {
    "ready": typer.colors.GREEN,
    "ok": typer.colors.GREEN,
    "succeeded": typer.colors.GREEN,
    "running": typer.colors.CYAN,
    "warning": typer.colors.YELLOW,
    "missing": typer.colors.RED,
    "failed": typer.colors.RED,
}
#: Between two columns of a table, and the least that its last column gets.
_GAP: Final = 2
NARROWEST: Final = 10
_KIB = 1024
_INDENT: Final = "  "
TAB: Final = " " * 4
#: Stands before each line of a trace. No line of the command's own begins so.
BAR: Final = "│ "


class Exit(enum.IntEnum):
    """The exit codes of every command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    AUTH = 4
    INTERRUPTED = 130


def exit_code(error: errors.LonglookError) -> Exit:
    """Return the exit code that ``error`` ends a command with."""
    if isinstance(error, errors.Unauthenticated | errors.InsufficientScope):
        return Exit.AUTH
    if isinstance(error, errors.RequestError | errors.SettingsError):
        return Exit.USAGE
    if isinstance(error, errors.Unavailable):
        return Exit.UNREACHABLE
    return Exit.FAILED


def for_people(*, as_json: bool = False) -> bool:
    """Whether a person reads the output: a terminal, and nobody asked for JSON."""
    return not as_json and sys.stdout.isatty()


def printable(text: str) -> str:
    """Return ``text`` with escapes for what would steer the terminal it is shown on. Its lines stay lines."""
    return escapes.visible(text)


def inline(text: str) -> str:
    """Return ``text`` on one line, with escapes for line feeds, too: its end cannot look like another line of ours."""
    return escapes.visible(text, lines=False)


def line(text: str = "") -> None:
    """Print one line. On a terminal that is narrower, what follows its first part is indented."""
    typer.echo(_hanging(inline(text), terminal=sys.stdout.isatty()))


def lines(text: str) -> None:
    """Print several lines that this command wrote itself: what others wrote is to be put in with :func:`inline`."""
    typer.echo(printable(text))


def note(text: str) -> None:
    """Print one line beside the output, on stderr."""
    typer.echo(_hanging(inline(text), terminal=sys.stderr.isatty()), err=True)


def fault(text: str) -> None:
    """Print why a command ends, on stderr. Further lines are indented, so that none looks like one of ours."""
    first, *others = printable(text).split("\n")
    for one in (
        first,
        *(other if other.startswith(_INDENT) else _INDENT + other for other in others),
    ):
        typer.echo(_hanging(one, terminal=sys.stderr.isatty()), err=True)


def field(label: str, text: str, *, style: str | None = None) -> None:
    """Print a field: its label, then its text, which stands right of the label however many lines it takes.

    No line of the text begins where a label does, so a text cannot forge a field.

    Args:
        label: with the space behind it.
        text: what somebody else may have written.
        style: the label's color.
    """
    indent = cell_len(label)
    if indent > Console().width // 2:
        indent = len(_INDENT)
        label = f"{label.rstrip()}\n{_INDENT}"
    first, *others = _wrapped(text, indent=indent)
    typer.secho(label, fg=style, bold=style is not None, nl=False)
    typer.echo(first)
    for other in others:
        typer.echo(" " * indent + other if other else "")


def quote(text: str) -> None:
    """Print a text of several lines that somebody else wrote, each behind a bar."""
    for part in _wrapped(text, indent=cell_len(BAR)):
        typer.echo(f"{BAR}{part}".rstrip())


def event(word: str, text: str = "") -> None:
    """Print one line of a running service: what happened, then the rest. Colours only on a terminal."""
    label = f"{word:<12}"
    styled = typer.style(label, fg=_STYLES.get(word.rsplit(maxsplit=1)[-1]), bold=True)
    indent = cell_len(label) + 1
    reported = _wrapped(inline(text), indent=indent) if sys.stdout.isatty() else [inline(text)]
    for place, part in enumerate(reported):
        typer.echo(f"{' ' * indent if place else styled + ' '}{part}".rstrip())
    sys.stdout.flush()


def json_text(value: Any, *, indent: int | None = None) -> str:  # noqa: ANN401 - whatever JSON can say
    """Return ``value`` as JSON that steers no terminal."""
    return escapes.in_json(json.dumps(value, ensure_ascii=False, indent=indent))


def as_json(value: Any) -> None:  # noqa: ANN401 - whatever JSON can say
    """Print ``value`` as JSON: indented on a terminal, one line in a pipe."""
    typer.echo(json_text(value, indent=2 if sys.stdout.isatty() else None))


def json_line(value: Any) -> None:  # noqa: ANN401 - whatever JSON can say
    """Print ``value`` as one line of JSON."""
    typer.echo(json_text(value))


def _hanging(text: str, *, terminal: bool) -> str:
    """Return one line, for a terminal that is too narrow as several, all but the first of them indented."""
    width = Console().width
    if not terminal or cell_len(text) <= width:
        return text
    first = Text(text).wrap(Console(), width)[0].plain.rstrip()
    rest = text[len(first) :].lstrip()
    others = (part for part in _wrapped(rest, indent=len(_INDENT)) if rest)
    return "\n".join([first, *(_INDENT + other for other in others)])


def _wrapped(text: str, *, indent: int) -> list[str]:
    """Return the lines of a text, none so long that the terminal breaks it: that would begin at its left edge."""
    console = Console()
    width = max(console.width - indent, NARROWEST)
    shown = [
        part.plain.rstrip()
        for row in printable(text).split("\n")
        for part in Text(row.replace("\t", TAB)).wrap(console, width) or [Text()]
    ]
    return shown or [""]


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    whole: int = 0,
    multiline: bool = False,
) -> None:
    """Print a table for people. The first column is never broken, however narrow the terminal: it is what is copied.

    Args:
        columns: their names.
        rows: their cells.
        whole: so many columns are shown whole, and the others are cut to what is left of the line; where that is too
            little, they stand below. 0: all but the first are folded.
        multiline: whether line feeds in cells are this command's own.
    """
    safe = printable if multiline else inline
    reported = [[safe(cell) for cell in row] for row in rows]
    stored = whole or 1
    widths = [
        max([cell_len(name), *(cell_len(row[position]) for row in reported)])
        for position, name in enumerate(columns)
    ]
    taken = sum(widths[:stored]) + stored * _GAP
    console = Console(soft_wrap=False)
    cut = len(columns) - stored if whole else 0
    left = console.width - taken - max(0, cut - 1) * _GAP
    shown = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
    if cut and left < cut * NARROWEST:
        _stacked(columns, reported, stored=stored)
        return
    for position, column in enumerate(columns):
        if position < stored:
            shown.add_column(column, no_wrap=True, min_width=widths[position])
        elif whole:
            share = max(left // cut, left - sum(widths[stored:]) + widths[position])
            shown.add_column(column, no_wrap=True, overflow="ellipsis", max_width=share)
        else:
            shown.add_column(column, overflow="fold")
    for row in reported:
        shown.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    console.width = max(console.width, taken + (0 if whole else NARROWEST))
    console.print(shown)


def _stacked(columns: Sequence[str], rows: Sequence[Sequence[str]], *, stored: int) -> None:
    """Print rows for a narrow terminal: what is kept whole on a line, each of the others below it."""
    label = max(len(column) for column in columns)
    for row in rows:
        typer.echo((" " * _GAP).join(row[:stored]))
        for column, cell in zip(columns[stored:], row[stored:], strict=True):
            field(f"{_INDENT}{column:<{label}} ", cell)


def size(count: int) -> str:
    """Return a number of bytes for people, for example ``1.5 GiB``."""
    if count < _KIB:
        return f"{count} B"
    amount = count / _KIB
    for unit in ("KiB", "MiB"):
        if amount < _KIB:
            return f"{amount:.1f} {unit}"
        amount /= _KIB
    return f"{amount:.1f} GiB"
