"""What workers, sweeps and deliveries run all the time reads the jobs it names or the live ones, never the history.

The operations run on 100,000 jobs, and the plan of each of their statements about jobs is checked: a statement that an
operation gets later is checked, too. A function that is missing here fails the last test.
"""

from __future__ import annotations

import inspect
import random
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from types import ModuleType
from typing import Any

import pytest
import sqlalchemy as sa

from bench import crowd
from core.database import Database, utcnow
from jobs.answers.extraction import Answer
from jobs.records.declarative import table
from jobs.records.jobs import HeldJob, Job
from jobs.store import (
    claims,
    commands,
    expiry,
    holds,
    responses,
    settle,
    traces,
    turns,
)
from tests import factories
from tests.databases import PostgresSource, SqliteSource
from webhooks import outbox

JOBS = 100_000
_FAULT = settle.Failure("engine_fault", "It broke.", retryable=True)
#: Indexes of the jobs that wait or run, which may be read whole.
_LIVE = frozenset(
    str(index.name)
    for index in table(Job).indexes
    if str(index.dialect_options["sqlite"]["where"])
    in ("status = 'queued'", "status = 'running'", "lease_owner IS NULL AND finished_at IS NULL")
)


@pytest.fixture(scope="module", params=["sqlite", "sqlite with statistics", "postgresql"])
def filled(request: pytest.FixtureRequest) -> Iterator[tuple[Database, crowd.Crowd]]:
    """Fill a database of its own. SQLite has no statistics unless somebody gathers them."""
    if request.param == "postgresql":
        postgresql: PostgresSource = request.getfixturevalue("postgres_source")
        url, drop = postgresql.clone(), postgresql.drop_for_good
    else:
        sqlite: SqliteSource = request.getfixturevalue("sqlite_source")
        url, drop = sqlite.create(), sqlite.drop
    database = Database(url)
    try:
        facts = crowd.fill(database, JOBS, queued=2_000)
        if request.param == "sqlite with statistics":
            with database.engine.connect() as connection:
                connection.exec_driver_sql("ANALYZE")
                connection.commit()
            database.engine.dispose()  # A connection reads the statistics when it is opened.
        yield database, facts
    finally:
        database.close()
        drop(url)


def _run(database: Database) -> claims.Claim:
    claimed = factories.claim(database, "me")
    assert factories.begin(database, claimed) is not None
    return claimed


def _append(database: Database, facts: crowd.Crowd) -> None:
    claimed = _run(database)
    held = dict.fromkeys(facts.held, 5)
    assert not traces.append(database, owner=crowd.OWNER, pieces=[], reserve=held)
    pieces = [factories.make_piece(claimed, "I see")]
    assert not traces.append(
        database, owner="me", pieces=pieces, reserve={(claimed.job_id, claimed.attempt): 9}
    )


def _sample(database: Database, _facts: crowd.Crowd) -> None:
    """Run two generations at once, of which one is continued."""
    claimed = _run(database)
    assert claims.join(database, claimed, rid="rid", generation=1) is not None
    ended = factories.make_ended(generation=1)
    claims.leave(database, claimed, ended)
    assert claims.follow(
        database, claimed, ended=ended, finding=None, rid="r", stored=1, inserted="", beside=True
    )
    assert settle.succeed(
        database, claimed, answer=Answer("6", "boxed"), generation=factories.make_ended()
    )
    settle.landed(database, claimed)


def _ends(database: Database, _facts: crowd.Crowd) -> None:
    generation = factories.make_ended()
    rng = random.Random(1)
    for deadly in (None, 3):
        assert settle.fail(database, _run(database), _FAULT, generation=generation, deadly=deadly)
        assert settle.retry(
            database, _run(database), _FAULT, generation=generation, rng=rng, deadly=deadly
        )
    assert settle.release(database, _run(database), generation=None)
    claimed = _run(database)
    commands.cancel(database, claimed.job_id, account_id=None, actor="key:test")
    claims.watch(database, owner="me", held=[(claimed.job_id, claimed.attempt)])
    assert settle.stop(database, claimed, generation=generation)


def _sweep(database: Database, facts: crowd.Crowd) -> None:
    claimed = _run(database)
    traces.append(database, owner="me", pieces=[factories.make_piece(claimed, "I see")])
    assert traces.read_open(database, [(claimed.job_id, claimed.attempt)])
    late = utcnow() - timedelta(seconds=1)
    with database.transaction() as transaction:
        transaction.update(Job, Job.id == claimed.job_id, lease_expires_at=late)
        transaction.update(Job, Job.id == facts.last, deadline_at=late)
    expiry.end_leases(
        database, owner="gone", actor="sweeper:test", crash_limit=3, rng=random.Random(1)
    )
    swept = expiry.sweep(database, actor="sweeper:test", crash_limit=3, rng=random.Random(1))
    assert (swept.requeued, swept.overdue) == (1, 1)


def _claim_by_rank(database: Database, _facts: crowd.Crowd) -> None:
    with database.transaction() as transaction:
        job = claims.by_rank(transaction, "me", factories.LEASE)
        assert job is not None
        claims.hold(transaction, job, "me")


