"""``longlook traces``: read the steps of stored traces again."""

from __future__ import annotations

import time

import typer

from cli import output
from core import ids
from core.database import Database
from core.settings import Settings
from jobs.store import steps

app = typer.Typer(help="Look after stored traces.", no_args_is_help=True)

_BREATH_SECONDS = 0.02
_RECORD_SECONDS = 5.0


@app.callback()
def _traces() -> None:
    """Look after stored traces."""


@app.command("reparse")
def reparse() -> None:
    """Keep the steps of traces as they are read today: those kept by older rules, and those of which none are kept.

    Jobs go on meanwhile. It can be stopped, and goes on where it was when it is started again.
    """
    database = Database(Settings.read().database)
    last: steps.Place | None = None
    count, reported = 0, time.monotonic()
    try:
        while (reached := steps.reparse(database, after=last)) is not None:
            last, written = reached
            count += written
            if time.monotonic() - reported >= _RECORD_SECONDS:
                output.note(f"{count} traces, up to {ids.show('job', last[0])}")
                reported = time.monotonic()
            # Others want to write as well.
            time.sleep(_BREATH_SECONDS)
    finally:
        database.close()
    output.event("ok", f"{count} traces were read again")
