"""Output of the command line: lines, tables, JSON, tab-separated values, and the exit codes.

A command prints data in the format that ``-o`` names (:mod:`cli.formats`); its functions :func:`table`, :func:`field`
and :func:`as_json` print in that format.
"""

import enum
import itertools
import json
import shlex
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from cli import formats, tables
from cli.formats import Format
from core import errors, escapes

Json = dict[str, Any]

AsJson = formats.AsJson

_STYLES: Final = {
    "ready": typer.colors.GREEN,
    "ok": typer.colors.GREEN,
    "succeeded": typer.colors.GREEN,
    "running": typer.colors.CYAN,
    "warning": typer.colors.YELLOW,
    "missing": typer.colors.RED,
    "failed": typer.colors.RED,
}
NARROWEST: Final = tables.NARROWEST
#: A terminal with fewer columns shows this many digits of an id.
_ROOMY: Final = 120
_ID_DIGITS: Final = 16
_KIB = 1024
_INDENT: Final = "  "
TAB: Final = " " * 4
#: Starts each line of a trace. No other line of a command starts with it.
BAR: Final = "│ "
#: What an upgrade says when the search index lacks jobs.
REINDEX_DUE: Final = (
    "a reindex is due: run `longlook db reindex`; until it ends, searches are slower or miss jobs"
)


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
    """Whether the command prints rows and lines, also in a pipe, and not JSON."""
    return not as_json and formats.chosen() not in (Format.JSON, Format.JSONL)


def on_terminal() -> bool:
    """Whether stdout is a terminal."""
    return sys.stdout.isatty()


def width() -> int | None:
    """Return the width of the terminal, or None if stdout is not one: then nothing is cut or wrapped."""
    return Console().width if on_terminal() else None


def columns() -> int:
    """Return the width of the terminal, whichever of the standard streams it is."""
    return Console().width


def printable(text: str) -> str:
    """Return ``text`` with control characters escaped, except line feeds."""
    return escapes.visible(text)


def inline(text: str) -> str:
    """Return ``text`` on one line, with line feeds escaped too, so that it cannot imitate another line."""
    return escapes.visible(text, lines=False)


def line(text: str = "") -> None:
    """Print one line; if it is wider than the terminal, its continuation is indented.

    With tab-separated values, it goes to stderr: only rows are on stdout.
    """
    if formats.chosen() is Format.TSV:
        note(text)
        return
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
    if formats.chosen() is Format.TSV:
        typer.echo(f"{inline(label).strip().removesuffix(':')}\t{inline(text)}")
        return
    indent = cell_len(label)
    limit = width()
    if limit is not None and indent > limit // 2:
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
    """Print ``value`` as JSON: indented on a terminal, one line in a pipe.

    As JSON lines, each entry of a list, or of a page of the API, is a line.
    """
    if formats.chosen() is not Format.JSONL:
        typer.echo(json_text(value, indent=2 if on_terminal() else None))
        return
    listed = value.get("data") if isinstance(value, dict) else value
    for entry in listed if isinstance(listed, list) else [value]:
        json_line(entry)


def json_line(value: Any) -> None:  # noqa: ANN401 - any JSON value
    """Print ``value`` as one line of JSON."""
    typer.echo(json_text(value))


def _hanging(text: str, *, terminal: bool) -> str:
    """Return one line; on a narrower terminal it is wrapped, and all lines but the first are indented."""
    limit = Console().width
    if not terminal or cell_len(text) <= limit:
        return text
    first = _folded(text, limit)[0]
    rest = text[len(first) :].lstrip()
    others = _folded(rest, max(limit - len(_INDENT), NARROWEST)) if rest else []
    return "\n".join([first, *(_INDENT + other for other in others)])


def _wrapped(text: str, *, indent: int) -> list[str]:
    """Return the lines of a text, wrapped here because the terminal would continue at its left edge."""
    limit = width()
    rows = [row.replace("\t", TAB) for row in printable(text).split("\n")]
    if limit is None:
        return [row.rstrip() for row in rows]
    return [part for row in rows for part in _folded(row, max(limit - indent, NARROWEST))]


