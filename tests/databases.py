"""A fresh database for each test, cloned from one that was migrated once, and a way to let time pass in it."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import time
import uuid
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from core import database as database_module
from core.database import Database, UTCDateTime
from jobs.records.declarative import Record
from tests import postgres
from webhooks import tables as _tables  # noqa: F401 - its tables are records, too

ROOT = Path(__file__).resolve().parent.parent
_DISCONNECT_OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
#: Of PostgreSQL: how many other connections have an open transaction.
_OTHERS_BUSY = sa.text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid() AND state <> 'idle'"
)


class Clock:
    """This host's clock, some time ahead."""

    def __init__(self) -> None:
        self._ahead = timedelta(0)

    def __call__(self) -> datetime:
        return database_module.utcnow() + self._ahead

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        self._ahead += timedelta(seconds=seconds)


class Age(Protocol):
    """Lets time pass for a database: the clock moves on SQLite, the rows' times on PostgreSQL."""

    def __call__(self, seconds: float) -> None: ...


class Source(Protocol):
    """Gives out migrated databases."""

    def create(self) -> str:
        """Return the URL of a new one."""

    def drop(self, url: str) -> None:
        """Take it away."""


class SqliteSource:
    """Copies of one migrated file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._template = folder / "template.db"
        migrate(f"sqlite:///{self._template}")

    def create(self) -> str:
        """Return the URL of a new one."""
        path = self._folder / f"{uuid.uuid4().hex}.db"
        shutil.copyfile(self._template, path)
        return f"sqlite:///{path}"

    def drop(self, url: str) -> None:
        """Take it away."""
        path = sa.make_url(url).database or ""
        for suffix in ("", "-wal", "-shm"):
            Path(path + suffix).unlink(missing_ok=True)


class PostgresSource:
    """Clones of one migrated database. One that is given back is emptied and given out again: that is quicker."""

    def __init__(self, server: postgres.Server) -> None:
        self.server = server
        self._template = server.create()
        self._all = [self._template]
        self._free: list[str] = []
        migrate(server.url(self._template))

    def create(self) -> str:
        """Return the URL of an empty one."""
        return self.server.url(self._free.pop()) if self._free else self.clone()

    def clone(self) -> str:
        """Return the URL of a new one that nobody used before."""
        name = self.server.create(template=self._template)
        self._all.append(name)
        return self.server.url(name)

    def drop(self, url: str) -> None:
        """Take it away."""
        name = sa.make_url(url).database or ""
        tables = reversed(Record.metadata.sorted_tables)
        deletions = [f"DELETE FROM {table.name}" for table in tables]
        self.server.run(name, "; ".join([_DISCONNECT_OTHERS, *deletions]))
        self._free.append(name)

    def drop_for_good(self, url: str) -> None:
        """Take it away, and never give it out again."""
        self.server.drop(sa.make_url(url).database or "")

    def close(self) -> None:
        """Take them all away for good."""
        for name in self._all:
            self.server.drop(name)


def alembic(url: str) -> Config:
    """Return Alembic's configuration for the database at ``url``."""
    config = Config(toml_file=ROOT / "pyproject.toml")
    config.attributes["database_url"] = url
    return config


def migrate(url: str) -> None:
    """Bring the database at ``url`` to the newest migration."""
    command.upgrade(alembic(url), "head")


def empty(database: Database) -> None:
    """Delete every row of every table."""
    with database.transaction() as transaction:
        for table in reversed(Record.metadata.sorted_tables):
            transaction.execute(sa.delete(table))


def now(database: Database) -> datetime:
    """Return the database's time."""
    with database.reading() as transaction:
        reported: datetime = transaction.execute(sa.select(transaction.now())).scalar_one()
        return reported


def age_rows(database: Database, seconds: float) -> None:
    """Make every time in every row ``seconds`` older. JSON stays as it was written."""
    delta = sa.literal(timedelta(seconds=seconds), sa.Interval())
    with database.transaction() as transaction:
        for table in Record.metadata.sorted_tables:
            times = [column for column in table.columns if isinstance(column.type, UTCDateTime)]
            if times:
                transaction.execute(
                    sa.update(table).values({column: column - delta for column in times})
                )


def wait_until_idle(database: Database) -> None:
    """Wait until PostgreSQL has ended what a process that is dead had begun; SQLite's locks die with it."""
    if database.dialect == "sqlite":
        return
    until = time.monotonic() + 60
    with database.reading() as transaction:
        while transaction.session.scalar(_OTHERS_BUSY):
            assert time.monotonic() < until, "the dead process still has a transaction"
            transaction.session.rollback()
            time.sleep(0.01)


def is_locked(database: Database) -> bool:
    """Whether a transaction of another connection is open, which a process that is stopped keeps open.

    On SQLite only transactions that write count: one is open whenever nobody else can write for a second.
    """
    if database.dialect == "sqlite":
        path = database.url.database or ""
        with contextlib.closing(
            sqlite3.connect(path, timeout=1, isolation_level=None)
        ) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
            connection.execute("ROLLBACK")
            return False
    with database.reading() as transaction:
        return bool(transaction.session.scalar(_OTHERS_BUSY))


def eventually_waiting(database: Database, count: int) -> bool:
    """Look until ``count`` connections of the database wait for a lock, and return whether they came to it."""
    waiting = sa.text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with database.reading() as transaction:
            if transaction.session.scalar(waiting) == count:
                return True
    return False