def _hold(database: Database, _facts: crowd.Crowd) -> None:
    claimed = _run(database)
    with database.transaction() as transaction:
        holds.begin(transaction, claimed.job_id)
    holds.renew(database, [claimed.job_id])
    with database.transaction() as transaction:
        late = transaction.now(-timedelta(seconds=1))
        transaction.update(HeldJob, HeldJob.job_id == claimed.job_id, until=late)
    assert holds.lapse(database, actor="sweeper:test") == 1
    holds.end(database, claimed.job_id)
    assert responses.to_discard(database, limit=50) == []
    assert settle.stop(database, claimed, generation=None)


_OPERATIONS: dict[str, Callable[[Database, crowd.Crowd], object]] = {
    "claim": lambda database, _: factories.claim(database, "me"),
    "claim by rank": _claim_by_rank,
    "flush": _append,
    "renew": lambda database, facts: claims.renew(
        database, owner=crowd.OWNER, held=facts.held, lease=timedelta(minutes=60)
    ),
    "renew one": lambda database, facts: claims.renew(
        database, owner=crowd.OWNER, held=facts.held[:1], lease=timedelta(minutes=60)
    ),
    "watch": lambda database, facts: claims.watch(database, owner=crowd.OWNER, held=facts.held),
    "samples": _sample,
    "ends": _ends,
    "sweep": _sweep,
    "hold": _hold,
    "due": lambda database, _: expiry.due(database, limit=64),
    "turns": lambda database, _: turns.remove_passed(database),
    "notifications": lambda database, _: outbox.fan_out(database),
}


@pytest.mark.parametrize("name", _OPERATIONS)
def test_an_operation_reads_no_history(filled: tuple[Database, crowd.Crowd], name: str) -> None:
    database, facts = filled
    plans = _plans(database, lambda: _OPERATIONS[name](database, facts))

    assert plans
    faults = {
        statement: wrong
        for statement, plan in plans.items()
        if (wrong := [line for line in plan if not _is_bounded(line)])
    }
    assert not faults


def _plans(database: Database, act: Callable[[], object]) -> dict[str, list[str]]:
    """Return the accesses to jobs of each statement that ``act`` runs, one line each."""
    seen: dict[str, Any] = {}

    def note(*event: Any) -> None:  # noqa: ANN401 - SQLAlchemy's own hook
        _, _, statement, parameters, _, many = event
        if re.search(r"\bjobs\b", statement) and not statement.startswith(("INSERT", "EXPLAIN")):
            seen.setdefault(statement, parameters[0] if many else parameters)

    sa.event.listen(database.engine, "before_cursor_execute", note)
    try:
        act()
    finally:
        sa.event.remove(database.engine, "before_cursor_execute", note)
    with database.engine.connect() as connection:
        read = _sqlite_accesses if database.dialect == "sqlite" else _postgresql_accesses
        return {
            statement: read(connection, statement, parameters)
            for statement, parameters in seen.items()
        }


def _sqlite_accesses(connection: sa.Connection, statement: str, parameters: Any) -> list[str]:  # noqa: ANN401 - the driver's
    rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
    # An alias of jobs has its own name, and no other table has an index of jobs or a key of that kind.
    return [
        line
        for line in (str(row[-1]) for row in rows)
        if re.match(r"(SCAN|SEARCH) jobs(_\d+)?\b", line)
    ]


def _postgresql_accesses(connection: sa.Connection, statement: str, parameters: Any) -> list[str]:  # noqa: ANN401 - the driver's
    explained = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters)
    nodes = [explained.scalar_one()[0]["Plan"]]
    lines = []
    for node in nodes:
        nodes += node.get("Plans", ())
        kind, index = node["Node Type"], node.get("Index Name", "")
        about_jobs = node.get("Relation Name") == "jobs" or "_jobs" in index
        # A heap scan reads what its bitmap of an index names.
        if about_jobs and kind not in ("ModifyTable", "Bitmap Heap Scan"):
            condition = node.get("Index Cond", "")
            lines.append(
                f"{'SEARCH' if condition else 'SCAN'} jobs USING {kind} {index} {condition}"
            )
    return lines


def _is_bounded(access: str) -> bool:
    """Return whether an access reads live jobs or named ones."""
    if any(re.search(rf"\b{index}\b", access) for index in _LIVE):
        return True
    return access.startswith("SEARCH") and bool(
        re.search(r"\((id|group_id|rowid)=\?|\(\(?(id|group_id|jobs_1\.id|jobs\.id) = ", access)
    )


_MODULES = (claims, expiry, holds, settle, traces, turns)
#: Reads of one job, for people.
_OTHERS = {"image", "uptime", "read", "newest", "answer_tokens"}


def test_every_function_of_the_hot_path_is_tried() -> None:
    tried = inspect.getsource(
        inspect.getmodule(test_an_operation_reads_no_history) or ModuleType("")
    )
    for module in _MODULES:
        for name, function in inspect.getmembers(module, inspect.isfunction):
            takes = list(inspect.signature(function).parameters)
            if (
                name.startswith("_")
                or function.__module__ != module.__name__
                or takes[:1] != ["database"]
            ):
                continue
            if name not in _OTHERS and not (module is claims and name == "claim"):
                short = module.__name__.rpartition(".")[2]
                called = rf"\b(factories\.{name}|{short}\.{name})\("
                assert re.search(called, tried), f"{module.__name__}.{name} is not tried here"
