"""Transactions on both databases: durable, isolated, impatient, and honest about what they do not know."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import traceback
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from core import errors
from core.database import Database, Transaction, utcnow
from core.database_faults import DatabaseUnavailable, LockTimeout
from jobs.records.accounts import Account
from jobs.records.jobs import Job
from jobs.store import claims, commands, history
from tests import factories, postgres, races
from tests.databases import Age, Clock, PostgresSource

only_sqlite = pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
only_postgresql = pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)


def accounts_of(database: Database) -> int:
    """Return how many accounts there are."""
    with database.reading() as transaction:
        return transaction.session.scalar(sa.select(sa.func.count()).select_from(Account)) or 0


def add_account(database: Database, at: datetime) -> uuid.UUID:
    """Insert an account that was created ``at``."""
    account_id = uuid.uuid4()
    with database.transaction() as transaction:
        transaction.execute(
            sa.insert(Account).values(id=account_id, name=account_id.hex, created_at=at)
        )
    return account_id


def pragma(database: Database, name: str) -> object:
    """Return a setting of a connection of SQLite."""
    with database.reading() as transaction:
        value: object = transaction.session.connection().exec_driver_sql(f"PRAGMA {name}").scalar()
        return value


@only_sqlite
def test_every_connection_of_sqlite_is_durable_patient_and_holds_foreign_keys(
    database: Database,
) -> None:
    assert pragma(database, "journal_mode") == "wal"
    assert pragma(database, "synchronous") == 2
    assert pragma(database, "foreign_keys") == 1
    assert pragma(database, "busy_timeout") == 10_000


@only_postgresql
def test_every_connection_of_postgresql_is_impatient_and_reads_what_is_committed(
    database: Database,
) -> None:
    def setting(name: str) -> str | None:
        with database.reading() as transaction:
            return transaction.session.scalar(sa.select(sa.func.current_setting(name)))

    assert setting("transaction_isolation") == "read committed"
    assert setting("lock_timeout") == "5s"
    assert setting("statement_timeout") == "10s"
    assert setting("idle_in_transaction_session_timeout") == "20s"


def test_a_block_that_raises_leaves_nothing_behind(database: Database) -> None:
    def write_half() -> None:
        with database.transaction() as transaction:
            transaction.execute(
                sa.insert(Account).values(id=uuid.uuid4(), name="half", created_at=utcnow())
            )
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write_half()

    assert accounts_of(database) == 0


def test_what_is_written_inside_of_a_transaction_is_seen_after_its_commit_only(
    database: Database,
) -> None:
    with database.transaction() as transaction:
        transaction.execute(
            sa.insert(Account).values(id=uuid.uuid4(), name="new", created_at=utcnow())
        )
        assert accounts_of(database) == 0

    assert accounts_of(database) == 1


def test_times_come_back_as_they_went_in_aware_and_in_utc(database: Database) -> None:
    at = datetime(2026, 3, 29, 2, 30, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    account_id = add_account(database, at)

    with database.reading() as transaction:
        stored = transaction.session.get_one(Account, account_id).created_at

    assert stored == at
    assert stored.tzinfo is UTC


def test_a_time_without_a_zone_is_refused(database: Database) -> None:
    with pytest.raises(sa.exc.StatementError, match="must have a time zone"):
        add_account(database, datetime(2026, 1, 1))  # noqa: DTZ001 - this is what is refused


def test_now_is_the_databases_time_and_can_be_shifted(database: Database) -> None:
    with database.reading() as transaction:
        columns = (transaction.now(), transaction.now(timedelta(seconds=90)))
        now, later = tuple[datetime, ...](transaction.execute(sa.select(*columns)).one())

    assert now.tzinfo is UTC
    assert timedelta(seconds=89) < later - now < timedelta(seconds=91)
    assert abs(utcnow() - now) < timedelta(minutes=1)


@only_sqlite
def test_the_clock_of_sqlite_is_the_process_s(database: Database, clock: Clock) -> None:
    clock.advance(3600)

    with database.reading() as transaction:
        now = transaction.execute(sa.select(transaction.now())).scalar_one()

    assert now - utcnow() > timedelta(minutes=59)


def test_an_hour_passes_for_leases_as_for_deadlines(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    factories.make_job(database, account_id, deadline=timedelta(minutes=30))
    claimed = factories.claim(database)
    held = [(claimed.job_id, claimed.attempt)]
    assert not claims.watch(database, owner=claimed.owner, held=held)[held[0]].overdue

    age(3600)

    assert claims.watch(database, owner=claimed.owner, held=held)[held[0]].overdue


def test_a_broken_rule_is_not_taken_for_an_outage_and_quotes_no_question(
    database: Database, account_id: uuid.UUID
) -> None:
    rows = factories.job_rows(
        account_id, [{"question": "a secret question", "lease_owner": "but it is queued"}]
    )

    with pytest.raises(sa.exc.IntegrityError) as broken, database.transaction() as transaction:
        transaction.execute(sa.insert(Job), rows)

    shown = "".join(traceback.format_exception(broken.value))
    assert "ck_jobs_lease" in shown
    assert "secret" not in shown


def test_a_database_that_is_not_there_is_unavailable(database: Database) -> None:
    url = database.url.set(database="/nowhere/at/all" if database.dialect == "sqlite" else "nope")
    nowhere = Database(url.render_as_string(hide_password=False))

    with contextlib.closing(nowhere), pytest.raises(DatabaseUnavailable) as failed:
        nowhere.ping()

    assert isinstance(failed.value, errors.Unavailable)
    assert (failed.value.code, failed.value.retryable) == ("database_unavailable", True)


@only_postgresql
def test_a_connection_that_is_cut_inside_of_a_transaction_is_an_outage_and_the_next_one_works(
    database: Database, account_id: uuid.UUID, postgres_server: postgres.Server
) -> None:
    def write(*, cut: str) -> None:
        with database.transaction() as transaction:
            if cut == "in the middle":
                postgres_server.disconnect(database.url.database or "")
            transaction.execute(sa.insert(Job), factories.job_rows(account_id, [{}]))
            if cut == "before the commit":
                postgres_server.disconnect(database.url.database or "")

    for cut in ("in the middle", "before the commit"):
        with pytest.raises(DatabaseUnavailable):
            write(cut=cut)

    assert history.page(database, history.Filter(account_id=account_id), limit=5) == ([], False)
    factories.make_job(database, account_id)


@only_postgresql
def test_connections_that_were_cut_while_idle_are_not_noticed(
    database: Database, account_id: uuid.UUID, postgres_server: postgres.Server
) -> None:
    job_id = factories.make_job(database, account_id)

    postgres_server.disconnect(database.url.database or "")

    assert factories.get_job(database, job_id).job.id == job_id


def test_a_database_that_goes_away_for_good_is_an_outage(
    postgres_source: PostgresSource,
) -> None:
    name = postgres_source.server.create()
    with contextlib.closing(Database(postgres_source.server.url(name))) as database:
        database.ping()

        postgres_source.server.drop(name)

        with pytest.raises(DatabaseUnavailable):
            database.ping()


@only_postgresql
def test_a_server_that_takes_no_writes_is_an_outage(database: Database) -> None:
    def lock() -> None:
        with database.transaction() as transaction:
            transaction.execute(sa.text("SET TRANSACTION READ ONLY"))
            transaction.execute(sa.select(Job.id).with_for_update())

    with pytest.raises(DatabaseUnavailable, match="read-only"):
        lock()


@only_postgresql
def test_a_locked_row_is_distinguished_from_an_outage(
    database: Database, account_id: uuid.UUID
) -> None:
    job_id = factories.make_job(database, account_id)
    sa.event.listen(
        database.engine,
        "begin",
        lambda connection: connection.exec_driver_sql("SET LOCAL lock_timeout = '50ms'"),
    )
    locked = sa.select(Job.id).where(Job.id == job_id).with_for_update()

    with database.transaction() as slow:
        slow.execute(locked)
        with pytest.raises(LockTimeout):
            commands.cancel(database, job_id, account_id=account_id, actor="key:test")


@only_sqlite
def test_a_writer_waits_for_the_other_one_but_not_for_ever(
    database: Database, account_id: uuid.UUID
) -> None:
    impatient = Database(database.url.render_as_string())
    sa.event.listen(
        impatient.engine,
        "connect",
        lambda connection, _record: connection.execute("PRAGMA busy_timeout=20"),
    )

    with database.transaction():
        with pytest.raises(DatabaseUnavailable):
            factories.make_job(impatient, account_id)
        assert history.page(impatient, history.Filter(account_id=account_id), limit=1)[0] == []

    factories.make_job(impatient, account_id)
    impatient.close()


@only_sqlite
def test_writers_of_one_process_take_turns_and_hold_no_connection_while_they_wait(
    database_url: str,
) -> None:
    with contextlib.closing(Database(database_url, pool_size=1, pool_seconds=0)) as small:
        races.race(*[lambda: add_account(small, utcnow())] * 8)

        assert accounts_of(small) == 8


def test_more_threads_than_connections_wait_and_get_an_error(database_url: str) -> None:
    with contextlib.closing(Database(database_url, pool_size=1, pool_seconds=0.05)) as small:
        with small.reading(), small.reading(), pytest.raises(DatabaseUnavailable), small.reading():
            pass

        small.ping()


class Parties:
    """Threads that each work for a party."""

    def __init__(self, database: Database) -> None:
        self._current = threading.local()
        self._pool = ThreadPoolExecutor(32)
        self._lets_go = threading.Event()
        self._order = threading.Lock()
        #: The transactions, in the order in which they began.
        self.begun: list[str] = []
        self.database = database
        database.party = lambda: getattr(self._current, "party", None)

    def begin(self, party: str, *, write: bool, hold: bool = False) -> Future[None]:
        """Open a transaction for ``party``; with ``hold`` it stays open until :meth:`let_go`."""
        return self._pool.submit(self._work, party, write=write, hold=hold)

    def let_go(self) -> None:
        """End the transactions that are held open."""
        self._lets_go.set()

    def close(self) -> None:
        """End all threads."""
        self.let_go()
        self._pool.shutdown()

    def _work(self, party: str, *, write: bool, hold: bool) -> None:
        self._current.party = party
        with self.database.transaction() if write else self.database.reading() as transaction:
            transaction.execute(sa.select(1))
            with self._order:
                self.begun.append(party)
            if hold:
                assert self._lets_go.wait(60)


@pytest.fixture
def parties(database_url: str) -> Iterator[Parties]:
    """Threads of parties that share four connections."""
    with (
        contextlib.closing(Database(database_url, pool_size=2, pool_seconds=60)) as database,
        contextlib.closing(Parties(database)) as working,
    ):
        yield working


def await_true(what: Callable[[], bool]) -> None:
    """Return when ``what`` has come true."""
    pause = threading.Event()
    for _ in range(60_000):
        if what():
            return
        pause.wait(0.001)
    raise AssertionError("it did not come true")


@only_sqlite
def test_parties_take_turns_at_sqlites_only_writer(parties: Parties) -> None:
    writers = parties.database.writers
    parties.begin("A", write=True, hold=True)
    await_true(lambda: parties.begun == ["A"])
    writes = [parties.begin("A", write=True) for _ in range(8)]
    await_true(lambda: writers.waiting == 8)
    writes.append(parties.begin("B", write=True))
    await_true(lambda: writers.waiting == 9)
    parties.let_go()
    for write in writes:
        write.result(60)

    assert parties.begun == ["A", "B", *("A" for _ in range(8))]


def test_a_party_leaves_a_connection_to_every_other(parties: Parties) -> None:
    connections = parties.database.connections
    reads = [parties.begin("A", write=False, hold=True) for _ in range(8)]
    await_true(lambda: (len(parties.begun), connections.waiting) == (3, 5))
    parties.begin("B", write=False).result(60)

    assert parties.begun == ["A", "A", "A", "B"]
    assert not any(read.done() for read in reads)
    parties.let_go()
    for read in reads:
        read.result(60)
    assert connections.held == 0


def test_a_process_that_names_no_party_may_use_all_connections(database_url: str) -> None:
    with (
        contextlib.closing(Database(database_url, pool_size=2, pool_seconds=0.1)) as database,
        contextlib.ExitStack() as open_now,
    ):
        for _ in range(4):
            open_now.enter_context(database.reading())
        with pytest.raises(DatabaseUnavailable, match="in use"):
            open_now.enter_context(database.reading())


def driver_connection(transaction: Transaction) -> Any:  # noqa: ANN401 - of either driver
    """Return the connection of a transaction as its driver knows it."""
    return transaction.session.connection().connection.driver_connection


def is_open(connection: Any) -> bool:  # noqa: ANN401 - of either driver
    """Return whether a driver's connection still takes statements."""
    try:
        connection.cursor().execute("SELECT 1")
    except (sqlite3.ProgrammingError, psycopg.OperationalError):
        return False
    return True


