"""Alembic's environment: the service's settings and tables, and short lock timeouts on PostgreSQL."""

import contextlib
from typing import Any, Literal

import sqlalchemy as sa
from alembic import context

from core.database import Database, UTCDateTime
from core.settings import Settings
from jobs.records.declarative import Record
from webhooks import tables  # noqa: F401 - its tables are records, too

_LOCK_TIMEOUT = "4s"
_STATEMENT_TIMEOUT = "60s"
#: An arbitrary number, the same in all processes: one migration runs at a time.
_ADVISORY_LOCK = 7_302_026
_SEARCH = ("search_index", "ix_search_texts_words")


def _include(item: Any, _name: str | None, _kind: str, _reflected: bool, _other: Any) -> bool:  # noqa: ANN401, FBT001 - Alembic's own hook
    """Leave out indexes that this dialect does not have."""
    info = getattr(item, "_ddl_if", None)
    return info is None or info.dialect == context.get_context().dialect.name


def _named(name: str | None, kind: str, parents: Any) -> bool:  # noqa: ANN401 - Alembic's own hook
    """Leave out the index of texts, which the records do not describe: SQLite's tables, PostgreSQL's column."""
    if kind == "column":
        return (parents["table_name"], name) != ("search_texts", "words")
    return kind not in ("table", "index") or not (name or "").startswith(_SEARCH)


def _render(kind: str, item: Any, _context: Any) -> str | Literal[False]:  # noqa: ANN401 - Alembic's own hook
    """Write our time type as its database type: a migration must not import code that changes."""
    if kind == "type" and isinstance(item, UTCDateTime):
        return "sa.DateTime(timezone=True)"
    return False


def _migrate(connection: sa.Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Record.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
        compare_server_default=True,
        include_object=_include,
        include_name=_named,
        render_item=_render,
        # SQLite supports this too, although Alembic's default says no: all revisions or none, one process at a time.
        transactional_ddl=True,
    )
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'"))
            connection.execute(sa.text(f"SET LOCAL statement_timeout = '{_STATEMENT_TIMEOUT}'"))
            connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
        context.run_migrations()


def _run() -> None:
    url = context.config.attributes.get("database_url") or Settings.read().database
    with (
        contextlib.closing(Database(url)) as database,
        database.engine.connect() as connection,
    ):
        _migrate(connection)
        connection.commit()


_run()
