"""``longlook traces``: parse the steps of stored traces again."""

import contextlib
import time

import typer

from cli import output
from core import ids
from core.database import Database
from core.settings import Settings
from jobs.store import steps

app = typer.Typer(help="Maintain stored traces.", no_args_is_help=True)

_PAUSE_SECONDS = 0.02
_PROGRESS_SECONDS = 5.0


@app.callback()
def _traces() -> None:
    """Maintain stored traces."""


@app.command("reparse")
def reparse() -> None:
    """Parse the steps of stored traces with the current rules, where they are missing or were parsed by older rules.

    Jobs keep running meanwhile. If the command is interrupted, the next run continues where it stopped.
    """
    last: steps.Place | None = None
    count, reported = 0, time.monotonic()
    with contextlib.closing(Database(Settings.read().database)) as database:
        while (reached := steps.reparse(database, after=last)) is not None:
            last, written = reached
            count += written
            if time.monotonic() - reported >= _PROGRESS_SECONDS:
                output.note(f"{count} traces parsed, up to {ids.show('job', last[0])}")
                reported = time.monotonic()
            # Let other writers in.
            time.sleep(_PAUSE_SECONDS)
    output.event("ok", f"{count} traces parsed")
