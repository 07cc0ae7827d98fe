"""An upgrade while jobs wait and run: from the first revision, with rows in it, to the newest and one beyond it.

The revision beyond the newest stands for that of the next version. It only adds, so this version works on after it.
"""

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
from alembic.config import Config
from alembic.script import ScriptDirectory

from core import ids
from core.database import Database, UTCDateTime, utcnow
from jobs.answers.extraction import Answer
from jobs.lifecycle import TURN_STEP, Outcome, Priority, Status
from jobs.store import claims, commands, expiry, history, search, settle, timeline, traces
from migrations import schema
from tests import databases, factories, postgres

FIRST = schema.BASELINE
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
        "queued": {"ordering_at": now - minute},
        "waiting": {"not_before": now + timedelta(hours=1), "failures": 1, "attempt": 1},
        "running": lease | {"status": "running", "lease_expires_at": now + minute},
        "dead": lease | {"status": "running", "lease_expires_at": now - minute},
        "finished": {
            "status": "succeeded",
            "attempt": 1,
            "started_at": now - minute,
            "finished_at": now,
            "answer_text": "6",
            "metadata_": {"case": "7", 'a "key"': "."},
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
        turn = {"step": TURN_STEP[Priority.NORMAL], "next_turn": 0, "served_turn": 0}
        insert("queue_turns", {"account_id": account_id, "priority": "normal", **turn})
        insert(
            "attempts",
            *(
                {"job_id": row["id"], "number": 1, "worker": OWNER, "claimed_at": now}
                for row in running
            ),
        )
        insert(
            "generations",
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


#: The next version's revision.
NEXT = "9000"
_NEXT = """
import re

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{head}"
branch_labels = None
depends_on = None

_COLUMN = ", jobs.note"


def upgrade():
    op.add_column("jobs", sa.Column("note", sa.Text(), nullable=True))
    op.add_column("workers", sa.Column("zone", sa.Text(), server_default="", nullable=False))
    op.create_table(
        "job_notes",
        sa.Column("job_id", sa.Uuid(), sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("text", sa.Text(), nullable=False),
    )
    op.create_index("ix_jobs_note", "jobs", ["note"])
    view = _view()
    replace(re.sub(r"\\sFROM \\(?jobs\\s+JOIN", lambda found: _COLUMN + found[0], view, count=1))


def downgrade():
    replace(re.sub(r",\\s+jobs\\.note\\b", "", _view()))
    op.drop_index("ix_jobs_note", "jobs")
    op.drop_table("job_notes")
    op.drop_column("workers", "zone")
    op.drop_column("jobs", "note")


def replace(definition):
    op.execute("DROP VIEW history_jobs")
    op.execute("CREATE VIEW history_jobs AS " + definition.replace(":", r"\\:"))


def _view():
    if op.get_bind().dialect.name == "postgresql":
        return op.get_bind().execute(sa.text("SELECT pg_get_viewdef('history_jobs')")).scalar_one()
    listing = sa.text("SELECT sql FROM sqlite_master WHERE name = 'history_jobs'")
    return op.get_bind().execute(listing).scalar_one().partition("history_jobs AS")[2]
"""


@pytest.fixture
def following(old: Old, tmp_path: Path) -> Config:
    """Return Alembic's configuration of the next version, for the old database."""
    folder = tmp_path / "versions"
    folder.mkdir()
    config = databases.alembic(old.url)
    script = ScriptDirectory.from_config(config)
    (folder / f"{NEXT}_next.py").write_text(
        _NEXT.format(revision=NEXT, head=script.get_current_head()).replace("\\\\", "\\")
    )
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", f"{script.versions}\n{folder}")
    return config


@pytest.fixture(params=["newest", "next"])
def upgraded(old: Old, following: Config, request: pytest.FixtureRequest) -> Iterator[Database]:
    """Return the old database after the upgrade to the newest revision, and to the next version's."""
    schema.upgrade(old.url)
    if request.param == "next":
        command.upgrade(following, NEXT)
    database = Database(old.url)
    yield database
    database.close()


def test_all_jobs_are_there_and_read_as_before(old: Old, upgraded: Database) -> None:
    assert schema.fits(schema.current(upgraded))
    views, more = history.page(upgraded, history.Filter(account_id=old.account_id), limit=10)
    assert ({view.job.status for view in views}, len(views), more) == (
        {Status.QUEUED, Status.RUNNING, Status.SUCCEEDED},
        5,
        False,
    )
    assert factories.get_job(upgraded, old.finished).job.answer_text == "6"


def test_metadata_is_found_before_and_after_the_reindex_that_sqlite_needs(
    old: Old, upgraded: Database
) -> None:
    new = factories.make_job(upgraded, old.account_id, metadata={"case": "7"})

    def found(**pairs: str) -> set[uuid.UUID]:
        wanted = history.Filter(account_id=None, metadata=pairs)
        return {view.job.id for view in history.page(upgraded, wanted, limit=10)[0]}

    def check() -> None:
        assert found(case="7") == {old.finished, new}
        assert found(case="7", **{'a "key"': "."}) == {old.finished}
        assert found(case="8") == found(**{"7": "case"}) == set()

    check()
    assert search.reindex_due(upgraded) == (upgraded.dialect == "sqlite")
    assert search.reindexed(upgraded) is None
    done = search.rebuild(upgraded, limit=2)
    while done is not None:
        # What is half rebuilt, by a process that was killed, is due too.
        assert search.reindexed(upgraded) == done
        assert search.reindex_due(upgraded)
        check()
        done = search.rebuild(upgraded, after=done, limit=2)
    assert not search.reindex_due(upgraded)
    check()


def test_the_holder_of_a_running_job_renews_and_settles_it(old: Old, upgraded: Database) -> None:
    held = claim_of(old.running, old.account_id)
    pair = (held.job_id, held.attempt)

    assert claims.renew(upgraded, owner=OWNER, held=[pair], lease=factories.LEASE) == {pair}
    piece = factories.make_piece(held, "It is 6.")
    assert traces.append(upgraded, owner=OWNER, pieces=[piece]) == set()
    assert settle.succeed(
        upgraded, held, answer=Answer("6", "boxed"), generation=factories.make_ended()
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
        upgraded, claim_of(old.dead, old.account_id), answer=None, generation=factories.make_ended()
    )
    assert settle.landed(upgraded, claim_of(old.dead, old.account_id)) is Outcome.LOST


def test_what_waited_runs_and_new_jobs_come_in(old: Old, upgraded: Database) -> None:
    first = factories.claim(upgraded)
    assert first.job_id == old.queued
    assert settle.fail(upgraded, first, settle.Failure("engine_rejected", "No."), generation=None)
    commands.run_now(upgraded, old.waiting, account_id=None, actor="key:test")
    assert factories.claim(upgraded).job_id == old.waiting
    new = factories.make_job(upgraded, old.account_id)
    assert factories.claim(upgraded).job_id == new
    entries, _ = timeline.read(upgraded, old.queued, limit=10)
    assert [entry.action for entry in entries] == ["claimed", "failed"]


def shape(url: str) -> dict[str, list[tuple[str, str, bool, bool]]]:
    """Return the columns of each table and view: name, type, whether NULL goes in, whether there is a default."""
    with contextlib.closing(Database(url)) as database:
        inspector = sa.inspect(database.engine)
        names = [*inspector.get_table_names(), *inspector.get_view_names()]
        return {
            name: [
                (column["name"], str(column["type"]), column["nullable"], bool(column["default"]))
                for column in inspector.get_columns(name)
            ]
            for name in names
        }


def breaches(
    before: dict[str, list[tuple[str, str, bool, bool]]],
    after: dict[str, list[tuple[str, str, bool, bool]]],
) -> list[str]:
    """Return what an upgrade did besides adding: then the previous version could not work on."""
    lost = [name for name in before if name not in after]
    changed = [
        f"{name}.{column[0]}"
        for name in before
        for column in before[name]
        if column not in after.get(name, [])
    ]
    moved = [
        name
        for name in before
        if name.startswith("history_") and after.get(name, [])[: len(before[name])] != before[name]
    ]
    demanding = [
        f"{name}.{column}"
        for name in before
        for column, _, optional, default in after.get(name, [])
        if column not in {known for known, *_ in before[name]} and not (optional or default)
    ]
    return [*lost, *changed, *moved, *demanding]


def test_an_upgrade_only_adds_and_a_downgrade_takes_it_back(old: Old, following: Config) -> None:
    first = shape(old.url)
    schema.upgrade(old.url)
    newest = shape(old.url)
    command.upgrade(following, NEXT)
    after = shape(old.url)

    assert breaches(first, newest) == []
    assert breaches(newest, after) == []
    assert after["history_jobs"][-1][0] == "note"
    # The other way it takes away what the next version reads.
    assert breaches(after, newest) == ["job_notes", *breaches(after, newest)[1:]] != ["job_notes"]

    command.downgrade(following, "-1")

    assert shape(old.url) == newest


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
    following: Config, dialect: str, woken: list[str]
) -> None:
    command.upgrade(following, NEXT)
    changed = position(woken, lambda statement: statement.lstrip().startswith("ALTER TABLE"))
    if dialect == "sqlite":
        assert position(woken, lambda statement: statement.startswith("BEGIN IMMEDIATE")) < changed
        return

    limits = ["SET LOCAL lock_timeout = '4s'", "SET LOCAL statement_timeout = '60s'"]

    assert [statement for statement in woken[:changed] if "timeout" in statement] == limits


@pytest.mark.parametrize("dialect", ["postgresql"])  # On SQLite nobody who reads is in the way.
def test_an_upgrade_that_cannot_have_its_table_gives_up_and_changes_nothing(
    old: Old, following: Config
) -> None:
    schema.upgrade(old.url)
    with contextlib.closing(Database(old.url)) as holder:
        with holder.transaction() as transaction:
            transaction.execute(sa.text("LOCK TABLE workers IN ACCESS SHARE MODE"))
            with pytest.raises(sa.exc.OperationalError, match="lock timeout"):
                command.upgrade(following, NEXT)
            assert schema.current(holder) in schema.heads()

        command.upgrade(following, NEXT)

        assert schema.current(holder) == NEXT
