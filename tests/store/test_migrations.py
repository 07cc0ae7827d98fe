"""The migrations make the tables that the records describe, on both databases, and can be taken back."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from core.database import Database
from jobs.phrases import Part
from jobs.records import Record
from jobs.store import history, search
from tests import databases, factories, postgres

_UPGRADE = """
import sys
from alembic import command
from tests import databases
command.upgrade(databases.alembic(sys.argv[1]), "head")
"""


@pytest.fixture
def empty_url(dialect: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Return the URL of a database in which there is nothing yet."""
    if dialect == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    server: postgres.Server = request.getfixturevalue("postgres_server")
    name = server.create()
    yield server.url(name)
    server.drop(name)


def tables(url: str) -> set[str]:
    """Return the names of the tables of a database, but for those that are an index on SQLite."""
    database = Database(url)
    try:
        names = sa.inspect(database.engine).get_table_names()
        return {name for name in names if not name.startswith("search_index")}
    finally:
        database.close()


def test_there_is_one_head() -> None:
    heads = ScriptDirectory.from_config(databases.alembic("sqlite://")).get_heads()

    assert len(heads) == 1


def test_an_empty_database_gets_all_tables_and_loses_them_again(empty_url: str) -> None:
    config = databases.alembic(empty_url)

    command.upgrade(config, "head")
    assert tables(empty_url) == {*Record.metadata.tables, "alembic_version"}

    command.upgrade(config, "head")
    command.downgrade(config, "base")
    assert tables(empty_url) == {"alembic_version"}

    command.upgrade(config, "head")
    assert tables(empty_url) == {*Record.metadata.tables, "alembic_version"}


def test_nothing_is_left_for_a_migration_to_do(database_url: str) -> None:
    command.check(
        databases.alembic(database_url)
    )  # It raises when a table differs from its record.

    assert tables(database_url) >= set(Record.metadata.tables)


def test_a_difference_would_be_found(empty_url: str) -> None:
    databases.migrate(empty_url)
    with contextlib.closing(Database(empty_url)) as database, database.transaction() as transaction:
        transaction.execute(sa.text("DROP INDEX ix_jobs_claim"))

    with pytest.raises(CommandError, match="New upgrade operations detected"):
        command.check(databases.alembic(empty_url))


def test_every_table_whose_bytes_count_has_its_triggers(database_url: str) -> None:
    """SQLite loses a table's triggers when a migration makes it anew, as Alembic's batch mode does."""
    counted = (
        *("jobs", "job_records", "attempts", "generations", "search_texts"),
        *("image_bytes", "webhook_notifications", "webhook_attempts"),
    )
    with contextlib.closing(Database(database_url)) as database, database.reading() as transaction:
        listing = (
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
            if transaction.dialect == "sqlite"
            else "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal"
        )
        found = set(transaction.execute(sa.text(listing)).scalars())

    wanted = {
        f"{name}_counted_on_{when}" for name in counted for when in ("insert", "update", "delete")
    }
    wanted |= {f"image_records_counted_on_{when}" for when in ("insert", "delete")}
    assert wanted - found == set()


def test_two_processes_that_migrate_at_once_do_not_disturb_each_other(empty_url: str) -> None:
    both = [
        subprocess.Popen(
            [sys.executable, "-c", _UPGRADE, empty_url],
            cwd=databases.ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    ends = [(process.communicate(timeout=60)[1], process.returncode) for process in both]

    assert [code for _, code in ends] == [0, 0], ends
    assert tables(empty_url) >= set(Record.metadata.tables)


_FOUND_BEFORE = {
    "sqlite": """
    SELECT count(*) FROM search_index WHERE search_index MATCH 'account_id:"' || :hex || '" AND text:"red star"'
    """,
    "postgresql": """
    SELECT count(*) FROM search_texts WHERE words @@ (CAST(:quoted AS tsquery) && plainto_tsquery('simple', 'red star'))
    """,
}


def test_texts_are_found_before_and_after_the_words_of_accounts_are_told_apart(
    database: Database, account_id: uuid.UUID
) -> None:
    config = databases.alembic(database.url.render_as_string(hide_password=False))
    stored, written, removed = (factories.make_job(database, account_id) for _ in range(3))

    def keep(*job_ids: uuid.UUID) -> None:
        with database.transaction() as transaction:
            for job_id in job_ids:
                search.keep(transaction, job_id, Part.TRACE, "A red star, a blue star.")

    keep(stored, removed)
    database.close()
    command.downgrade(config, "0014")
    keep(written)
    account = {"hex": account_id.hex, "quoted": f"'{account_id}'"}
    statement = sa.text(_FOUND_BEFORE[database.dialect])
    used = {name: account[name] for name in account if f":{name}" in statement.text}
    with database.reading() as transaction:
        assert transaction.execute(statement, used).scalar_one() == 3
    database.close()
    command.upgrade(config, "head")
    with database.transaction() as transaction:
        search.remove(transaction, [removed], parts=[Part.TRACE])

    requested = history.Filter(account_id, phrases=["red star", "star, a blue"])
    found, _ = history.page(database, requested, limit=10)
    assert {view.job.id for view in found} == {stored, written}
