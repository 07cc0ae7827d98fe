"""An upgrade while jobs wait and run: from the revision before, with rows in it, to the newest."""

from __future__ import annotations

import contextlib
import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command

from api.schemas.jobs import JobAnswer
from core import errors, ids
from core.database import Database, UTCDateTime, utcnow
from jobs.answers.extraction import Answer
from jobs.lifecycle import Outcome, Status
from jobs.store import claims, commands, expiry, history, settle, storage, timeline, traces
from migrations import schema
from tests import databases, factories, postgres
from webhooks.storage import COUNTER

FIRST = "0001"
OWNER = "a worker of the version before"


@dataclass(frozen=True)
class Old:
    """A database at the first revision, and the jobs in it."""

    url: str
    account_id: uuid.UUID
    queued: uuid.UUID
    waiting: uuid.UUID
    running: uuid.UUID
    dead: uuid.UUID
    finished: uuid.UUID


@pytest.fixture
def old(dialect: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Old]:
    """Return a database at the first revision, with a job in every state."""
    server: postgres.Server | None = None
    if dialect == "sqlite":
        url = f"sqlite:///{tmp_path / 'old.db'}"
    else:
        server = request.getfixturevalue("postgres_server")
        url = server.url(server.create())
    command.upgrade(databases.alembic(url), FIRST)
    yield filled(url)
    if server is not None:
        server.drop(sa.make_url(url).database or "")


def filled(url: str) -> Old:
    """Put rows into the tables as they are at that revision: the records know newer ones."""
    now, account_id = utcnow(), ids.new()
    minute = timedelta(minutes=1)
    lease = {"attempt": 1, "lease_owner": OWNER, "started_at": now}
    states: dict[str, dict[str, Any]] = {
        "queued": {"rank_at": now - minute},
        "waiting": {"not_before": now + timedelta(hours=1), "failures": 1, "attempt": 1},
        "running": lease | {"status": "running", "lease_expires_at": now + minute},
        "dead": lease | {"status": "running", "lease_expires_at": now - minute},
        "finished": {
            "status": "succeeded",
            "attempt": 1,
            "started_at": now - minute,
            "finished_at": now,
            "answer_text": "6",
        },
    }
    rows = {name: row | {"id": ids.new()} for name, row in states.items()}
    running = [row for row in rows.values() if row.get("status") == "running"]
    database = Database(url)
    tables = sa.MetaData()
    tables.reflect(database.engine)

    def insert(name: str, *values: dict[str, Any]) -> None:
        table = tables.tables[name]
        for column in table.columns:
            if isinstance(column.type, sa.DateTime):
                column.type = UTCDateTime()
            elif isinstance(column.type, sa.CHAR):  # As SQLite has them.
                column.type = sa.Uuid()
        transaction.execute(sa.insert(table), list(values))

    with database.transaction() as transaction:
        insert("accounts", {"id": account_id, "name": "web", "created_at": now})
        for row in rows.values():
            insert("jobs", plain(factories.job_rows(account_id, [row])[0]))
        insert(
            "attempts",
            *(
                {"job_id": row["id"], "number": 1, "worker": OWNER, "claimed_at": now}
                for row in running
            ),
        )
        insert(
            "samples",
            *(
                {"job_id": row["id"], "attempt": 1, "number": 0, "rid": uuid.uuid4().hex,
                 "output_tokens": 0, "started_at": now}
                for row in running
            ),
        )  # fmt: skip
    database.close()
    return Old(url, account_id, **{name: row["id"] for name, row in rows.items()})


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """Return a job's row as its columns are called in the table."""
    return {name.rstrip("_"): str(value) if isinstance(value, Status) else value
            for name, value in row.items()}  # fmt: skip


def claim_of(job_id: uuid.UUID, account_id: uuid.UUID) -> claims.Claim:
    """Return what a worker holds that claimed the job before the upgrade."""
    return claims.Claim(
        job_id=job_id,
        attempt=1,
        owner=OWNER,
        account_id=account_id,
        model="tiny-qvq",
        question="How many circles are there?",
        options={},
        images=(),
        failures=0,
        max_attempts=5,
        request_id="req_test",
        quarantined=False,
    )


@pytest.fixture
def upgraded(old: Old) -> Iterator[Database]:
    """Return the old database after the upgrade."""
    schema.upgrade(old.url)
    database = Database(old.url)
    yield database
    database.close()


def test_all_jobs_are_there_and_read_as_before(old: Old, upgraded: Database) -> None:
    assert schema.current(upgraded) in schema.heads()
    views, more = history.page(upgraded, history.Filter(account_id=old.account_id), limit=10)
    assert ({view.job.status for view in views}, len(views), more) == (
        {Status.QUEUED, Status.RUNNING, Status.SUCCEEDED},
        5,
        False,
    )
    assert factories.get_job(upgraded, old.finished).job.answer_text == "6"


def test_the_holder_of_a_running_job_renews_and_settles_it(old: Old, upgraded: Database) -> None:
    held = claim_of(old.running, old.account_id)
    pair = (held.job_id, held.attempt)

    assert claims.renew(upgraded, owner=OWNER, held=[pair], lease=factories.LEASE) == {pair}
    piece = factories.make_piece(held, "It is 6.")
    assert traces.append(upgraded, owner=OWNER, pieces=[piece]) == set()
    assert settle.succeed(
        upgraded, held, answer=Answer("6", "boxed"), sample=factories.make_ended()
    )

    assert factories.get_job(upgraded, old.running).job.status is Status.SUCCEEDED
    assert traces.read(upgraded, old.running)[0].text == "It is 6."


