"""What the terminal gets: lines, tables, a growing trace, JSON for pipes, and the exit codes."""

from __future__ import annotations

import enum
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs import errors

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
_NARROWEST: Final = 10
#: Control characters except newline and tab: a model's text must not steer the terminal.
_KIB = 1024
_CONTROL: Final = dict.fromkeys(
    code for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"
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
    """Return ``text`` without control characters, so that it cannot steer the terminal it is shown on."""
    return text.translate(_CONTROL)


def line(text: str = "") -> None:
    """Print one line."""
    typer.echo(text)


def note(text: str) -> None:
    """Print one line beside the output, on stderr."""
    typer.echo(text, err=True)


def event(word: str, text: str = "") -> None:
    """Print one line of a running service: what happened, then the rest. Colours only on a terminal."""
    styled = typer.style(f"{word:<12}", fg=_STYLES.get(word.rsplit(maxsplit=1)[-1]), bold=True)
    typer.echo(f"{styled} {text}".rstrip())
    sys.stdout.flush()


def as_json(value: Any) -> None:  # noqa: ANN401 - whatever JSON can say
    """Print ``value`` as JSON: indented on a terminal, one line in a pipe."""
    indent = 2 if sys.stdout.isatty() else None
    typer.echo(json.dumps(value, ensure_ascii=False, indent=indent))


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, short_rows: bool = False
) -> None:
    """Print a table for people. The first column is never broken, however narrow the terminal: it is what is copied.

    Args:
        columns: their names.
        rows: their cells.
        short_rows: whether the last cell of a row is cut when the row is too long, instead of folded.
    """
    cells = [[Text(printable(cell), style=_STYLES.get(cell, "")) for cell in row] for row in rows]
    shown = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
    console = Console(soft_wrap=False)
    kept = len(columns) - 1 if short_rows else 1
    taken = 0
    for position, column in enumerate(columns):
        width = max([len(column), *(row[position].cell_len for row in cells)])
        if position < kept:
            taken += width + _GAP
            shown.add_column(column, no_wrap=True, min_width=width)
        elif short_rows:
            # What is left of the line; on a narrow terminal the line is broken by the terminal.
            left = max(console.width - taken, _NARROWEST)
            shown.add_column(column, no_wrap=True, overflow="ellipsis", max_width=left)
        else:
            shown.add_column(column, overflow="fold")
    for row in cells:
        shown.add_row(*row)
    console.width = max(console.width, taken + _NARROWEST)
    console.print(shown)


class Growth:
    """Prints a job's text as it grows, of several samples the first, and findings. A new attempt starts it again."""

    def __init__(self) -> None:
        self._shown = False

    def show(self, event: Json) -> None:
        """Print what an event of the job adds."""
        if event["type"] == "attempt.restarted" and self._shown:
            note(f"\n(attempt {event['attempt']} starts again)")
        elif event["type"] == "finding":
            note(("\n" if self._shown else "") + f"({finding(event['finding'])})")
        elif event["type"] == "trace.delta" and event["sample"] == 0:
            typer.secho(printable(event["delta"]), nl=False, dim=True)
            sys.stdout.flush()
            self._shown = True

    def end(self) -> None:
        """End the line that the text ended in."""
        if self._shown:
            typer.echo()


def result(job: Json) -> None:
    """Print how a finished job came out: the answer or the error, and what it took."""
    error, answer = job.get("error"), job.get("answer")
    if error:
        typer.secho(f"{job['status']}: ", fg=typer.colors.RED, bold=True, nl=False)
        line(printable(f"{error['message']} ({error['code']})"))
    elif answer:
        typer.secho("answer: ", fg=typer.colors.GREEN, bold=True, nl=False)
        line(printable(str(answer["text"])))
        if told := value(job):
            line(printable(f"value: {told}"))
        if job.get("votes"):
            line(votes(job["votes"]))
    else:
        line(str(job["status"]))
    for found in job.get("findings") or ():
        line(f"found: {finding(found)}")
    if job.get("usage"):
        line(usage(job["usage"]))


def warnings(accepted: Json) -> None:
    """Print what the answer to a submission warns of, if anything."""
    for warning in accepted.get("warnings") or ():
        note(printable(f"warning: {warning['message']} ({warning['code']})"))


def finding(found: Json) -> str:
    """Return what a guard found in a few words, for example ``loop, forced, 7012 tokens saved``."""
    words = [str(found["kind"]), str(found["action"])]
    if found.get("tokens_saved"):
        words.append(f"{found['tokens_saved']} tokens saved")
    return printable(", ".join(words))


def value(job: Json) -> str:
    """Return what an answer's value says beyond its text, as JSON; nothing when none was asked for."""
    wanted = (job.get("options") or {}).get("answer_format") or {}
    if wanted.get("type", "free") == "free" or not job.get("answer"):
        return ""
    plain = json.dumps(job["answer"].get("value"), ensure_ascii=False)
    return "" if plain == job["answer"]["text"] else plain


def votes(told: Json) -> str:
    """Return a sentence on how samples voted, for example ``3 of 4 samples say so; 7: 1 (5 asked for)``."""
    winner, *others = [(printable(one["text"]), len(one["samples"])) for one in told["classes"]]
    words = [f"{winner[1]} of {told['counted']} samples say so"]
    words += [f"{text}: {count}" for text, count in others]
    if told["abstained"]:
        words.append(f"without an answer: {len(told['abstained'])}")
    return f"{'; '.join(words)} ({told['asked']} asked for)"


def usage(counts: Json) -> str:
    """Return a sentence on the tokens of a job, for example ``182 tokens in, 170 of them cached (93 %)``."""
    told, cached = int(counts["input_tokens"]), int(counts.get("cached_tokens") or 0)
    words = [f"{told} tokens in"]
    if told:
        words.append(f"{cached} of them cached ({cached / told:.0%})")
    words.append(f"{counts['output_tokens']} tokens out")
    if counts.get("engine_seconds"):
        words.append(f"{counts['engine_seconds']:.1f} s on the engine")
    return ", ".join(words)


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
