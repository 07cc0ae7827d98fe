"""Connections to SQLite with the settings on which Longlook depends."""

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection

#: The longest wait for another writer.
BUSY_SECONDS: Final = 10
#: SQLite truncates its log to this size when it starts the log over: see :mod:`core.write_ahead_log`.
SQLITE_LOG_BYTES: Final = 64 * 2**20
#: The SQL function that returns the time of :func:`listen`'s clock, as text, some seconds later.
NOW: Final = "longlook_now"
#: Steps of SQLite's virtual machine between two checks of a deadline; some milliseconds.
_STEPS: Final = 1_000


def listen(engine: sa.Engine, clock: Callable[[], datetime]) -> None:
    """Configure all connections that ``engine`` opens, and begin its transactions.

    Args:
        engine: of SQLite. The execution option ``longlook_write`` of a connection says whether it writes.
        clock: the time of :data:`NOW`.
    """

    def now(delta: float) -> str:
        at = (clock() + timedelta(seconds=delta)).astimezone(UTC).replace(tzinfo=None)
        return at.isoformat(sep=" ", timespec="microseconds")

    def prepare(connection: DBAPIConnection, _record: object) -> None:
        connection.isolation_level = None  # The driver's BEGIN comes too late; see _begin.
        _set_pragmas(connection)
        # Deterministic in the sense of SQLite: constant within a statement, so that SQLite calls it once.
        connection.create_function(NOW, 1, now, deterministic=True)

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", _begin)


@contextlib.contextmanager
def stopped_when(is_late: Callable[[], bool], connection: sa.Connection) -> Iterator[None]:
    """Stop the statements of ``connection`` in the block once ``is_late`` returns True."""
    driver: Any = connection.connection.driver_connection
    driver.set_progress_handler(is_late, _STEPS)
    try:
        yield
    finally:
        driver.set_progress_handler(None, 0)


def _set_pragmas(connection: DBAPIConnection) -> None:
    """Set the pragmas that SQLite does not store. FULL: an accepted job survives a power cut."""
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout={1000 * BUSY_SECONDS}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        # Whatever the library's default is: what is deleted is overwritten.
        "secure_delete=ON",
        f"journal_size_limit={SQLITE_LOG_BYTES}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: sa.Connection) -> None:
    """Take the write lock at the start of a writing transaction: a later upgrade of the lock could not wait."""
    write = connection.get_execution_options().get("longlook_write", True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
