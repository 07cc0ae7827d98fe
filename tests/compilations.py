"""Statements that SQLAlchemy compiles once for the whole run.

An engine compiles each statement on its first use and keeps it, for itself alone. A process of the product has one
engine; a test run makes one for each test, which would compile the same statements again and again.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.util import LRUCache

#: More statements than the product has.
_MOST = 5_000
_CACHE: LRUCache[Any, Any] = LRUCache(_MOST)


class _Alike:
    """A dialect that equals every other one of its class: what is compiled for one engine serves the next."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))

    @classmethod
    def engine_created(cls, engine: sa.Engine) -> None:
        """Give a new engine the statements of all others."""
        engine.update_execution_options(compiled_cache=_CACHE)


class SharedPostgresql(_Alike, PGDialect_psycopg):
    """The dialect of PostgreSQL."""

    supports_statement_cache = True


class SharedSqlite(_Alike, SQLiteDialect_pysqlite):
    """The dialect of SQLite."""

    supports_statement_cache = True


def share() -> None:
    """Let all engines of this process that are made from now on share their statements."""
    registry.register("postgresql.psycopg", __name__, SharedPostgresql.__name__)
    registry.register("sqlite", __name__, SharedSqlite.__name__)
