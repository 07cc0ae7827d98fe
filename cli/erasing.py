"""What commands that remove data share: the confirmation, the actor, and the cleaning of the search index."""

import getpass
import sys
import time

import typer

from cli import output
from core import errors
from core.database import Database
from jobs.store import search

_PAUSE_SECONDS = 0.02


def actor() -> str:
    """Return the user of this machine as an actor of the timeline."""
    try:
        return f"operator:{getpass.getuser()}"
    except (OSError, KeyError):
        return "operator:unknown"


def confirm(what: str, *, word: str, confirmed: str | None) -> None:
    """Require that the operator types ``word``, or gives it as the option ``--confirm``.

    Raises:
        core.errors.LaunchError: the word is another one, or there is no terminal to type it.
    """
    if confirmed is None:
        if not sys.stdin.isatty():
            raise errors.LaunchError(f"{what} Repeat the command with --confirm {word}.")
        output.note(what)
        confirmed = typer.prompt(f"Type {output.inline(word)} to continue")
    if confirmed != word:
        raise errors.LaunchError(f"Nothing was changed: {confirmed} is not {word}.")


def clean(database: Database) -> None:
    """Remove the words of erased texts from the search index: SQLite keeps them in its index otherwise."""
    cleaning = search.Cleaning(database)
    while cleaning.step():
        # Let other writers in.
        time.sleep(_PAUSE_SECONDS)
