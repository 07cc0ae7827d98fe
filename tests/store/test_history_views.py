"""The views in which people read the history: their columns, what is in them, and every query of their page."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from core import ids
from core.database import Database
from jobs.answers.extraction import Answer
from jobs.lifecycle import Role
from jobs.store import accounts, settle
from tests import factories, webhooks
from tests.postgres import Server

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "sql-views.md").read_text(
    encoding="utf-8"
)
VIEWS = (
    "history_jobs",
    "history_attempts",
    "history_timeline",
    "history_deliveries",
    "history_keys",
)
_SQL = re.compile(r"```sql\n-- (\w+)(: the role)?\n(.*?)```", re.DOTALL)
QUERIES = [(kind, text) for kind, role, text in _SQL.findall(PAGE) if not role]
[ROLE] = [text for _, role, text in _SQL.findall(PAGE) if role]


@dataclass(frozen=True)
class Past:
    """A job that ran twice and succeeded, one that failed, one that waits."""

    succeeded: uuid.UUID
    failed: uuid.UUID
    queued: uuid.UUID


@pytest.fixture
def past(database: Database) -> Past:
    account = factories.make_account(database, "web")
    webhooks.make_endpoint(database, account, url="https://receiver.example/a-secret-path")
    succeeded = factories.make_job(
        database, account, metadata={"case": "42"}, options={"answer_format": {"type": "number"}}
    )
    fault = settle.Failure("engine_fault", "It failed.", retryable=True)
    settle.release(database, factories.claim(database), generation=None, fault=fault)
    again = factories.claim(database)
    factories.begin(database, again)
    settle.succeed(database, again, answer=Answer("6", "boxed"), generation=factories.make_ended())
    failed = factories.make_job(database, account, question="Why?")
    settle.fail(
        database,
        factories.claim(database),
        settle.Failure("engine_rejected", "No."),
        generation=None,
    )
    webhooks.try_first(database, webhooks.DOWN)
    return Past(succeeded, failed, factories.make_job(database, account, rerun_of=failed))


def rows(database: Database, statement: str) -> list[dict[str, Any]]:
    with database.reading() as transaction:
        return [dict(row) for row in transaction.execute(sa.text(statement)).mappings()]


def utc(value: Any) -> datetime:  # noqa: ANN401 - text on SQLite
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    assert isinstance(moment, datetime)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def plain(value: Any) -> Any:  # noqa: ANN401 - JSON, which is text on SQLite
    return json.loads(value) if isinstance(value, str) else value


def documented(view: str) -> list[str]:
    table = PAGE.split(f"`{view}`: one row", 1)[1].split("\n\n", 2)[1]
    return re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_has_the_columns_that_its_page_says(database: Database, view: str) -> None:
    columns = [column["name"] for column in sa.inspect(database.engine).get_columns(view)]

    assert columns == documented(view)
    secret = {"digest", "idempotency_key", "fingerprint", "secret", "url", "payload"}
    assert not secret.intersection(columns)


def test_a_job_is_shown_with_words_and_seconds(database: Database, past: Past) -> None:
    by_job = {row["job"]: row for row in rows(database, "SELECT * FROM history_jobs")}

    row = by_job[ids.show("job", past.succeeded)]
    job = factories.get_job(database, past.succeeded).job
    assert (row["account"], row["status"], row["answer"]) == ("web", "succeeded", "6")
    assert (plain(row["answer_value"]), row["answer_forced"]) == (6, False)
    assert row["confidence"] is None
    assert row["account_id"] == ids.show("acct", job.account_id)
    assert (row["attempts"], row["images"], row["output_tokens"]) == (2, 1, 11)
    assert job.started_at is not None
    assert job.finished_at is not None
    for name, start, end in (
        ("queued_seconds", job.created_at, job.started_at),
        ("run_seconds", job.started_at, job.finished_at),
        ("total_seconds", job.created_at, job.finished_at),
    ):
        assert row[name] == pytest.approx((end - start).total_seconds(), abs=0.002), name
    assert utc(row["created_at"]) == job.created_at
    assert plain(row["metadata"]) == {"case": "42"}
    rerun = by_job[ids.show("job", past.queued)]
    assert rerun["rerun_of"] == ids.show("job", past.failed)
    assert (rerun["status"], rerun["run_seconds"], rerun["finished_at"]) == ("queued", None, None)


def test_a_job_is_found_by_its_bare_id(database: Database, past: Past) -> None:
    found = rows(
        database, f"SELECT question, error_code FROM history_jobs WHERE id = '{past.failed.hex}'"
    )

    assert found == [{"question": "Why?", "error_code": "engine_rejected"}]


def test_attempts_are_shown_with_the_engines_usage(database: Database, past: Past) -> None:
    first, second, third = rows(database, "SELECT * FROM history_attempts ORDER BY job_id, attempt")

    assert (first["job"], first["attempt"]) == (ids.show("job", past.succeeded), 1)
    assert (first["outcome"], first["error_code"], first["engine"]) == (
        "released",
        "engine_fault",
        None,
    )
    assert (second["attempt"], second["outcome"], second["engine"]) == (
        2,
        "succeeded",
        "http://engine",
    )
    assert (second["input_tokens"], second["cached_tokens"], second["output_tokens"]) == (
        50,
        40,
        11,
    )
    assert second["run_seconds"] >= 0
    assert (third["job"], third["outcome"]) == (ids.show("job", past.failed), "failed")


def test_the_timeline_shows_the_changes_in_order(database: Database, past: Past) -> None:
    reported = rows(
        database,
        "SELECT action, actor, status, error_code FROM history_timeline "
        f"WHERE job_id = '{past.failed.hex}' ORDER BY entry",
    )

    assert [(row["action"], row["status"], row["error_code"]) for row in reported] == [
        ("submitted", "queued", None),
        ("claimed", "running", None),
        ("failed", "failed", "engine_rejected"),
    ]
    assert reported[1]["actor"] == "worker:worker-1"


def test_deliveries_are_shown_by_attempt_and_without_secrets(
    database: Database, past: Past
) -> None:
    attempts = rows(database, "SELECT * FROM history_deliveries ORDER BY delivery_id, attempt")

    first, second = attempts[:2]
    assert (first["job"], first["account"]) == (ids.show("job", past.succeeded), "web")
    assert (first["type"], first["status"], first["kind"]) == (
        "job.succeeded",
        "pending",
        "automatic",
    )
    assert (first["state"], first["outcome"], first["status_code"]) == ("ended", "failed", 500)
    assert (second["attempt"], second["state"], second["outcome"]) == (2, "due", None)
    assert utc(first["next_at"]) == utc(second["due_at"])
    assert {row["origin"] for row in attempts} == {"https://receiver.example"}
    assert "a-secret-path" not in repr(attempts)


def test_keys_are_shown_by_the_actor_of_timelines(database: Database) -> None:
    maker, made = accounts.new_key(), accounts.new_key()
    key_ids = [
        accounts.create_key(
            database,
            key,
            pepper=factories.PEPPER,
            account="web",
            role=Role.SUBMIT,
            name=name,
            actor=actor,
        )
        for key, name, actor in ((maker, "first", "operator:me"), (made, "second", "key:key_0"))
    ]
    accounts.revoke_key(database, key_ids[1], actor="operator:me")

    shown = {row["name"]: row for row in rows(database, "SELECT * FROM history_keys")}

    assert shown["first"]["actor"] == f"key:{ids.show('key', key_ids[0])}"
    assert shown["first"]["key"] == ids.show("key", key_ids[0])
    assert (shown["first"]["account"], shown["first"]["role"]) == ("web", "submit")
    assert (shown["second"]["created_by"], shown["second"]["revoked_by"]) == (
        "key:key_0",
        "operator:me",
    )
    assert shown["second"]["revoked_at"] is not None


def test_the_page_has_each_query_for_both_databases() -> None:
    kinds = [kind for kind, _ in QUERIES]

    assert set(kinds) == {"PostgreSQL", "SQLite", "both"}
    assert kinds.count("PostgreSQL") == kinds.count("SQLite") == 9


@pytest.mark.parametrize(("kind", "query"), QUERIES, ids=[f"{n}" for n, _ in enumerate(QUERIES)])
def test_a_query_of_the_page_runs_and_finds_what_it_is_for(
    database: Database, past: Past, kind: str, query: str
) -> None:
    if kind.lower() not in {"both", database.dialect}:
        other = {"postgresql": "SQLite", "sqlite": "PostgreSQL"}[database.dialect]
        assert kind == other
        return
    query = query.replace("0190c0de00007000800000000000abcd", past.succeeded.hex)
    stuck = "'queued' AND not_before" in query
    if stuck:
        with database.transaction() as transaction:
            transaction.execute(
                sa.text(
                    "UPDATE jobs SET not_before = '2020-01-01 00:00:00+00:00' WHERE status = 'queued'"
                )
            )

    if "FROM history_keys" in query:
        with database.transaction() as transaction:
            transaction.execute(
                sa.text("UPDATE api_keys SET created_at = '2020-01-01 00:00:00+00:00'")
            )

    found = rows(database, query)

    assert found
    if stuck:
        assert [row["job"] for row in found] == [ids.show("job", past.queued)]
    if "percent" in query and "failed" in query:
        assert [(row["finished"], row["failed"], row["percent"]) for row in found] == [(2, 1, 50)]
    if "answer_value" in query:
        assert [(plain(row["answer_value"]), row["jobs"], row["forced"]) for row in found] == [
            (6, 1, 0)
        ]
    if "cached_tokens" in query and "percent" in query:
        assert [(row["account"], row["percent"]) for row in found] == [("web", 80)]


@pytest.fixture
def reader(database: Database, request: pytest.FixtureRequest) -> Iterator[Database]:
    """Return the database as the role of the page sees it."""
    server: Server = request.getfixturevalue("postgres_server")
    name, role = database.url.database or "", f"longlook_reader_{uuid.uuid4().hex}"
    server.run(name, ROLE.replace("longlook_reader", role))
    password = ROLE.split("'")[1]
    url = database.url.set(username=role, password=password)
    # The sessions of the role are read-only, and the service uses no such session.
    url = url.update_query_dict({"target_session_attrs": "any"})
    opened = Database(url.render_as_string(hide_password=False))
    yield opened
    opened.close()
    server.run(name, f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize("dialect", ["postgresql"])  # SQLite has no roles.
def test_the_role_of_the_page_reads_the_views_and_nothing_else(
    reader: Database, past: Past
) -> None:
    for view in VIEWS:
        assert rows(reader, f"SELECT * FROM {view}"), view
    assert rows(reader, "SHOW timezone") == [{"TimeZone": "UTC"}]
    for table in ("jobs", "api_keys"):
        with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
            rows(reader, f"SELECT * FROM {table}")
    [job] = rows(reader, f"SELECT created_at FROM history_jobs WHERE id = '{past.queued}'")
    assert job["created_at"].utcoffset().total_seconds() == 0
