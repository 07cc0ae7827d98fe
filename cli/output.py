"""Output of the command line: lines, tables, JSON, and the exit codes."""

import enum
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from core import errors, escapes

Json = dict[str, Any]

#: The option ``--json`` of a command.
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON (the default in a pipe).")]

_STYLES: Final = {
    "ready": typer.colors.GREEN,
    "ok": typer.colors.GREEN,
    "succeeded": typer.colors.GREEN,
    "running": typer.colors.CYAN,
    "warning": typer.colors.YELLOW,
    "missing": typer.colors.RED,
    "failed": typer.colors.RED,
}
#: Cells between two columns of a table, and the least width of its last column.
_GAP: Final = 2
NARROWEST: Final = 10
_KIB = 1024
_INDENT: Final = "  "
TAB: Final = " " * 4
#: Starts each line of a trace. No other line of a command starts with it.
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
    """Return the exit code of a command that ends with ``error``."""
    if isinstance(error, errors.Unauthenticated | errors.InsufficientScope):
        return Exit.AUTH
    if isinstance(error, errors.RequestError | errors.SettingsError):
        return Exit.USAGE
    if isinstance(error, errors.Unavailable):
        return Exit.UNREACHABLE
    return Exit.FAILED


def for_people(*, as_json: bool = False) -> bool:
    """Whether a person reads the output: stdout is a terminal and ``as_json`` is off."""
    return not as_json and sys.stdout.isatty()


def printable(text: str) -> str:
    """Return ``text`` with control characters escaped, except line feeds."""
    return escapes.visible(text)


def inline(text: str) -> str:
    """Return ``text`` on one line, with line feeds escaped too, so that it cannot imitate another line."""
    return escapes.visible(text, lines=False)


def line(text: str = "") -> None:
    """Print one line; if it is wider than the terminal, its continuation is indented."""
    typer.echo(_hanging(inline(text), terminal=sys.stdout.isatty()))


def lines(text: str) -> None:
    """Print several lines. Text from other sources must be inserted with :func:`inline`."""
    typer.echo(printable(text))


def note(text: str) -> None:
    """Print one line on stderr."""
    typer.echo(_hanging(inline(text), terminal=sys.stderr.isatty()), err=True)


def fault(text: str) -> None:
    """Print why a command failed, on stderr. Further lines are indented: none can imitate a line of a command."""
    first, *others = printable(text).split("\n")
    indented = (part if part.startswith(_INDENT) else _INDENT + part for part in others)
    for part in (first, *indented):
        typer.echo(_hanging(part, terminal=sys.stderr.isatty()), err=True)


def field(label: str, text: str, *, style: str | None = None) -> None:
    """Print a field: a label, and a text whose lines are all indented by the width of the label.

    No line of the text starts in the column of the labels, so the text cannot imitate a field.

    Args:
        label: the label, with its trailing space.
        text: a text from any source.
        style: color of the label.
    """
    indent = cell_len(label)
    if indent > Console().width // 2:
        indent = len(_INDENT)
        label = f"{label.rstrip()}\n{_INDENT}"
    first, *others = _wrapped(text, indent=indent)
    typer.secho(label, fg=style, bold=style is not None, nl=False)
    typer.echo(first)
    for part in others:
        typer.echo(" " * indent + part if part else "")


def quote(text: str) -> None:
    """Print a text from any source; every line starts with a bar."""
    for part in _wrapped(text, indent=cell_len(BAR)):
        typer.echo(f"{BAR}{part}".rstrip())


def event(word: str, text: str = "") -> None:
    """Print one status line of a running service: an event, then details. Uses colors only on a terminal."""
    label = f"{word:<12}"
    styled = typer.style(label, fg=_STYLES.get(word.rsplit(maxsplit=1)[-1]), bold=True)
    indent = cell_len(label) + 1
    parts = _wrapped(inline(text), indent=indent) if sys.stdout.isatty() else [inline(text)]
    for number, part in enumerate(parts):
        typer.echo(f"{' ' * indent if number else styled + ' '}{part}".rstrip())
    sys.stdout.flush()


def json_text(value: Any, *, indent: int | None = None) -> str:  # noqa: ANN401 - any JSON value
    """Return ``value`` as JSON with control characters escaped."""
    return escapes.in_json(json.dumps(value, ensure_ascii=False, indent=indent))


def as_json(value: Any) -> None:  # noqa: ANN401 - any JSON value
    """Print ``value`` as JSON: indented on a terminal, one line in a pipe."""
    typer.echo(json_text(value, indent=2 if sys.stdout.isatty() else None))


def json_line(value: Any) -> None:  # noqa: ANN401 - any JSON value
    """Print ``value`` as one line of JSON."""
    typer.echo(json_text(value))


def _hanging(text: str, *, terminal: bool) -> str:
    """Return one line; on a narrower terminal it is wrapped, and all lines but the first are indented."""
    width = Console().width
    if not terminal or cell_len(text) <= width:
        return text
    first = Text(text).wrap(Console(), width)[0].plain.rstrip()
    rest = text[len(first) :].lstrip()
    others = (part for part in _wrapped(rest, indent=len(_INDENT)) if rest)
    return "\n".join([first, *(_INDENT + other for other in others)])


def _wrapped(text: str, *, indent: int) -> list[str]:
    """Return the lines of a text, wrapped here because the terminal would continue at its left edge."""
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
    """Print a table. The first column is never wrapped, however narrow the terminal is, so that it can be copied.

    Args:
        columns: names of the columns.
        rows: cells of each row.
        whole: number of columns that are shown in full; the others are cut to the rest of the line or, if that is too
            short, printed below. With 0, all columns but the first are wrapped.
        multiline: whether line feeds in cells start new lines; the cells must not contain text from other sources.
    """
    safe = printable if multiline else inline
    cells = [[safe(cell) for cell in row] for row in rows]
    full = whole or 1
    widths = [
        max([cell_len(name), *(cell_len(row[position]) for row in cells)])
        for position, name in enumerate(columns)
    ]
    taken = sum(widths[:full]) + full * _GAP
    console = Console(soft_wrap=False)
    cut = len(columns) - full if whole else 0
    left = console.width - taken - max(0, cut - 1) * _GAP
    shown = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
    if cut and left < cut * NARROWEST:
        _stacked(columns, cells, full=full)
        return
    for position, column in enumerate(columns):
        if position < full:
            shown.add_column(column, no_wrap=True, min_width=widths[position])
        elif whole:
            share = max(left // cut, left - sum(widths[full:]) + widths[position])
            shown.add_column(column, no_wrap=True, overflow="ellipsis", max_width=share)
        else:
            shown.add_column(column, overflow="fold")
    for row in cells:
        shown.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    console.width = max(console.width, taken + (0 if whole else NARROWEST))
    console.print(shown)


def _stacked(columns: Sequence[str], rows: Sequence[Sequence[str]], *, full: int) -> None:
    """Print rows for a narrow terminal: the full columns on one line, each other column below it."""
    label = max(len(column) for column in columns)
    for row in rows:
        typer.echo((" " * _GAP).join(row[:full]))
        for column, cell in zip(columns[full:], row[full:], strict=True):
            field(f"{_INDENT}{column:<{label}} ", cell)


def size(count: int) -> str:
    """Return a number of bytes as text, for example ``1.5 GiB``."""
    if count < _KIB:
        return f"{count} B"
    amount = count / _KIB
    for unit in ("KiB", "MiB"):
        if amount < _KIB:
            return f"{amount:.1f} {unit}"
        amount /= _KIB
    return f"{amount:.1f} GiB"
