"""PostgreSQL keeps no erased words outside of its rows: none in a dump, and after a rewrite none in its files."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest
import sqlalchemy as sa

from core.database import Database
from jobs.store import erasure
from tests import factories, postgres
from tests.databases import ROOT
from tests.store.test_erasure import ACTOR, PLACES, finish, run_job, word
from webhooks import purge


@pytest.fixture
def dialect() -> str:
    """Return the database whose files and dumps are searched."""
    return "postgresql"


def erase(database: Database) -> None:
    """Let two accounts run jobs, and erase the one whose jobs have words."""
    account_id = factories.make_account(database, "customer")
    run_job(database, account_id)
    other = factories.make_account(database, "other")
    for _ in range(2):
        factories.make_job(database, other)
    execute(database, "ANALYZE", "CHECKPOINT")
    assert places(contents(database)) == set(PLACES)
    assert places(dump(database)) == set(PLACES)

    done = erasure.erase_account(
        database,
        account_id,
        actor=ACTOR,
        remove_copies=purge.reduce_jobs,
        remove_account=purge.remove_account,
    )

    assert (done.jobs, done.running) == (1, 0)
    finish(database)


def execute(database: Database, *statements: str) -> None:
    """Run statements, each as a transaction of its own."""
    with database.engine.connect() as connection:
        alone = connection.execution_options(isolation_level="AUTOCOMMIT")
        for statement in ("SET statement_timeout = 0", *statements):
            alone.execute(sa.text(statement))


def contents(database: Database) -> bytes:
    """Return all files of the database, without the write-ahead log; skip where they are out of reach."""
    with database.reading() as transaction:
        row = transaction.execute(
            sa.text(
                "SELECT current_setting('data_directory') AS folder, oid AS number FROM pg_database"
                " WHERE datname = current_database()"
            )
        ).one()
    files = Path(row.folder) / "base" / str(row.number)
    if not os.access(files, os.R_OK | os.X_OK):
        pytest.skip(f"the files of the server are not readable: {files}")
    stored = []
    for file in files.iterdir():
        # The server removes files of former tables at any time.
        with contextlib.suppress(FileNotFoundError):
            stored.append(file.read_bytes())
    return b"".join(stored)


def dump(database: Database) -> bytes:
    """Return what pg_dump writes; skip where it is not installed."""
    try:
        program = postgres.programs() / "pg_dump"
    except postgres.Missing as missing:
        pytest.skip(str(missing))
    if not os.access(program, os.X_OK):
        pytest.skip(f"{program} is not installed")
    url = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
    return subprocess.run([program, "--dbname", url], check=True, capture_output=True).stdout


def places(stored: bytes) -> set[str]:
    """Return the places whose words are stored, as text or in the form of a dump's bytes."""
    return {
        place
        for place in PLACES
        if word(place).encode() in stored or word(place).encode().hex().encode() in stored
    }


def test_a_dump_has_no_word_at_once(database: Database) -> None:
    erase(database)

    assert places(dump(database)) == set()


def test_no_file_has_a_word_after_the_documented_statements(database: Database) -> None:
    erase(database)
    [block] = [
        part.split("```")[0]
        for part in (ROOT / "docs/how-to/erase.md").read_text().split("```sql\n")[1:]
    ]

    execute(database, *(line for line in block.splitlines() if line.strip()))

    assert places(contents(database)) == set()
