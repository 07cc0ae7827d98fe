"""The migrations make the tables that the records describe, on both databases, and can be taken back."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from core import errors
from core.database import Database
from jobs.records.declarative import Record
from jobs.records.jobs import Job
from migrations import schema
from tests import databases, factories, postgres
from tests.databases import ROOT

_UPGRADE = """
import sys
from alembic import command
from tests import databases
command.upgrade(databases.alembic(sys.argv[1]), "head")
"""
#: A revision that no version has: a table, a column, and an index.
_THROW_AWAY = """
import sqlalchemy as sa
from alembic import op

revision = "9998"
down_revision = "{head}"


def upgrade():
    op.create_table("thrown_away", sa.Column("id", sa.Integer(), primary_key=True))
    op.add_column("jobs", sa.Column("thrown_away", sa.Text(), nullable=False, server_default="x"))
    op.create_index("ix_jobs_thrown_away", "jobs", ["thrown_away"])


def downgrade():
    op.drop_index("ix_jobs_thrown_away", "jobs")
    op.drop_column("jobs", "thrown_away")
    op.drop_table("thrown_away")
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
    ends = [(process.communicate(timeout=150)[1], process.returncode) for process in both]

    assert [code for _, code in ends] == [0, 0], ends
    assert tables(empty_url) >= set(Record.metadata.tables)


@pytest.mark.parametrize(
    ("revision", "reason"),
    [
        ("0001", "which a version before the first release created"),
        ("0017", "which a version before the first release created"),
        ("0000", "unfinished copy"),
    ],
)
def test_a_database_of_another_history_is_refused_by_its_revision(
    empty_url: str, revision: str, reason: str
) -> None:
    databases.migrate(empty_url)
    with contextlib.closing(Database(empty_url)) as database:
        with database.transaction() as transaction:
            transaction.execute(
                sa.text("UPDATE alembic_version SET version_num = :revision"),
                {"revision": revision},
            )

        with pytest.raises(errors.LaunchError) as refusal:
            schema.upgrade(empty_url)

        assert reason in str(refusal.value)
        assert schema.current(database) == revision
        assert not schema.fits(revision)


def test_a_database_that_a_later_version_upgraded_stays_as_it_is(empty_url: str) -> None:
    databases.migrate(empty_url)
    with contextlib.closing(Database(empty_url)) as database:
        with database.transaction() as transaction:
            schema.mark(transaction, "9999")
            transaction.execute(sa.text("CREATE TABLE of_a_later_version (id INTEGER)"))

        upgraded = schema.upgrade(empty_url)

        assert (upgraded, upgraded.is_later) == (schema.Upgraded("9999", "9999"), True)
        assert schema.current(database) == "9999"
        assert schema.fits("9999")
        with pytest.raises(errors.LaunchError, match="does not know"):
            schema.downgrade(empty_url, "0100")


def later_version(folder: Path, url: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ``longlook db`` of a later version, which has one more revision."""
    migrations = folder / "migrations"
    if not migrations.exists():
        shutil.copytree(ROOT / "migrations", migrations)
        [head] = schema.heads()
        (migrations / "versions" / "9998_throw_away.py").write_text(_THROW_AWAY.format(head=head))
    return subprocess.run(
        [sys.executable, "-c", "from cli import main; main.run()", "db", *words],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": f"{folder}:{ROOT}",
            "LONGLOOK_HOME": str(folder),
            "LONGLOOK_DATABASE_URL": url,
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_later_version_takes_its_upgrade_back_and_this_one_works_before_and_after(
    empty_url: str, tmp_path: Path
) -> None:
    schema.upgrade(empty_url)
    [head] = schema.heads()
    with contextlib.closing(Database(empty_url)) as database:
        account_id = factories.make_account(database)
        jobs = [factories.make_job(database, account_id)]

        upgraded = later_version(tmp_path, empty_url, "upgrade")
        assert (upgraded.returncode, schema.current(database)) == (0, "9998"), upgraded.stderr
        # An older version on the newer schema: it works, and leaves the way back to the later one.
        assert schema.upgrade(empty_url).is_later
        jobs.append(factories.make_job(database, account_id))
        assert factories.claim(database).job_id == jobs[0]
        with pytest.raises(errors.LaunchError, match="does not know"):
            schema.downgrade(empty_url, head)

        back = later_version(tmp_path, empty_url, "downgrade", head, "--confirm", head)
        assert (back.returncode, schema.current(database)) == (0, head), back.stderr
        assert schema.difference(empty_url) == ""
        assert factories.claim(database).job_id == jobs[1]
        again = later_version(tmp_path, empty_url, "upgrade")
        assert (again.returncode, schema.current(database)) == (0, "9998"), again.stderr


def test_a_downgrade_goes_only_to_an_earlier_revision(empty_url: str) -> None:
    schema.upgrade(empty_url)
    [head] = schema.heads()
    for revision in ("0099", head, "9998"):
        with pytest.raises(errors.LaunchError, match="not an earlier revision"):
            schema.downgrade(empty_url, revision)
    with contextlib.closing(Database(empty_url)) as database:
        assert schema.current(database) == head


def test_tables_with_small_rows_and_a_composite_key_have_no_rowid_on_sqlite(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'empty.db'}"
    databases.migrate(url)
    with contextlib.closing(Database(url)) as database, database.reading() as transaction:
        rows = transaction.execute(sa.text("SELECT name FROM pragma_table_list WHERE wr = 1"))
        names = {name for name in rows.scalars() if not name.startswith("search_index")}

    composite = {
        name for name, table in Record.metadata.tables.items() if len(table.primary_key.columns) > 1
    }
    assert names == composite - {
        "attempts", "generations", "trace_chunks", "image_bytes", "file_chunks",
    }  # fmt: skip


def test_a_removed_column_of_answers_counts_no_longer(empty_url: str) -> None:
    databases.migrate(empty_url)
    with contextlib.closing(Database(empty_url)) as database:
        account_id = factories.make_account(database)
        job_id = factories.make_job(database, account_id)

        def counted() -> int:
            with database.reading() as transaction:
                changes = sa.text("SELECT sum(bytes) FROM storage_changes WHERE kind = 'jobs'")
                return int(transaction.execute(changes).scalar_one())

        before = counted()
        with database.transaction("tex") as transaction:
            transaction.execute(
                sa.update(Job).where(Job.id == job_id).values(answer_tex="\\text{red}")
            )
        assert counted() == before + len("\\text{red}")

        command.downgrade(databases.alembic(empty_url), "0100")
        assert counted() == before
