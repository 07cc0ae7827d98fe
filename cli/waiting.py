"""How commands show that they wait: one line that is updated on a terminal, plain lines on stderr in a pipe."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Final

import typer

from cli import output, tables

#: Moves the cursor to the start of the line, and clears it.
_CLEAR: Final = "\r\x1b[K"


class WaitingLine:
    """The state of a wait, on stderr.

    On a terminal it is one line, which :meth:`clear` removes. In a pipe, a line is written whenever the state changes.

    Args:
        silent: whether nothing is shown: stdout is a terminal that gets JSON.
    """

    def __init__(self, *, silent: bool = False) -> None:
        self._terminal = sys.stderr.isatty()
        self._silent = silent
        self._shown = ""

    def show(self, text: str) -> None:
        """Show the current state."""
        if self._silent or text == self._shown:
            return
        self._shown = text
        if not self._terminal:
            output.note(text)
            return
        # The last column stays free: some terminals wrap when it is filled.
        cut = tables.cut(output.inline(text), output.columns() - 1)
        typer.echo(f"{_CLEAR}{cut}", nl=False, err=True)

    def clear(self) -> None:
        """Remove the line from a terminal, before anything else is printed."""
        if self._terminal and self._shown:
            typer.echo(_CLEAR, nl=False, err=True)
        self._shown = ""


@contextlib.contextmanager
def wait_for(what: str, *, back: str, people: bool) -> Iterator[WaitingLine]:
    """Yield the line of a wait; at Ctrl-C, say that ``what`` goes on without the command, and exit.

    Args:
        what: what the command waits for; the service continues with it.
        back: the command that shows it again.
        people: whether stdout gets lines and no JSON.
    """
    line = WaitingLine(silent=not people and output.on_terminal())
    try:
        yield line
    except KeyboardInterrupt:
        line.clear()
        output.note(f"{what} goes on. To come back: {back}")
        raise typer.Exit(output.Exit.INTERRUPTED) from None
    finally:
        line.clear()
