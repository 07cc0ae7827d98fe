"""The database: one engine per process, transactions, and its clock. SQLite (WAL) or PostgreSQL 15+."""

import contextlib
import math
import threading
import time
import uuid
from collections.abc import Callable, Hashable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event, orm
from sqlalchemy.dialects.postgresql import Insert as PostgresqlInsert
from sqlalchemy.dialects.postgresql import insert as insert_on_postgresql
from sqlalchemy.dialects.sqlite import Insert as SqliteInsert
from sqlalchemy.dialects.sqlite import insert as insert_on_sqlite
from sqlalchemy.engine.interfaces import IsolationLevel
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import TypedReturnsRows

from core import errors, failpoints, postgresql, sqlite
from core.database_faults import DatabaseUnavailable, ReadOnly, translated, was_stopped
from core.open_connections import OpenConnections
from core.shares import Shares

Clock = Callable[[], datetime]
T = TypeVar("T")

#: The limit of waiting transactions, for a connection or for SQLite's only writer; above the number of threads.
_TRANSACTIONS_WAITING = 8192
#: The limit of waiting searches.
_SEARCHES_WAITING = 64
#: The key of a PostgreSQL connection's info under which it keeps the deadline of its transaction.
_DEADLINE = "longlook_deadline"


def utcnow() -> datetime:
    """Return the time of this host as an aware UTC time."""
    return datetime.now(UTC)


class UTCDateTime(sa.TypeDecorator[datetime]):
    """An aware UTC time; a naive one is refused. On SQLite it is text that sorts by time."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Return ``value`` in UTC (naive on SQLite, which has no zones)."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time must have a time zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Return ``value`` aware."""
        del dialect
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Seconds(sa.TypeDecorator[timedelta]):
    """A length of time, bound as seconds."""

    impl = sa.Double
    cache_ok = True

    def process_bind_param(self, value: timedelta | None, dialect: sa.Dialect) -> float | None:
        """Return ``value`` in seconds."""
        del dialect
        return None if value is None else value.total_seconds()


class Now(FunctionElement[datetime]):
    """The database's time, plus ``delta`` if given, in either dialect.

    On PostgreSQL it is a sub-query, run once, so that the planner sees a constant and can use an
    index: ``clock_timestamp()`` itself is volatile. On SQLite, which serves one host, it is the
    process's clock. Two occurrences in one statement can differ by microseconds.

    Args:
        delta: a length of time, or a parameter of the type :class:`Seconds`.
    """

    type = UTCDateTime()
    name = "now"
    inherit_cache = True

    def __init__(self, delta: timedelta | sa.BindParameter[timedelta] | None = None) -> None:
        if isinstance(delta, timedelta):
            delta = sa.literal(delta, Seconds())
        super().__init__(*(() if delta is None else (delta,)))


