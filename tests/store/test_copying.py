"""A whole database goes over to the other kind, with everything that uses it afterwards."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from core import errors
from core.database import Database
from core.redis_prefix import installation
from jobs import filters
from jobs.answers.extraction import Answer
from jobs.lifecycle import Status
from jobs.records.declarative import Record
from jobs.records.fleet import Installation
from jobs.records.jobs import Job
from jobs.store import accounts, history, settle, storage, traces, workers
from migrations import copying, schema
from tests import factories, webhooks
from tests.databases import ROOT, PostgresSource
from webhooks.policy import Webhook

_COPY = """
import sys
from core.database import Database
from migrations import copying
copying._ROWS = 2
def told(name, count):
    print(name, flush=True)
    if name == "jobs":
        sys.stdin.read()
copying.copy(Database(sys.argv[1]), Database(sys.argv[2]), progress=told)
"""


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


def fill(database: Database) -> str:
    """Make a history: jobs with traces, a webhook, a rerun, a group, a queued job; return a key."""
    key = factories.make_key(database, account="web")
    account_id = accounts.account_id(database, "web")
    for number in range(5):
        factories.make_job(
            database,
            account_id,
            images=[(factories.make_image(b"%d" % number), 4)],
            question=f"How many zebras {number}?",
            options={"answer_format": {"type": "number"}, "temperature": 1.0},
            metadata={"case": str(number), "b": "ä", "a": "\u2028"},
            webhook=Webhook(url="https://a.example/hook").plain(),
        )
        claimed = factories.claim(database)
        factories.begin(database, claimed)
        traces.append(database, owner=claimed.owner, pieces=[factories.make_piece(claimed, "I")])
        ended = factories.make_ended("I see \\boxed{6}.")
        assert settle.succeed(database, claimed, answer=Answer("6", "boxed"), generation=ended)
    webhooks.fan_out(database)
    webhooks.try_first_of_any(database, webhooks.OK)
    first, last = (
        factories.make_job(database, account_id, question="First?"),
        factories.make_job(database, account_id, question="Last?"),
    )
    with database.transaction() as transaction:
        # A reference to a later row, as clocks that differ make it.
        transaction.update(Job, Job.id == first, rerun_of=last)
    return key


def rows(database: Database) -> dict[str, int]:
    """Return the number of rows of each table; a database has an id of its own, which is not copied."""
    with database.reading() as transaction:
        return {
            table.name: transaction.scalar(sa.select(sa.func.count()).select_from(table))
            for table in Record.metadata.sorted_tables
            if table.name != Installation.__tablename__
        }


def test_a_copy_has_everything_and_works(database: Database, empty: str) -> None:
    key = fill(database)

    with contextlib.closing(Database(empty)) as target:
        count = copying.copy(database, target)

        assert rows(target) == rows(database)
        assert count == sum(rows(database).values())
        assert installation(target) != installation(database)
        assert schema.current(target) in schema.heads()
        assert schema.difference(empty) == ""
        principal = accounts.authenticate(target, key, peppers=[factories.PEPPER])
        assert principal is not None
        account_id = principal.account_id
        for query, found in (("zebras", 5), ("meta.case:3", 1), ("boxed", 5)):
            wanted = filters.parse(query, now=target.clock())
            views, _ = history.page(target, wanted, limit=100)
            assert len(views) == found
        for view in history.page(database, filters.Filter(None), limit=100)[0]:
            copied = factories.get_job(target, view.job.id).job
            assert (copied.metadata_, copied.options, copied.rerun_of) == (
                view.job.metadata_,
                view.job.options,
                view.job.rerun_of,
            )
            original = [(one.text, one.event_index) for one in traces.read(database, view.job.id)]
            assert [
                (one.text, one.event_index) for one in traces.read(target, view.job.id)
            ] == original
        stored = storage.usage(target, account_id, default_mb=0)
        assert stored == storage.usage(database, account_id, default_mb=0)
        new = factories.make_job(target, account_id, question="New?")
        for _ in range(3):
            claimed = factories.claim(target)
            factories.begin(target, claimed)
            assert settle.succeed(
                target, claimed, answer=Answer("6", "boxed"), generation=factories.make_ended("6")
            )
        assert factories.get_job(target, new).job.status is Status.SUCCEEDED


def test_the_documented_statement_gives_a_file_copy_another_id(database: Database) -> None:
    before = installation(database)
    with database.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM installation;")

    assert installation(database) not in {before, ""}
    assert installation(database) == installation(database)


def test_a_copy_that_is_killed_continues_and_is_not_used_before_its_end(
    database: Database, empty: str
) -> None:
    fill(database)
    url = database.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", _COPY, url, empty]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line == "jobs\n":
                break
        child.send_signal(signal.SIGKILL)

    with contextlib.closing(Database(empty)) as target:
        assert not schema.fits(schema.current(target))
        with pytest.raises(errors.LaunchError, match="unfinished copy"):
            schema.upgrade(empty)
        again: list[str] = []
        copying.copy(database, target, progress=lambda name, _: again.append(name))
        assert rows(target) == rows(database)
        assert schema.fits(schema.current(target))


def test_a_target_with_rows_is_refused(database: Database, empty: str) -> None:
    fill(database)
    schema.upgrade(empty)
    with contextlib.closing(Database(empty)) as target:
        factories.make_account(target)
        with pytest.raises(errors.LaunchError, match="accounts has rows"):
            copying.copy(database, target)
        assert rows(target)["jobs"] == 0


def test_a_source_in_use_is_refused(database: Database, empty: str) -> None:
    fill(database)
    heartbeat = workers.WorkerHeartbeat(id="w", host="h", pid=1, version="1", slots=1)
    workers.beat(database, heartbeat, alive=timedelta(minutes=1))
    with (
        contextlib.closing(Database(empty)) as target,
        pytest.raises(errors.LaunchError, match="Workers use the source"),
    ):
        copying.copy(database, target)


def test_a_source_that_changes_meanwhile_is_noticed(database: Database, empty: str) -> None:
    fill(database)

    def change(name: str, _count: int) -> None:
        if name == "timeline":
            with database.transaction() as transaction:
                transaction.execute(sa.update(Job).values(question="changed"))

    with (
        contextlib.closing(Database(empty)) as target,
        pytest.raises(errors.LaunchError, match="differs from the source in jobs"),
    ):
        copying.copy(database, target, progress=change)
