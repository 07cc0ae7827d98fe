"""Connections to PostgreSQL with the session settings on which Longlook depends, directly or through a pooler.

A session is configured by its startup parameter ``options``. A pooler such as PgBouncer refuses or ignores it, and in
transaction mode each transaction may run in another session of the server. :class:`Sessions` notices this at the first
connection. From then on each transaction sets its own settings, and no statement is prepared on the server.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import psycopg
import sqlalchemy as sa
import structlog
from sqlalchemy import event

_log = structlog.get_logger(__name__)

#: Limits of a statement, of the wait for a lock, and of the time for which a transaction of a stopped process keeps its
#: locks.
_LIMITS: Final = {
    "statement_timeout": "10s",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "20s",
}
#: The driver reads times and intervals only in these formats; a server, database, or role may have others.
_FORMATS: Final = {"DateStyle": "ISO, YMD", "TimeZone": "UTC", "IntervalStyle": "postgres"}
#: A setting without meaning: a session that has it was configured by its startup parameter.
_MARK: Final = "longlook.configured"
_CONNECTION: Final[Mapping[str, Any]] = {
    "connect_timeout": 3,
    # During a failover, an address can lead to a standby, which refuses all writes.
    "target_session_attrs": "read-write",
    # Connections to a server whose host has vanished end within half a minute instead of a quarter of an hour.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
#: The session cannot write. It is one of a standby, or was opened while the server was read-only.
_READ_ONLY: Final = "25006"
#: A statement that this process prepared does not exist, or exists already: a pooler has changed the session.
_PREPARED: Final = frozenset({"26000", "42P05"})
_FEATURE: Final = "0A000"
#: ``-c name=value`` and ``--name=value``; a backslash escapes the next character.
_OPTION: Final = re.compile(
    r"(?:-c\s*|--)(?P<name>[\w.-]+)=(?P<value>(?:\\.|[^\s\\])*+)", re.DOTALL
)


def is_read_only(error: BaseException | None) -> bool:
    """Whether ``error`` of the driver means that its session cannot write."""
    return getattr(error, "sqlstate", None) == _READ_ONLY


class Sessions:
    """Configures the connections of one engine.

    Args:
        url: may have any parameters of libpq. Those of :data:`_CONNECTION` are defaults, and the settings in its
            ``options`` and in ``PGOPTIONS`` are joined with Longlook's; only the formats are always Longlook's.
    """

    def __init__(self, url: sa.URL) -> None:
        options = " ".join(
            (os.environ.get("PGOPTIONS", ""), *url.normalized_query.get("options", ()))
        )
        self._settings = _LIMITS | _parsed(options) | _FORMATS
        marked = self._settings | {_MARK: "on"}
        #: For ``connect_args`` of the engine.
        self.arguments: dict[str, Any] = {
            name: value for name, value in _CONNECTION.items() if name not in url.query
        } | {"options": " ".join(f"-c {name}={_escaped(marked[name])}" for name in marked)}
        #: Whether a pooler is between this process and the server.
        self.pooled = False

    def listen(self, engine: sa.Engine) -> None:
        """Configure the connections that ``engine`` opens."""
        event.listen(engine, "do_connect", self._connect)
        event.listen(engine, "connect", self._check)
        event.listen(engine, "begin", self._begin)
        event.listen(engine, "handle_error", self._judge)
        event.listen(engine, "handle_error", _hide_details)

    def _connect(
        self,
        dialect: sa.Dialect,
        _record: object,
        arguments: Sequence[object],
        parameters: dict[str, Any],
    ) -> Any:  # noqa: ANN401 - the driver's connection
        """Connect; without ``options`` if the server does not accept them."""
        if not self.pooled:
            try:
                return dialect.connect(*arguments, **parameters)
            except psycopg.OperationalError as error:
                if "unsupported startup parameter" not in str(error):
                    raise
                self._notice()
        without = {name: value for name, value in parameters.items() if name != "options"}
        return dialect.connect(*arguments, **without)

    def _check(self, connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver's connection
        """Notice a pooler that ignored ``options``; prepare no statement in a session that changes."""
        if not self.pooled:
            with connection.cursor() as cursor:
                mark = cursor.execute(
                    "SELECT current_setting(%s, true)", (_MARK,), prepare=False
                ).fetchone()
            connection.rollback()
            if mark != ("on",):
                self._notice()
        if self.pooled:
            connection.prepare_threshold = None

    def _notice(self) -> None:
        self.pooled = True
        _log.info("database_pooler_detected")

    def _begin(self, connection: sa.Connection) -> None:
        """Configure the transaction, where the session is not."""
        if (
            not self.pooled
            or connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT"
        ):
            return
        settings = ", ".join(
            f"set_config('{name}', %(s{number})s, true)"
            for number, name in enumerate(self._settings)
        )
        values = {f"s{number}": value for number, value in enumerate(self._settings.values())}
        connection.exec_driver_sql(f"SELECT {settings}", values)

    def _judge(self, context: sa.ExceptionContext) -> None:
        """End all connections after an error that means that a session is the wrong one: the next one may be right."""
        original = context.original_exception
        state = getattr(original, "sqlstate", None)
        if state in _PREPARED:
            self._notice()
        # A migration has changed a table that a prepared statement reads.
        outdated = state == _FEATURE and "cached plan" in str(original)
        if state == _READ_ONLY or state in _PREPARED or outdated:
            context.is_disconnect = True


def _hide_details(context: sa.ExceptionContext) -> None:
    """Keep only the first line of PostgreSQL's errors: the others quote whole rows, with questions."""
    original = context.original_exception
    if isinstance(original, psycopg.Error) and original.diag.message_primary:
        original.args = (original.diag.message_primary,)
        if context.sqlalchemy_exception is not None:
            name = f"psycopg.errors.{type(original).__name__}"
            context.sqlalchemy_exception.args = (f"({name}) {original.diag.message_primary}",)


def _parsed(options: str) -> dict[str, str]:
    """Return the settings in ``options`` of libpq, by name."""
    return {
        option["name"].replace("-", "_"): re.sub(r"\\(.)", r"\1", option["value"])
        for option in _OPTION.finditer(options)
    }


def _escaped(value: str) -> str:
    return re.sub(r"([\s\\])", r"\\\1", value)