def _folded(row: str, limit: int) -> list[str]:
    """Return the lines of one line of text that is wrapped at spaces, or within a word that is longer than a line."""
    return [part.plain.rstrip() for part in Text(row).wrap(Console(), limit)] or [""]


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    whole: int = 0,
    multiline: bool = False,
    wide: Collection[str] = (),
    ids: Collection[str] = (),
) -> None:
    """Print a table, one row per line. If a terminal is too narrow for it, each row becomes a block of fields.

    Args:
        columns: names of the columns.
        rows: cells of each row.
        whole: number of columns that are shown in full; the others are cut to the rest of the line. With 0, only the
            last column may be wrapped.
        multiline: whether line feeds in cells start new lines on a terminal; the cells must not contain text from
            other sources.
        wide: names of columns that only the formats ``wide`` and ``tsv`` show.
        ids: names of columns with ids, of which a narrow terminal shows the first characters.
    """
    chosen = formats.chosen()
    every = chosen in (Format.WIDE, Format.TSV)
    shown = [number for number, name in enumerate(columns) if every or name not in wide]
    names = [columns[number] for number in shown]
    keeps_lines = multiline and on_terminal() and chosen is not Format.TSV
    safe = printable if keeps_lines else _one_line if multiline else inline
    cut_ids = narrow()
    cells = [
        [
            _short_id(row[number]) if cut_ids and columns[number] in ids else safe(row[number])
            for number in shown
        ]
        for row in rows
    ]
    if chosen is Format.TSV:
        for row in (names, *cells):
            typer.echo("\t".join(row))
        return
    full = sum(number < whole for number in shown)
    limit = width()
    sizes = tables.widths(
        names, cells, width=limit, whole=len(names) if chosen is Format.WIDE else full
    )
    if sizes is None or (limit is not None and sum(sizes) + tables.GAP * (len(sizes) - 1) > limit):
        _stacked(names, cells, full=full or 1)
        return
    _row(names, sizes, heading=True)
    for row in cells:
        for part in _parts(row, sizes, folded=keeps_lines or not full):
            _row(part, sizes)


def narrow() -> bool:
    """Whether a table is shown on a terminal that has no room for whole ids."""
    limit = width()
    return limit is not None and limit < _ROOMY and formats.chosen() is Format.TABLE


def hint(command: str, options: Mapping[str, Sequence[str]], words: Sequence[str] = ()) -> None:
    """Print the command that shows the next page, on stderr, as one line: a wrapped one could not be copied.

    Args:
        command: its words after ``longlook``.
        options: the values of each option; each value repeats the option.
        words: the arguments after ``--``.
    """
    parts = [part for name, values in options.items() for value in values for part in (name, value)]
    rest = shlex.join([*parts, *(["--", *words] if words else [])])
    typer.echo(f"more: {inline(f'longlook {command} {rest}')}", err=True)


def _short_id(cell: str) -> str:
    """Return the first characters of an id; every command takes them instead of it."""
    kind, separator, digits = inline(cell).partition("-" if cell.startswith("file-") else "_")
    return f"{kind}{separator}{digits[:_ID_DIGITS]}"


def _one_line(cell: str) -> str:
    return inline(cell.replace("\n", " "))


def _parts(row: Sequence[str], sizes: Sequence[int], *, folded: bool) -> Iterable[Sequence[str]]:
    """Return the lines of a row: one, or several if cells have several lines or are wrapped."""
    if not folded:
        return [[tables.cut(cell, size) for cell, size in zip(row, sizes, strict=True)]]
    columns = [
        [part for line in cell.split("\n") for part in _folded(line, size)]
        for cell, size in zip(row, sizes, strict=True)
    ]
    return itertools.zip_longest(*columns, fillvalue="")


def _row(cells: Sequence[str], sizes: Sequence[int], *, heading: bool = False) -> None:
    """Print one line of a table. Uses colors only on a terminal."""
    parts = []
    for cell, size in zip(cells, sizes, strict=True):
        style = None if heading else _STYLES.get(cell)
        styled = typer.style(cell, fg=style, bold=heading) if style or heading else cell
        parts.append(styled + " " * (size - cell_len(cell)))
    typer.echo((" " * tables.GAP).join(parts).rstrip())


def _stacked(columns: Sequence[str], rows: Sequence[Sequence[str]], *, full: int) -> None:
    """Print rows for a narrow terminal: the full columns on one line, each other column below it."""
    label = max(len(column) for column in columns)
    for row in rows:
        line((" " * tables.GAP).join(row[:full]))
        for column, cell in zip(columns[full:], row[full:], strict=True):
            if cell:
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
