"""What the database's faults mean: the drivers' errors as errors of Longlook, and calls that wait until they end."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import sqlalchemy as sa
import structlog

from core import errors, failpoints, postgresql

T = TypeVar("T")

_log = structlog.get_logger(__name__)

#: Between two calls of :func:`until_available`.
_RETRY_SECONDS = 1.0
#: A full disk takes a while to clear.
_DISK_SECONDS = 60


class DatabaseUnavailable(errors.Unavailable):
    """The database did not answer. A failed commit may have landed all the same."""

    code = "database_unavailable"


class ReadOnly(DatabaseUnavailable):
    """The server accepts no writes: it is a standby, or was one."""


class LockTimeout(DatabaseUnavailable):
    """Another transaction held the row too long."""


class DiskFull(DatabaseUnavailable):
    """The disk of the database is full; the transaction was rolled back."""

    code = "insufficient_storage"


def until_available(
    call: Callable[[], T],
    *,
    failed: str,
    give_up: Callable[[float], bool | None] = time.sleep,
    **context: object,
) -> T:
    """Call ``call`` again and again until the database answers it.

    Args:
        call: reads or writes. A commit whose reply was lost may have landed, so it must be safe to repeat.
        failed: the event that is logged, with ``context``, each time the database is unavailable.
        give_up: waits for some seconds, then says whether to stop trying.
        context: keys of the log line.

    Returns:
        What ``call`` returns.

    Raises:
        DatabaseUnavailable: the database did not answer, and ``give_up`` returned True.
    """
    while True:
        try:
            return call()
        except DatabaseUnavailable:
            _log.warning(failed, **context)
            if give_up(_RETRY_SECONDS):
                raise


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Translate the driver's temporary errors into ours; errors of the statement pass through."""
    try:
        yield
    except (sa.exc.OperationalError, sa.exc.InterfaceError) as error:
        if getattr(error.orig, "sqlstate", None) == "55P03":
            raise LockTimeout("The database is busy with the same row.") from error
        if _says(error.orig, sqlite="SQLITE_FULL", sqlstate="53100"):
            raise DiskFull("The database's disk is full.", retry_after=_DISK_SECONDS) from error
        raise DatabaseUnavailable("The database does not answer.") from error
    except failpoints.FailpointFault as error:
        raise DatabaseUnavailable("The database closed the connection.") from error
    except sa.exc.TimeoutError as error:
        raise DatabaseUnavailable("All database connections are in use.") from error
    except sa.exc.DBAPIError as error:
        if postgresql.is_read_only(error.orig):
            raise ReadOnly("The database is read-only.") from error
        if error.connection_invalidated:
            raise DatabaseUnavailable("The database closed the connection.") from error
        raise


def was_stopped(error: BaseException | None) -> bool:
    """Whether ``error`` of the driver means that the statement took too long."""
    return _says(getattr(error, "orig", None), sqlite="SQLITE_INTERRUPT", sqlstate="57014")


def _says(error: BaseException | None, *, sqlite: str, sqlstate: str) -> bool:
    """Whether ``error`` of the driver has SQLite's name of a fault, or PostgreSQL's SQLSTATE of it."""
    name, state = getattr(error, "sqlite_errorname", None), getattr(error, "sqlstate", None)
    return name == sqlite or state == sqlstate
