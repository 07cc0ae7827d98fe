"""``longlook db``: upgrade, back up, restore, copy and check the database, rebuild the search index and byte counts."""

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from cli import archives, erasing, output
from core import ids, secret_files
from core.database import Database
from core.settings import TEST_PREFIX, Settings
from jobs.store import history, search, storage
from migrations import copying, schema
from webhooks.storage import COUNTER

app = typer.Typer(help="Upgrade, back up, copy and check the database.", no_args_is_help=True)

_PAUSE_SECONDS = 0.02
#: Between two lines about the progress.
_PROGRESS_SECONDS = 5.0
_TEST_POSTGRES = f"{TEST_PREFIX}POSTGRES_URL"


@app.command("upgrade")
@secret_files.owner_only()
def upgrade() -> None:
    """Upgrade the database to this version's schema. Does nothing if the schema is up to date."""
    settings = Settings.read()
    if not settings.database_url:
        settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    upgraded = schema.upgrade(settings.database)
    if upgraded.is_later:
        output.event("ok", f"a later version upgraded the schema to {upgraded.after}; it stays")
    else:
        output.event("ok", f"the schema is at {upgraded.after}")
        with contextlib.closing(Database(settings.database)) as database:
            if search.reindex_due(database):
                output.event("next", output.REINDEX_DUE)


@app.command("downgrade")
def downgrade(
    revision: Annotated[
        str, typer.Argument(help="Revision of the earlier version.", show_default=False)
    ],
    *,
    confirm: Annotated[
        str | None,
        typer.Option(help="The revision again; otherwise you type it.", show_default=False),
    ] = None,
) -> None:
    """Take the schema back to an earlier revision. What later revisions added is lost; back up before.

    It is rarely needed: an earlier version runs on a later schema. Stop all processes first.
    """
    settings = Settings.read()
    erasing.confirm(
        f"The schema goes back to {revision}; what later revisions added is lost.",
        word=revision,
        confirmed=confirm,
    )
    changed = schema.downgrade(settings.database, revision)
    output.event("ok", f"the schema went from {changed.before} back to {changed.after}")


@app.command("copy")
@secret_files.owner_only()
def copy(
    *,
    source: Annotated[
        str, typer.Option("--from", help="URL of the database to copy.", show_default=False)
    ],
    target: Annotated[
        str, typer.Option("--to", help="URL of an empty database.", show_default=False)
    ],
) -> None:
    """Copy everything to another database, from SQLite to PostgreSQL or back. Stop all processes first.

    Counts and hashes of all rows are compared at the end. An interrupted command continues when you repeat it.
    """
    with (
        contextlib.closing(Database(source)) as from_database,
        contextlib.closing(Database(target)) as to_database,
    ):
        rows = copying.copy(
            from_database,
            to_database,
            progress=lambda name, count: output.note(f"{name}: {count} rows"),
        )
    output.event("ok", f"{rows} rows are copied and compared")


@app.command("backup")
def backup(
    file: Annotated[Path, typer.Argument(help="Archive to create.", show_default=False)],
) -> None:
    """Write the database, the pepper and the vault to one archive. Jobs keep running meanwhile.

    Keep the archive secret: it gives access to everything.
    """
    size = archives.write(Settings.read(), file)
    output.event("ok", f"{file}, {output.size(size)}")


@app.command("restore")
def restore(
    file: Annotated[
        Path, typer.Argument(help="Archive of `longlook db backup`.", show_default=False)
    ],
) -> None:
    """Restore an archive to an empty installation, and upgrade the schema. Stop all processes first."""
    archives.restore(Settings.read(), file)
    output.event("ok", f"restored; the schema is at {', '.join(schema.heads())}")


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
def reindex(
    *,
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Start with the first job, not where the last run stopped."),
    ] = False,
) -> None:
    """Rebuild the search index of all jobs. Jobs keep running meanwhile.

    An interrupted run continues where it stopped.
    """
    with schema.opened(Settings.read()) as database:
        done = None if restart else search.reindexed(database)
        progress = _Progress(history.total(database), done.jobs if done else 0)
        if done is not None:
            output.event(
                "continues", f"after {done.jobs:,} jobs, at {ids.show('job', done.reached)}"
            )
        last = done
        while (done := search.rebuild(database, after=last)) is not None:
            last = done
            progress.show(done.jobs)
            # Let other writers in.
            time.sleep(_PAUSE_SECONDS)
    output.event(
        "ok",
        f"indexed {last.jobs:,} jobs up to {ids.show('job', last.reached)}"
        if last
        else "no jobs to index",
    )


class _Progress:
    """Prints how far a long command is, every few seconds.

    Args:
        total: the number of jobs.
        done: how many of them are done at the start.
        timer: returns seconds, by a clock that never goes back.
    """

    def __init__(
        self, total: int, done: int, *, timer: Callable[[], float] = time.monotonic
    ) -> None:
        self._total = total
        self._first = done
        self._timer = timer
        self._began = self._shown = timer()

    def show(self, done: int) -> None:
        """Print the number of jobs that are ``done``, if the last line is old enough."""
        now = self._timer()
        if now - self._shown < _PROGRESS_SECONDS:
            return
        self._shown = now
        per_second = (done - self._first) / (now - self._began)
        # Jobs come in meanwhile.
        total = max(self._total, done)
        minutes = math.ceil((total - done) / per_second / 60) if per_second else 0
        output.event(
            "indexing", f"{done:,} of {total:,} jobs, {done * 100 // total} %, {minutes} min left"
        )


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