def test_a_lease_that_ran_out_meanwhile_is_swept_and_its_holder_is_fenced_off(
    old: Old, upgraded: Database
) -> None:
    expiry.sweep(upgraded, actor="sweeper:test", crash_limit=3, rng=random.Random(1))

    job = factories.get_job(upgraded, old.dead).job
    assert (job.status, job.crashes) == (Status.QUEUED, 1)
    assert not settle.succeed(
        upgraded, claim_of(old.dead, old.account_id), answer=None, sample=factories.make_ended()
    )
    assert settle.landed(upgraded, claim_of(old.dead, old.account_id)) is Outcome.LOST


def test_what_waited_runs_and_new_jobs_come_in(old: Old, upgraded: Database) -> None:
    first = factories.claim(upgraded)
    assert first.job_id == old.queued
    assert settle.fail(upgraded, first, settle.Failure("engine_rejected", "No."), sample=None)
    commands.run_now(upgraded, old.waiting, account_id=None, actor="key:test")
    assert factories.claim(upgraded).job_id == old.waiting
    new = factories.make_job(upgraded, old.account_id)
    assert factories.claim(upgraded).job_id == new
    entries, _ = timeline.read(upgraded, old.queued, limit=10)
    assert [entry.event for entry in entries] == ["claimed", "failed"]


def test_what_was_stored_before_is_counted_after_the_upgrade(old: Old, upgraded: Database) -> None:
    assert storage.uncounted(upgraded) == [old.account_id]
    before = storage.usage(upgraded, old.account_id, default_mb=1)
    # What a process of the version before writes meanwhile is counted: it knows nothing of it.
    with upgraded.transaction() as transaction:
        changed = "UPDATE jobs SET answer_text = 'six of them' WHERE answer_text = '6'"
        transaction.execute(sa.text(changed))

    meanwhile = storage.usage(upgraded, old.account_id, default_mb=1)
    assert storage.recount(upgraded, old.account_id, counters=[COUNTER])
    after = storage.usage(upgraded, old.account_id, default_mb=1)

    assert (before.total, meanwhile.total) == (0, len("six of them") - len("6"))
    with upgraded.reading() as transaction:
        held = storage.stored(transaction, old.account_id, counters=[COUNTER])
    assert after.total == held.total() > 5 * len("How many circles are there?")


def view_columns(url: str) -> list[str]:
    database = Database(url)
    try:
        return [
            column["name"] for column in sa.inspect(database.engine).get_columns("history_jobs")
        ]
    finally:
        database.close()


def test_values_of_answers_go_with_a_downgrade_and_are_read_from_the_texts_after_it(
    old: Old, upgraded: Database
) -> None:
    job_id = factories.make_job(
        upgraded, old.account_id, options={"answer_format": {"type": "number"}}
    )
    commands.run_now(upgraded, old.waiting, account_id=None, actor="key:test")
    while (claimed := factories.claim(upgraded)).job_id != job_id:
        settle.stop(upgraded, claimed, sample=None)
    factories.begin(upgraded, claimed)
    answer = Answer("six", "boxed")
    assert settle.succeed(upgraded, claimed, answer=answer, sample=factories.make_ended())
    assert factories.get_job(upgraded, job_id).job.answer_value == 6
    columns = view_columns(old.url)

    command.downgrade(databases.alembic(old.url), "0011")

    assert view_columns(old.url) == columns[: columns.index("id") + 1]
    schema.upgrade(old.url)
    assert view_columns(old.url) == columns
    view = factories.get_job(upgraded, job_id)
    assert (view.job.answer_text, view.job.answer_value) == ("six", None)
    shown = JobAnswer.of(view)
    assert shown is not None
    assert shown.value == 6


@pytest.fixture
def woken() -> Iterator[list[str]]:
    """Return the statements of this process, as they are run."""
    statements: list[str] = []

    def hear(*arguments: Any) -> None:  # noqa: ANN401 - SQLAlchemy's own
        statements.append(arguments[2])

    sa.event.listen(sa.Engine, "before_cursor_execute", hear)
    yield statements
    sa.event.remove(sa.Engine, "before_cursor_execute", hear)


def position(statements: list[str], matches: Callable[[str], bool]) -> int:
    return next(n for n, statement in enumerate(statements) if matches(statement))


def test_an_upgrade_of_a_server_is_impatient_before_it_touches_anything(
    old: Old, dialect: str, woken: list[str]
) -> None:
    schema.upgrade(old.url)
    changed = position(woken, lambda statement: statement.lstrip().startswith("ALTER TABLE"))
    if dialect == "sqlite":
        assert position(woken, lambda statement: statement.startswith("BEGIN IMMEDIATE")) < changed
        return

    limits = ["SET LOCAL lock_timeout = '4s'", "SET LOCAL statement_timeout = '60s'"]

    assert [statement for statement in woken[:changed] if "timeout" in statement] == limits


@pytest.mark.parametrize("dialect", ["postgresql"])  # On SQLite nobody who reads is in the way.
def test_an_upgrade_that_cannot_have_its_table_gives_up_and_changes_nothing(old: Old) -> None:
    with contextlib.closing(Database(old.url)) as holder:
        with holder.transaction() as transaction:
            transaction.execute(sa.text("LOCK TABLE workers IN ACCESS SHARE MODE"))
            with pytest.raises(errors.LaunchError, match="lock timeout"):
                schema.upgrade(old.url)
            assert schema.current(holder) == FIRST

        schema.upgrade(old.url)

        assert schema.current(holder) in schema.heads()