def test_a_connection_in_use_is_closed_when_its_thread_is_done_after_the_database_was_closed(
    database_url: str,
) -> None:
    database = Database(database_url)
    with database.reading() as transaction:
        used = driver_connection(transaction)
        database.close()
        assert is_open(used)
    assert not is_open(used)
    # A thread that is late.
    with database.reading() as transaction:
        late = driver_connection(transaction)
    assert not is_open(late)


@only_postgresql
def test_connections_to_a_replaced_server_are_closed_even_if_they_are_in_use(
    database_url: str,
) -> None:
    with contextlib.closing(Database(database_url)) as database:
        with database.reading() as transaction:
            old = driver_connection(transaction)
            with database.transaction() as other:
                # As a server does that became a standby.
                other.execute(sa.text("SET SESSION default_transaction_read_only = on"))
            database.check()
            assert is_open(old)
        assert not is_open(old)
        with database.reading() as transaction:
            new = driver_connection(transaction)
        assert is_open(new)


def test_a_snapshot_stays_the_same_while_others_commit(database: Database) -> None:
    with database.reading(snapshot=True) as transaction:
        count = sa.select(sa.func.count()).select_from(Account)
        before = transaction.execute(count).scalar_one()
        add_account(database, utcnow())
        assert transaction.execute(count).scalar_one() == before
    assert accounts_of(database) == before + 1


@only_postgresql
def test_reads_have_no_transaction_around_them_and_what_writes_still_has_one(
    database: Database,
) -> None:
    began = sa.select(sa.func.transaction_timestamp())
    with database.reading() as transaction:
        times = {transaction.execute(began).scalar_one() for _ in range(2)}
        assert len(times) == 2
    with database.transaction() as transaction:
        times = {transaction.execute(began).scalar_one() for _ in range(2)}
        assert len(times) == 1