@compiles(Now, "postgresql")
def _now_on_postgresql(element: Now, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 - the compiler's own
    delta = compiler.process(element.clauses, **options)
    return f"(SELECT clock_timestamp(){f' + make_interval(secs => {delta})' if delta else ''})"


@compiles(Now, "sqlite")
def _now_on_sqlite(element: Now, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 - the compiler's own
    return f"{sqlite.NOW}({compiler.process(element.clauses, **options) or 0})"


def insert(
    dialect: str, table: sa.Table | type[orm.DeclarativeBase]
) -> PostgresqlInsert | SqliteInsert:
    """Return an INSERT with ``ON CONFLICT`` in ``dialect``."""
    return insert_on_sqlite(table) if dialect == "sqlite" else insert_on_postgresql(table)


class Transaction:
    """An open transaction: a connection, a session for mapped objects, and the database's own time."""

    def __init__(self, connection: sa.Connection, *, public_url: str = "") -> None:
        self._connection = connection
        #: As in :class:`Database`.
        self.public_url = public_url
        self._session: orm.Session | None = None
        self.dialect = connection.dialect.name
        #: Passed to the listeners of the database after the commit; see :meth:`Database.listen`.
        self.notes: list[object] = []
        #: For :mod:`core.ordered_ids`.
        self.last_ordered_id: uuid.UUID | None = None

    @property
    def session(self) -> orm.Session:
        """The session, made on first use: half of all transactions do not need one."""
        if self._session is None:
            self._session = orm.Session(
                self._connection, expire_on_commit=False, join_transaction_mode="rollback_only"
            )
        return self._session

    def now(self, delta: timedelta = timedelta(0)) -> sa.ColumnElement[datetime]:
        """Return an expression for the database's time plus ``delta``; see :class:`Now`."""
        return Now(delta or None)

    def insert(self, table: type[orm.DeclarativeBase]) -> PostgresqlInsert | SqliteInsert:
        """Return an INSERT with ``ON CONFLICT`` in this database's dialect."""
        return insert(self.dialect, table)

    def execute(self, statement: sa.Executable, rows: Any = None) -> sa.Result[Any]:  # noqa: ANN401 - SQLAlchemy's own parameter type
        """Run ``statement``; bulk updates do not refresh the session's objects.

        A statement of plain tables (:func:`jobs.records.declarative.table`) needs no session, which would double its
        cost.
        """
        if self._session is None and not _is_mapped(statement):
            return self._connection.execute(statement, rows)
        return self.session.execute(
            statement, rows, execution_options={"synchronize_session": False}
        )

    def scalar(self, statement: TypedReturnsRows[T], bound: Any = None) -> T:  # noqa: ANN401 - as above
        """Return the only value of the only row of ``statement``."""
        value: T = self.execute(statement, bound).scalar_one()
        return value

    def update(
        self,
        record: type[orm.DeclarativeBase],
        /,
        *where: sa.ColumnElement[bool],
        **values: Any,  # noqa: ANN401 - of any column
    ) -> None:
        """Set columns of the rows that meet all of ``where``."""
        self.execute(sa.update(record).where(*where).values(values))

    def delete(self, record: type[orm.DeclarativeBase], /, *where: sa.ColumnElement[bool]) -> None:
        """Delete the rows that meet all of ``where``."""
        self.execute(sa.delete(record).where(*where))

    def flush(self) -> None:
        """Write the pending changes of the session."""
        if self._session is not None:
            self._session.flush()

    def abandon(self) -> None:
        """End the connection, which leads to the wrong server."""
        self._connection.invalidate()

    def close(self) -> None:
        """Close the session."""
        if self._session is not None:
            self._session.close()


class Database:
    """The database of a process, shared by its threads.

    Args:
        url: SQLAlchemy URL.
        clock: the time on SQLite.
        pool_size: idle connections; at most twice this number is open.
        pool_seconds: the longest wait for a connection.
        searches: connections for searches; one of them is reserved for accounts that use none.
        search_seconds: the limit for a search, and for the wait before it.
        timer: a monotonic clock, in seconds, for the deadlines of searches.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock = utcnow,
        pool_size: int = 10,
        pool_seconds: float = 10.0,
        searches: int = 3,
        search_seconds: float = 5.0,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = sa.make_url(url)
        if self.url.drivername == "postgresql":
            self.url = self.url.set(drivername="postgresql+psycopg")
        self.dialect = self.url.get_backend_name()
        self.clock = clock
        self.engine = self._make_engine(pool_size, pool_seconds)
        self._open_connections = OpenConnections(self.engine)
        self.searches = Shares(
            searches, name="searches", most_waiting=_SEARCHES_WAITING, reserved=1
        )
        #: The connections, shared among the parties that :attr:`party` names.
        self.connections = Shares(
            2 * pool_size, name="database connections", most_waiting=_TRANSACTIONS_WAITING
        )
        #: SQLite's only writer.
        self.writers = Shares(1, name="database writers", most_waiting=_TRANSACTIONS_WAITING)
        #: Returns the account for which the current thread works, or None for the process, which may use all
        #: connections. By default every thread returns None.
        self.party: Callable[[], Hashable] | None = None
        #: What stands before the paths of the API in links that are stored; empty if that is unknown.
        self.public_url = ""
        self._turn = threading.Lock()
        self._pool_seconds = pool_seconds
        self._search_seconds = search_seconds
        self._timer = timer
        self._listeners: list[Callable[[object], None]] = []

    def _make_engine(self, pool_size: int, pool_seconds: float) -> sa.Engine:
        # Errors are logged, so their texts must not contain the values of a statement.
        arguments: dict[str, Any] = {
            "pool_size": pool_size,
            "max_overflow": pool_size,
            "pool_timeout": pool_seconds,
            "hide_parameters": True,
        }
        if self.dialect == "sqlite":
            engine = sa.create_engine(self.url, **arguments)
            sqlite.listen(engine, self.clock)
            return engine
        self._sessions = postgresql.Sessions(self.url)
        engine = sa.create_engine(
            self.url,
            isolation_level="READ COMMITTED",  # The guarded UPDATEs rely on it, whatever the server's default.
            pool_pre_ping=True,
            connect_args=self._sessions.arguments,
            **arguments,
        )
        self._sessions.listen(engine)
        event.listen(engine, "before_cursor_execute", self._limit_statement)
        return engine

    @contextlib.contextmanager
    def transaction(self, name: str = "") -> Iterator[Transaction]:
        """Open a transaction that writes; it commits at the end of the block.

        Args:
            name: prefix of the failpoints ``name.commit``, before the commit, and ``name.committed``, after it.

        Raises:
            Unavailable: the database is down, locked, or restarting.
        """
        with self._writers_turn(), self._open(write=True) as (transaction, commit):
            yield transaction
            with translated():
                transaction.flush()
                failpoints.hit(name, "commit")
                commit()
                failpoints.hit(name, "committed")
        for note in transaction.notes:
            for listener in self._listeners:
                listener(note)

    @contextlib.contextmanager
    def reading(self, *, snapshot: bool = False) -> Iterator[Transaction]:
        """Open a block of reads, which must neither write nor lock.

        On SQLite all statements of the block see one snapshot. On PostgreSQL each sees all earlier commits.

        Args:
            snapshot: whether all statements must see one snapshot on PostgreSQL too.

        Raises:
            Unavailable: as above.
        """
        # At READ COMMITTED each statement has its own snapshot, so reads need no transaction. BEGIN and ROLLBACK would
        # be two of the three round trips of a single statement.
        isolation: IsolationLevel = "REPEATABLE READ" if snapshot else "AUTOCOMMIT"
        with self._open(write=False, isolation=isolation) as (transaction, _):
            yield transaction

    @contextlib.contextmanager
    def searching(self, account_id: Hashable) -> Iterator[Transaction]:
        """Open a transaction for reads whose cost grows with an account's data.

        A few run at once, on a fixed part of the connections; accounts take turns, and each search has a deadline.

        Args:
            account_id: the account whose share the reads use; None is the share of reads about all accounts.

        Raises:
            core.errors.Overloaded: no place was free in time.
            core.errors.SearchTooSlow: the reads took too long.
            Unavailable: as above.
        """
        with self.searches.hold(account_id, seconds=self._search_seconds):
            until = self._timer() + self._search_seconds
            try:
                with self._open(write=False, until=until) as (transaction, _):
                    yield transaction
            except DatabaseUnavailable as error:
                if not was_stopped(error.__cause__):
                    raise
                raise errors.SearchTooSlow(
                    f"The database took longer than {self._search_seconds:g} s and was stopped.",
                    retry_after=math.ceil(self._search_seconds),
                ) from error

    @contextlib.contextmanager
    def _writers_turn(self) -> Iterator[None]:
        """Let the writers of this process, and the accounts they write for, take turns on SQLite.

        SQLite has one writer at a time. Threads that wait in SQLite sleep for increasing times, can starve for
        seconds, and each hold a connection. Here, the next thread wakes at once.
        """
        if self.dialect != "sqlite":
            yield
            return
        seconds = sqlite.BUSY_SECONDS
        if self.party is not None:
            with _Place(self.writers, self.party(), seconds=seconds):
                yield
            return
        # With many writing threads this halves the cost of the turns.
        if not self._turn.acquire(timeout=seconds):
            raise DatabaseUnavailable("The database is busy.")
        try:
            yield
        finally:
            self._turn.release()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sa.Connection]:
        """Yield a connection. All transactions of one account together use at most three quarters of them."""
        party = self.party() if self.party is not None else None
        if party is None:
            with self.engine.connect() as connection:
                yield connection
            return
        with (
            _Place(self.connections, party, seconds=self._pool_seconds),
            self.engine.connect() as connection,
        ):
            yield connection

    @contextlib.contextmanager
    def _open(
        self, *, write: bool, until: float | None = None, isolation: IsolationLevel | None = None
    ) -> Iterator[tuple[Transaction, Callable[[], None]]]:
        """Yield a transaction and the function that commits it; without its call the transaction is rolled back.

        Its statements end at ``until``, if given. ``isolation`` is for PostgreSQL; SQLite has one level.
        """
        with (
            translated(),
            self._connection() as connection,
            self._limited(connection, until),
        ):
            connection.execution_options(longlook_write=write)
            if isolation is not None and self._has_isolation(isolation):
                connection.execution_options(isolation_level=isolation)
            begun = connection.begin()
            transaction = Transaction(connection, public_url=self.public_url)
            try:
                yield transaction, begun.commit
            finally:
                transaction.close()

    def _has_isolation(self, isolation: IsolationLevel) -> bool:
        """Whether to use ``isolation``: through a pooler, each read needs a transaction that sets its settings."""
        return self.dialect == "postgresql" and not (
            isolation == "AUTOCOMMIT" and self._sessions.pooled
        )

    @contextlib.contextmanager
    def _limited(self, connection: sa.Connection, until: float | None) -> Iterator[None]:
        """Stop the statements of ``connection`` in the block at ``until``."""
        if until is None:
            yield
            return
        if self.dialect == "sqlite":
            with sqlite.stopped_when(lambda: self._timer() > until, connection):
                yield
            return
        connection.info[_DEADLINE] = until
        try:
            yield
        finally:
            connection.info.pop(_DEADLINE, None)

    def _limit_statement(self, connection: sa.Connection, cursor: Any, *_: object) -> None:  # noqa: ANN401 - the driver's own
        """Limit a statement on PostgreSQL to the remaining time of its transaction, if that has a deadline."""
        until = connection.info.get(_DEADLINE)
        if until is not None:
            # Zero means no limit.
            left = max(1, math.ceil((until - self._timer()) * 1000))
            cursor.execute(f"SET LOCAL statement_timeout = {left}")

    def listen(self, listener: Callable[[object], None]) -> None:
        """Call ``listener`` with each note of each committed transaction of this process.

        A note is lost when the reply to the commit is, so notes are for counters and wakeups.
        """
        self._listeners.append(listener)

    def ping(self) -> None:
        """Run an empty query. Raises :class:`DatabaseUnavailable`."""
        with self.reading() as transaction:
            transaction.execute(sa.select(1))

    def check(self) -> None:
        """Check what work needs: that the database accepts writes, and that its times can be read.

        Raises:
            DatabaseUnavailable: it does not; the message says what is wrong.
        """
        if self.dialect == "sqlite":
            self.ping()
            return
        try:
            self._check_writes()
        except ReadOnly:
            # The connections that are open may lead to a server that was replaced, and new ones to the right one.
            self._open_connections.renew()
            self._check_writes()

    def _check_writes(self) -> None:
        with self.transaction() as transaction:
            read_only = sa.func.current_setting("transaction_read_only")
            if transaction.execute(sa.select(read_only)).scalar_one() == "on":
                transaction.abandon()
                raise ReadOnly("The database is read-only.")
            # The number of a transaction is written to the log of the server.
            number = sa.cast(sa.func.pg_current_xact_id(), sa.Text)
            transaction.execute(sa.select(number, transaction.now()))

    def checkpoint(self) -> None:
        """Move SQLite's write-ahead log into the file and empty it, as far as readers let it; PostgreSQL has its own.

        Raises:
            DatabaseUnavailable: the database does not answer.
        """
        if self.dialect != "sqlite":
            return
        with translated(), self._writers_turn():
            raw = self.engine.raw_connection()
            try:
                raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                raw.close()

    def close(self) -> None:
        """Close all connections. One that a thread still uses is closed when the thread is done with it."""
        self._open_connections.close()


class _Place:
    """Holds a place of ``shares`` during a block. Raises :class:`DatabaseUnavailable` when it gets none in time."""

    def __init__(self, shares: Shares, party: Hashable, *, seconds: float) -> None:
        self._held = shares.hold(party, seconds=seconds)

    def __enter__(self) -> None:
        try:
            self._held.__enter__()
        except errors.Overloaded as error:
            raise DatabaseUnavailable(
                f"The database is busy. {error}", retry_after=error.retry_after
            ) from error

    def __exit__(self, *_: object) -> None:
        self._held.__exit__(None, None, None)


def _is_mapped(statement: sa.Executable) -> bool:
    """Whether ``statement`` is about mapped classes rather than tables: then its result may be objects."""
    plugin = getattr(statement, "_propagate_attrs", {}).get("compile_state_plugin")
    return plugin == "orm"
