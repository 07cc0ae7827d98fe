"""``longlook db``: upgrade the database, check migrations against models, rebuild the search index and byte counts."""

import contextlib
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

_PAUSE_SECONDS = 0.02
_TEST_POSTGRES = f"{TEST_PREFIX}POSTGRES_URL"


@app.command("upgrade")
def upgrade() -> None:
    """Upgrade the database to this version's schema. Does nothing if the schema is up to date."""
    settings = Settings.read()
    os.umask(0o077)
    if not settings.database_url:
        settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    schema.upgrade(settings.database)
    output.event("ok", f"the schema is at {', '.join(schema.heads())}")


@app.command("check")
def check() -> None:
    """Check that the migrations have one head and match the models, on SQLite and PostgreSQL."""
    heads = schema.heads()
    faults = [] if len(heads) == 1 else [f"multiple heads: {', '.join(heads)}"]
    for name, difference in _checks(Settings.read()):
        text = difference()
        output.event("failed" if text else "ok", f"{name}{': ' if text else ''}{text}")
        faults += [text] if text else []
    if len(heads) != 1:
        output.event("failed", faults[0])
    if faults:
        raise typer.Exit(output.Exit.FAILED)


@app.command("reindex")
def reindex() -> None:
    """Rebuild the search index of all jobs. Jobs keep running meanwhile."""
    last: uuid.UUID | None = None
    with contextlib.closing(Database(Settings.read().database)) as database:
        while (reached := search.rebuild(database, after=last)) is not None:
            last = reached
            # Let other writers in.
            time.sleep(_PAUSE_SECONDS)
    output.event("ok", f"indexed up to {ids.show('job', last)}" if last else "no jobs to index")


@app.command("recount")
def recount() -> None:
    """Recount the stored bytes of each account. Jobs keep running meanwhile."""
    with schema.opened(Settings.read()) as database:
        for account in storage.accounts(database, default_mb=0):
            storage.recount(database, account.account_id, counters=[COUNTER])
            name = output.printable(account.name)
            stored = storage.usage(database, account.account_id, default_mb=0)
            output.event("ok", f"{name} stores {output.size(stored.total)}")


def _checks(settings: Settings) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield the databases to compare with the models: a new SQLite, a new PostgreSQL, and the configured database."""
    yield "new SQLite database", schema.fresh_difference
    server = os.environ.get(_TEST_POSTGRES)
    if server:
        yield "new PostgreSQL database", lambda: schema.fresh_postgres_difference(server)
    if settings.database.startswith("postgresql"):
        yield "configured PostgreSQL database", lambda: schema.difference(settings.database)
