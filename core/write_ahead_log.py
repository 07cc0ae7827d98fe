"""SQLite's write-ahead log: the file ``-wal`` next to the database, and how it becomes small again.

A long reader, such as a backup or an open query, keeps SQLite from starting the log over, so it grows with each
write. After its end, SQLite uses the file again, and truncates it to :data:`core.sqlite.SQLITE_LOG_BYTES`. If reads
overlap without an end, that never happens; :func:`truncate` then finds or makes the moment.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import sqlalchemy as sa
import structlog

from core.database import Database
from core.sqlite import SQLITE_LOG_BYTES

_log = structlog.get_logger(__name__)

#: The longest wait for readers; writers wait meanwhile.
_WAIT_MS = 200


def size(database: Database) -> int:
    """Return the bytes of the log's file; 0 on PostgreSQL, and if the file does not exist."""
    path = database.url.database
    if database.dialect != "sqlite" or not path:
        return 0
    try:
        return Path(f"{path}-wal").stat().st_size
    except OSError:
        return 0


def truncate(database: Database, *, above: int = SQLITE_LOG_BYTES) -> bool:
    """Copy the log into the database and truncate its file, if it has more bytes than ``above``.

    Returns:
        Whether the file is empty now; False also if readers need it; a later call may succeed.
    """
    before = size(database)
    if before <= above:
        return False
    try:
        with database.engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None  # noqa: S101 - a connection that is open has one
            busy_ms = driver.execute("PRAGMA busy_timeout").fetchone()[0]
            driver.execute(f"PRAGMA busy_timeout = {_WAIT_MS}")
            try:
                blocked = bool(driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])
            finally:
                driver.execute(f"PRAGMA busy_timeout = {busy_ms}")
    except (sa.exc.SQLAlchemyError, sqlite3.Error):
        blocked = True
    if blocked:
        _log.warning("database_log_not_truncated", bytes=before)
    else:
        _log.info("database_log_truncated", bytes=before)
    return not blocked
