"""The prefix of every key, channel, and queue of this installation in Redis, so that several can share one server."""

from __future__ import annotations

import contextlib
import secrets
from typing import Final

import sqlalchemy as sa

from core.database import Database, Transaction
from core.database_faults import DatabaseUnavailable
from core.settings import Settings

#: The only row of the table.
_ROW: Final = 1
_TABLE: Final = sa.table("installation", sa.column("number"), sa.column("id"))


class RedisPrefix:
    """Returns the prefix when called: that of the settings, or else one with the id of the database, read once.

    Args:
        settings: may have the prefix.
        database: has the id; None opens the database of the settings for the time of the read.
    """

    def __init__(self, settings: Settings, database: Database | None = None) -> None:
        self._settings = settings
        self._database = database
        self._prefix = settings.redis_prefix and _ended(settings.redis_prefix)

    def __call__(self) -> str:
        """Return the prefix, with the colon at its end.

        Raises:
            DatabaseUnavailable: the database, which has the id, does not answer or has no schema yet.
        """
        if not self._prefix:
            self._prefix = f"longlook:{self._installation()}:"
        return self._prefix

    def _installation(self) -> str:
        if self._database is not None:
            return installation(self._database)
        with contextlib.closing(Database(self._settings.database, pool_size=1)) as database:
            return installation(database)


def installation(database: Database) -> str:
    """Return the id of the installation that ``database`` belongs to; create it if a database has lost it.

    Raises:
        DatabaseUnavailable: the database does not answer or has no schema yet.
    """
    try:
        with database.reading() as transaction:
            known = _read(transaction)
        return known or _create(database)
    except sa.exc.ProgrammingError as error:
        raise DatabaseUnavailable("The database has no schema of this version.") from error


def renew_installation(database: Database) -> None:
    """Give ``database`` another id: it becomes an installation besides the one that its content comes from.

    Raises:
        DatabaseUnavailable: the database does not answer.
    """
    with database.transaction() as transaction:
        transaction.execute(sa.delete(_TABLE))
    _create(database)


def _read(transaction: Transaction) -> str | None:
    known = transaction.execute(sa.select(_TABLE.c.id).where(_TABLE.c.number == _ROW)).scalar()
    return known and str(known)


def _create(database: Database) -> str:
    # Of two processes that create it at once, both use the one that is there afterwards.
    statement = sa.text(
        "INSERT INTO installation (number, id) VALUES (:number, :id) ON CONFLICT DO NOTHING"
    )
    with database.transaction() as transaction:
        transaction.execute(statement, {"number": _ROW, "id": secrets.token_hex(6)})
    with database.reading() as transaction:
        known = _read(transaction)
    if known is None:
        raise DatabaseUnavailable("The database has lost its id.")
    return known


def _ended(prefix: str) -> str:
    return prefix if prefix.endswith(":") else f"{prefix}:"
