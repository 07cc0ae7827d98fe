"""Commands that a kill -9 ends in the middle, on both databases: a repeat does the rest, and the counts add up."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from core import failpoints
from core.database import Database, utcnow
from jobs.lifecycle import Status
from jobs.records.jobs import Job
from tests import factories
from tests.databases import ROOT, PostgresSource

_LONGLOOK = "from cli import main; main.run()"
#: More than two batches of an erasure.
COUNT = 120


def longlook(home: Path, url: str, *words: str, kill: str = "") -> tuple[int, str]:
    """Run a command in a process that dies at the failpoint ``kill``; return its exit code and its output."""
    environment = {
        **os.environ,
        "LONGLOOK_HOME": str(home),
        "LONGLOOK_DATABASE_URL": url,
        "LONGLOOK_PEPPER": factories.PEPPER.decode(),
    }
    if kill:
        environment[failpoints.VARIABLE] = kill
    done = subprocess.run(
        [sys.executable, "-c", _LONGLOOK, *words],
        capture_output=True,
        check=False,
        text=True,
        cwd=ROOT,
        timeout=120,
        env=environment,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def customer(database: Database) -> uuid.UUID:
    """Return an account with ended jobs, next to another one."""
    account_id = factories.make_account(database, "customer")
    ended = {"status": Status.CANCELLED, "finished_at": utcnow()}
    factories.insert_jobs(database, account_id, [ended] * COUNT)
    factories.insert_jobs(database, factories.make_account(database, "other"), [ended] * 3)
    return account_id


def erased(database: Database, account_id: uuid.UUID) -> int:
    with database.reading() as transaction:
        wanted = sa.select(sa.func.count()).where(
            Job.account_id == account_id, Job.data_removed_at.is_not(None)
        )
        return int(transaction.scalar(wanted))


@pytest.mark.parametrize(
    ("verb", "place"),
    [("accounts", "erase.committed=kill:1"), ("jobs", "erase.commit=kill:1")],
)
def test_an_erasure_that_is_killed_is_continued_by_a_repeat(
    database: Database, customer: uuid.UUID, tmp_path: Path, *, verb: str, place: str
) -> None:
    words = ["accounts", "erase", "customer", "--confirm", "customer"]
    if verb == "jobs":
        words = ["jobs", "erase", "status:cancelled", "--account", "customer", "--confirm"]

    def run(left: int, kill: str = "") -> tuple[int, str]:
        confirmed = [*words, str(left)] if verb == "jobs" else words
        url = database.url.render_as_string(hide_password=False)
        return longlook(tmp_path, url, *confirmed, kill=kill)

    assert run(COUNT, place)[0] == -signal.SIGKILL
    first = erased(database, customer)
    assert 0 < first < COUNT
    code, printed = run(COUNT - first)

    assert code == 0, printed
    [count] = re.findall(r"erased +(\d+) jobs", printed)
    assert first + int(count) == COUNT == erased(database, customer)
    with database.reading() as transaction:
        others = sa.select(sa.func.count()).where(
            Job.account_id != customer, Job.data_removed_at.is_(None)
        )
        assert transaction.scalar(others) == 3


def test_a_backup_that_is_killed_leaves_no_archive_and_can_be_repeated(
    database: Database, database_url: str, customer: uuid.UUID, tmp_path: Path
) -> None:
    factories.make_key(database, account="customer")
    home, target, file = tmp_path / "home", tmp_path / "target", tmp_path / "all.tar"
    for folder in (home, target):
        folder.mkdir()

    code, _ = longlook(home, database_url, "db", "backup", str(file), kill="backup.saved=kill")
    assert code == -signal.SIGKILL
    assert not file.exists()
    [left] = tmp_path.glob(".longlook-*")
    assert (left / "longlook.db").exists()
    code, printed = longlook(home, database_url, "db", "backup", str(file))
    assert code == 0, printed
    assert not list(tmp_path.glob(".longlook-*"))

    url = f"sqlite:///{target / 'longlook.db'}"
    code, printed = longlook(target, url, "db", "restore", str(file))
    assert code == 0, printed
    with contextlib.closing(Database(url)) as restored, restored.reading() as transaction:
        count = sa.select(sa.func.count()).where(Job.account_id == customer)
        assert transaction.scalar(count) == COUNT


@pytest.fixture
def empty(database: Database, tmp_path: Path, postgres_source: PostgresSource) -> Iterator[str]:
    """Return the URL of an empty database of the other kind."""
    if database.dialect == "postgresql":
        yield f"sqlite:///{tmp_path / 'target.db'}"
        return
    name = postgres_source.server.create()
    yield postgres_source.server.url(name)
    postgres_source.server.disconnect(name)
    postgres_source.server.drop(name)


@pytest.mark.parametrize("place", ["copy.commit=kill:3", "copy.committed=kill:3"])
def test_a_copy_that_is_killed_is_continued_by_a_repeat(
    database: Database,
    database_url: str,
    customer: uuid.UUID,
    tmp_path: Path,
    *,
    empty: str,
    place: str,
) -> None:
    command = ["db", "copy", "--from", database_url, "--to", empty]
    assert longlook(tmp_path, database_url, *command, kill=place)[0] == -signal.SIGKILL
    code, printed = longlook(tmp_path, database_url, *command)

    assert code == 0, printed
    assert "rows are copied and compared" in printed
    with contextlib.closing(Database(empty)) as target, target.reading() as transaction:
        jobs = transaction.session.scalars(
            sa.select(Job.id).where(Job.account_id == customer)
        ).all()
    with database.reading() as transaction:
        wanted = sa.select(Job.id).where(Job.account_id == customer)
        assert set(jobs) == set(transaction.session.scalars(wanted))
    assert len(jobs) == COUNT
