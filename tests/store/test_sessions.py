"""Sessions of PostgreSQL: their settings, poolers, and sessions that turn out to be the wrong ones."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from core import ordered_ids
from core.database import Database
from core.database_faults import DatabaseUnavailable
from jobs.answers.extraction import Answer
from jobs.lifecycle import Status
from jobs.store import settle
from migrations import schema
from tests import factories, pgbouncer, postgres, standby
from tests.databases import PostgresSource

SETTINGS = {
    "statement_timeout": "10s",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "20s",
    "DateStyle": "ISO, YMD",
    "TimeZone": "UTC",
    "IntervalStyle": "postgres",
}
#: PgBouncer refuses the startup parameter with the session's settings, or drops it.
POOLERS = {"refuses": "", "ignores": "options"}


@pytest.fixture
def url(postgres_source: PostgresSource) -> Iterator[sa.URL]:
    created = sa.make_url(postgres_source.create())
    yield created
    # Its settings must not reach other tests.
    postgres_source.server.drop(created.database or "")


def opened(url: sa.URL) -> contextlib.closing[Database]:
    return contextlib.closing(Database(url.render_as_string(hide_password=False)))


def settings(database: Database) -> dict[str, str]:
    names = [*SETTINGS, "search_path"]
    with database.reading() as transaction:
        row = transaction.execute(sa.select(*(sa.func.current_setting(name) for name in names)))
        return dict(zip(names, row.one(), strict=True))


def configure(server: postgres.Server, url: sa.URL, setting: str) -> None:
    server.run("postgres", f'ALTER DATABASE "{url.database}" {setting}')


def test_the_formats_of_a_session_are_ours_and_its_limits_the_defaults(
    url: sa.URL, postgres_server: postgres.Server
) -> None:
    for setting in (
        "DateStyle = 'German, DMY'",
        "TimeZone = 'Asia/Kolkata'",
        "IntervalStyle = iso_8601",
    ):
        configure(postgres_server, url, f"SET {setting}")

    with opened(url) as database:
        assert settings(database) | {"search_path": ""} == SETTINGS | {"search_path": ""}
        with database.reading() as transaction:
            now = transaction.execute(sa.select(transaction.now())).scalar_one()
        assert isinstance(now, datetime)
        assert now.tzinfo is not None
        assert now.utcoffset() == datetime.now(UTC).utcoffset()


def test_options_of_the_url_and_the_environment_are_joined_with_ours(
    url: sa.URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGOPTIONS", "--lock-timeout=2s -c search_path=elsewhere")
    joined = url.update_query_dict({"options": r"-csearch_path=app,\ public -c DateStyle=German"})

    with opened(joined) as database:
        assert settings(database) == SETTINGS | {"lock_timeout": "2s", "search_path": "app, public"}


@pytest.mark.parametrize("ignored", POOLERS.values(), ids=POOLERS)
def test_each_transaction_has_its_settings_through_a_pooler(
    url: sa.URL, postgres_server: postgres.Server, *, ignored: str
) -> None:
    configure(postgres_server, url, "SET DateStyle = 'German, DMY'")
    with pgbouncer.running(url, ignored=ignored) as through:
        chosen = through.update_query_dict({"options": "-c search_path=app,public"})
        with opened(chosen) as database:
            expected = SETTINGS | {"search_path": "app,public"}
            assert settings(database) == expected
            with database.reading(snapshot=True) as transaction:
                transaction.execute(sa.select(transaction.now()))
        with opened(through) as database:
            assert settings(database)["search_path"] != "app,public"


@pytest.mark.parametrize("ignored", POOLERS.values(), ids=POOLERS)
def test_jobs_run_through_a_pooler_that_changes_the_session(url: sa.URL, *, ignored: str) -> None:
    with pgbouncer.running(url, ignored=ignored) as through, opened(through) as database:
        account_id = factories.make_account(database)

        def run(_: int) -> uuid.UUID:
            job_id = factories.make_job(database, account_id)
            claimed = factories.claim(database)
            settle.succeed(
                database, claimed, answer=Answer("6", "boxed"), generation=factories.make_ended()
            )
            return job_id

        with ThreadPoolExecutor(8) as threads:
            job_ids = list(threads.map(run, range(40)))

        jobs = [factories.get_job(database, job_id).job for job_id in job_ids]
        assert {job.status for job in jobs} == {Status.SUCCEEDED}


def test_a_session_that_cannot_write_is_replaced(
    url: sa.URL, postgres_server: postgres.Server
) -> None:
    configure(postgres_server, url, "SET default_transaction_read_only = on")
    # As of a standby that an address leads to for a while.
    with opened(url.update_query_dict({"target_session_attrs": "any"})) as database:

        def write() -> None:
            with database.transaction() as transaction:
                transaction.execute(sa.text("CREATE TABLE written (at int)"))

        with pytest.raises(DatabaseUnavailable, match="read-only"):
            database.check()
        with pytest.raises(DatabaseUnavailable, match="read-only"):
            write()
        configure(postgres_server, url, "RESET default_transaction_read_only")

        write()
        database.check()


def test_a_check_replaces_sessions_that_cannot_write(
    url: sa.URL, postgres_server: postgres.Server
) -> None:
    configure(postgres_server, url, "SET default_transaction_read_only = on")
    with opened(url.update_query_dict({"target_session_attrs": "any"})) as database:
        database.ping()
        configure(postgres_server, url, "RESET default_transaction_read_only")

        # Nothing but readiness may use this database for hours.
        database.check()
        with database.reading() as transaction:
            read_only = sa.func.current_setting("transaction_read_only")
            assert transaction.execute(sa.select(read_only)).scalar_one() == "off"


def test_a_server_that_cannot_write_is_unavailable(
    url: sa.URL, postgres_server: postgres.Server
) -> None:
    with opened(url) as database:
        database.check()
        configure(postgres_server, url, "SET default_transaction_read_only = on")
        postgres_server.disconnect(url.database or "")

        with pytest.raises(DatabaseUnavailable):
            database.check()


def test_a_prepared_statement_about_a_table_that_has_changed_is_prepared_again(
    url: sa.URL, postgres_server: postgres.Server
) -> None:
    postgres_server.run(url.database or "", "CREATE TABLE counts (number int)")
    with opened(url) as database:

        def read() -> None:
            with database.reading() as transaction:
                transaction.execute(sa.text("SELECT number FROM counts"))

        for _ in range(10):
            read()
        postgres_server.run(url.database or "", "ALTER TABLE counts ALTER number TYPE bigint")

        with pytest.raises(DatabaseUnavailable):
            read()
        read()


@pytest.mark.parametrize("through_pooler", [False, True], ids=["direct", "pooler"])
def test_the_tables_are_created_in_the_schema_that_the_url_names(
    postgres_server: postgres.Server, *, through_pooler: bool
) -> None:
    name = postgres_server.create()
    postgres_server.run(name, "CREATE SCHEMA app")
    url = sa.make_url(postgres_server.url(name))
    with contextlib.ExitStack() as stack:
        if through_pooler:
            url = stack.enter_context(pgbouncer.running(url))
        url = url.update_query_dict({"options": "-c search_path=app"})
        schema.upgrade(url.render_as_string(hide_password=False))
        database = stack.enter_context(opened(url))
        with database.reading() as transaction:
            schemas = sa.text("SELECT DISTINCT schemaname FROM pg_tables WHERE tablename = 'jobs'")
            assert transaction.execute(schemas).scalars().all() == ["app"]
    postgres_server.drop(name)


def test_a_page_that_continues_is_not_read_from_a_standby(url: sa.URL) -> None:
    with standby.following(url) as other:
        anywhere = other.update_query_dict({"target_session_attrs": "any"})
        # It may lack what has been committed, and the client would never see that.
        with (
            opened(anywhere) as database,
            database.reading() as transaction,
            pytest.raises(DatabaseUnavailable, match="read-only"),
        ):
            ordered_ids.bound(transaction)
        with opened(url) as database, database.reading() as transaction:
            assert ordered_ids.bound(transaction) is not None
