"""``longlook db``: bring the database up to date, check that migrations and models agree, fill the search."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator

import typer

from cli import output
from core import ids
from core.database import Database
from core.settings import TEST_PREFIX, Settings
from jobs.store import search, storage
from migrations import schema
from webhooks.storage import COUNTER

app = typer.Typer(help="Upgrade and check the database.", no_args_is_help=True)

_BREATH_SECONDS = 0.02
_TEST_POSTGRES = f"{TEST_PREFIX}POSTGRES_URL"


@app.command("upgrade")
def upgrade() -> None:
    """Bring the database to this version's schema. Does nothing when it is there already."""
    settings = Settings.read()
    os.umask(0o077)
    if not settings.database_url:
        settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    schema.upgrade(settings.database)
    output.event("ok", f"the schema is at {', '.join(schema.heads())}")


@app.command("check")
def check() -> None:
    """Check that the migrations end in one head and make what the models say, on SQLite and PostgreSQL."""
    heads = schema.heads()
    faults = [] if len(heads) == 1 else [f"several heads: {', '.join(heads)}"]
    for name, difference in _checks(Settings.read()):
        found = difference()
        output.event("failed" if found else "ok", f"{name}{': ' if found else ''}{found}")
        faults += [found] if found else []
    if len(heads) != 1:
        output.event("failed", faults[0])
    if faults:
        raise typer.Exit(output.Exit.FAILED)


@app.command("reindex")
def reindex() -> None:
    """Write anew what jobs are found by: those from before there was a search are found then. Jobs go on meanwhile."""
    database = Database(Settings.read().database)
    last: uuid.UUID | None = None
    try:
        while (reached := search.rebuild(database, after=last)) is not None:
            last = reached
            # Others want to write as well.
            time.sleep(_BREATH_SECONDS)
    finally:
        database.close()
    output.event("ok", f"searched up to {ids.show('job', last)}" if last else "there are no jobs")


@app.command("recount")
def recount() -> None:
    """Count anew what each account stores, and correct what it is said to store. Jobs go on meanwhile."""
    with schema.opened(Settings.read()) as database:
        for account in storage.accounts(database, default_mb=0):
            storage.recount(database, account.account_id, counters=[COUNTER])
            name = output.printable(account.name)
            stored = storage.usage(database, account.account_id, default_mb=0)
            output.event("ok", f"{name} stores {output.size(stored.total)}")


def _checks(settings: Settings) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield the databases to compare with the models: a new SQLite, a new PostgreSQL, the one in use."""
    yield "new SQLite database", schema.fresh_difference
    server = os.environ.get(_TEST_POSTGRES)
    if server:
        yield "new PostgreSQL database", lambda: schema.fresh_postgres_difference(server)
    if settings.database.startswith("postgresql"):
        yield "the PostgreSQL database", lambda: schema.difference(settings.database)
