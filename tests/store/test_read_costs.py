"""What lists, positions and statistics read on 100,000 jobs: about what they return, not the history.

PostgreSQL counts the rows that a statement reads, SQLite the steps of its virtual machine.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from bench import crowd
from core.database import Database, utcnow
from jobs import filters
from jobs.store import history, statistics
from tests.databases import PostgresSource, SqliteSource

JOBS = 100_000
QUEUED = 2_000
LIMIT = 50
#: A walk of all jobs reads 100,000 rows, or has ten times as many steps.
_MOST_ROWS = 15_000
_MOST_STEPS = 250_000
_STEP = 500


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def filled(request: pytest.FixtureRequest) -> Iterator[tuple[Database, crowd.Crowd]]:
    """Fill a database of its own."""
    if request.param == "postgresql":
        postgresql: PostgresSource = request.getfixturevalue("postgres_source")
        url, drop = postgresql.clone(), postgresql.drop_for_good
    else:
        sqlite: SqliteSource = request.getfixturevalue("sqlite_source")
        url, drop = sqlite.create(), sqlite.drop
    database = Database(url, search_seconds=60)
    try:
        yield database, crowd.fill(database, JOBS, queued=QUEUED)
    finally:
        database.close()
        drop(url)


_QUERIES = (
    "status:failed",
    "status:cancelled",
    "status:failed status:cancelled",
    "status:failed status:running status:queued",
    "status:running",
    "error:engine_fault",
    "error:engine_fault error:worker_lost",
    "error:engine_rejected error:unknown",
    "status:running status:queued",
    "error:unknown",
    "created:<2h",
    "created:>7d",
    "created:>90d",
    "created:>170d",
    "created:>200d",
    "created:DAY",
    "created:DAY status:failed",
    "meta.case:77",
    "meta.case:none",
    "meta.fleet:a",
    "meta.fleet:b",
    f"image:{crowd.IMAGE_SHA256}",
    "image:IMAGE",
    crowd.OLD_WORD,
    f"{crowd.OLD_WORD} created:>90d status:failed",
    f"{crowd.OLD_WORD} unknown",
    "account:large",
    "account:small status:failed",
    "account:unknown",
    "crashes:>0",
    "crashes:>0 account:small",
    "crashes:>5",
    'engine:"http://engine-1"',
    "engine:unknown",
    f"worker:{crowd.OWNER}",
    f"worker:{crowd.LOSER}",
    f"worker:{crowd.LOSER} status:failed account:small",
    "worker:unknown",
    "rerun:any",
    "rerun:any status:failed",
    "rerun:none",
    "rerun:none error:unknown",
    "operation:CANCELLATION",
    "operation:REPETITION",
    "operation:CANCELLATION rerun:any",
)
_READS: dict[str, Callable[[Database, crowd.Crowd], object]] = {
    "the queue": lambda database, _: statistics.queue(database, account_id=None),
    "the queue of an account": lambda database, facts: statistics.queue(
        database, account_id=facts.accounts[1]
    ),
    "the queue by priority": lambda database, _: statistics.waiting(database),
    "running jobs by worker": lambda database, _: statistics.held(database),
    "the last queued job": lambda database, facts: history.get(
        database, facts.last, account_id=None
    ),
    "a small account": lambda database, facts: history.page(
        database, history.Filter(facts.accounts[2]), limit=LIMIT
    ),
}


def _page(query: str, *, newest_first: bool) -> Callable[[Database, crowd.Crowd], object]:
    def read(database: Database, facts: crowd.Crowd) -> object:
        day = f"{utcnow().date() - timedelta(days=150)}"
        image = f"img_{facts.image_id.hex}"
        text = query.replace("DAY", day).replace("IMAGE", image)
        for operation, place in zip(facts.operations, ("CANCELLATION", "REPETITION"), strict=True):
            text = text.replace(place, f"op_{operation.hex}")
        wanted = filters.parse(text, now=utcnow())
        return history.page(database, wanted, limit=LIMIT, newest_first=newest_first)

    return read


for _query, _newest in itertools.product(_QUERIES, (True, False)):
    _name = re.sub(r"[0-9a-f]{64}", "SHA256", _query)
    _READS[f"{_name}, {'newest' if _newest else 'oldest'} first"] = _page(
        _query, newest_first=_newest
    )


@pytest.mark.parametrize("name", _READS)
def test_a_read_costs_what_it_returns(filled: tuple[Database, crowd.Crowd], name: str) -> None:
    database, facts = filled
    seen: list[tuple[str, Any]] = []

    def note(*event: Any) -> None:  # noqa: ANN401 - SQLAlchemy's own hook
        seen.append((event[2], event[3]))

    sa.event.listen(database.engine, "before_cursor_execute", note)
    try:
        _READS[name](database, facts)
    finally:
        sa.event.remove(database.engine, "before_cursor_execute", note)
    count, most = (_steps, _MOST_STEPS) if database.dialect == "sqlite" else (_rows, _MOST_ROWS)
    with database.engine.connect() as connection:
        costs = {
            statement: count(connection, statement, parameters)
            for statement, parameters in seen
            if statement.startswith(("SELECT", "WITH"))
        }

    assert costs
    assert {statement: cost for statement, cost in costs.items() if cost > most} == {}


def _steps(connection: sa.Connection, statement: str, parameters: Any) -> int:  # noqa: ANN401 - the driver's
    """Return about how many steps SQLite takes."""
    steps = itertools.count()
    driver: Any = connection.connection.driver_connection
    driver.set_progress_handler(lambda: next(steps) < 0, _STEP)
    try:
        connection.exec_driver_sql(statement, parameters).all()
    finally:
        driver.set_progress_handler(None, 0)
    return next(steps) * _STEP


def _rows(connection: sa.Connection, statement: str, parameters: Any) -> int:  # noqa: ANN401 - the driver's
    """Return how many rows PostgreSQL reads from tables and indexes."""
    explained = connection.exec_driver_sql(
        f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {statement}", parameters
    )
    nodes, rows = [explained.scalar_one()[0]["Plan"]], 0
    for node in nodes:
        nodes += node.get("Plans", ())
        if "Scan" in node["Node Type"] and node["Node Type"] != "Subquery Scan":
            read = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
            rows += node["Actual Loops"] * read
    return int(rows)


#: Qualifiers, and the jobs that they match.
_MATCHES = {
    'engine:"http://engine-1"': "SELECT job_id FROM attempts WHERE engine = 'http://engine-1'",
    f"worker:{crowd.OWNER}": f"SELECT job_id FROM attempts WHERE worker = '{crowd.OWNER}'",
    f"worker:{crowd.LOSER}": f"SELECT job_id FROM attempts WHERE worker = '{crowd.LOSER}'",
    "crashes:>0": "SELECT id FROM jobs WHERE crashes > 0",
    "rerun:any": "SELECT rerun_of FROM jobs WHERE rerun_of IS NOT NULL",
    "rerun:none": "SELECT id FROM jobs WHERE rerun_of IS NULL",
    "operation:CANCELLATION": "SELECT job_id FROM operation_jobs WHERE new_job_id IS NULL",
    "operation:REPETITION": "SELECT new_job_id FROM operation_jobs WHERE new_job_id IS NOT NULL",
}


@pytest.mark.parametrize("newest", [True, False], ids=["newest", "oldest"])
@pytest.mark.parametrize("query", _MATCHES)
def test_a_qualifier_finds_its_jobs_whether_few_or_many_match(
    filled: tuple[Database, crowd.Crowd], query: str, *, newest: bool
) -> None:
    database, facts = filled
    page = _page(query, newest_first=newest)(database, facts)
    assert isinstance(page, tuple)
    with database.reading() as transaction:
        rows = transaction.execute(sa.text(_MATCHES[query]).columns(sa.column("id", sa.Uuid())))
        wanted = sorted(rows.scalars(), reverse=newest)

    assert len(wanted) >= LIMIT
    assert [view.job.id for view in page[0]] == wanted[:LIMIT]
