"""The queries that run all the time find their rows by an index, on both databases."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from core import errors, ids
from core.database import Database, utcnow
from core.settings import Settings
from jobs.lifecycle import Status
from jobs.phrases import Part
from jobs.records.accounts import StorageChange
from jobs.records.jobs import Job
from jobs.records.search import SearchText
from jobs.store import (
    admission,
    claims,
    expiry,
    history,
    idempotency,
    pauses,
    purge,
    retention,
    statistics,
    storage,
    submission,
)
from tests import factories
from tests.databases import PostgresSource, SqliteSource

JOBS = 6_000
#: Of 6,000 jobs that many wait, so that walking the whole queue is not cheap either.
QUEUED = 3_000


@dataclass(frozen=True)
class Crowd:
    """A database with a few thousand jobs."""

    database: Database
    account_id: uuid.UUID
    queued: list[uuid.UUID]
    held: list[tuple[uuid.UUID, int]]
    image_id: uuid.UUID


@pytest.fixture(scope="module", params=["sqlite", "sqlite with statistics", "postgresql"])
def crowd(request: pytest.FixtureRequest) -> Iterator[Crowd]:
    """Fill a database of its own, as a day of work would. SQLite gathers statistics when it is told to only."""
    if request.param != "postgresql":
        sqlite: SqliteSource = request.getfixturevalue("sqlite_source")
        url, drop = sqlite.create(), sqlite.drop
    else:
        source: PostgresSource = request.getfixturevalue("postgres_source")
        url, drop = source.clone(), source.drop_for_good
    database = Database(url)
    filled = fill(database)
    if request.param != "sqlite":
        with database.engine.connect() as connection:
            connection.exec_driver_sql("ANALYZE")
            connection.commit()
        database.engine.dispose()  # A connection reads the statistics when it is opened.
    yield filled
    database.close()
    drop(url)


def fill(database: Database) -> Crowd:
    """Put jobs in of several accounts, in every state."""
    rng = random.Random(1)
    account_ids = [factories.make_account(database) for _ in range(8)]
    now = utcnow()
    rows: list[dict[str, Any]] = []
    for number in range(JOBS):
        status = Status.QUEUED if number >= JOBS - QUEUED else rng.choice(list(Status)[1:])
        at = now - timedelta(seconds=JOBS - number)
        row = {
            "account_id": rng.choice(account_ids),
            "status": status,
            "metadata_": {"case": str(number)},
            "created_at": at,
            "not_before": at,
            "ordering_at": at - timedelta(minutes=rng.choice([0, 30, 60])),
            "started_at": None if status is Status.QUEUED else at,
            "finished_at": at if status.terminal else None,
            "lease_owner": "me" if status is Status.RUNNING else None,
            "lease_expires_at": now + timedelta(minutes=5) if status is Status.RUNNING else None,
            "deadline_at": now + timedelta(minutes=rng.choice([10, 60, 600])),
            "idempotency_key": f"key-{number}",
            "id": ids.new(),
        }
        # Half of them belong to groups of sixteen.
        if number % 32 < 16:
            row["group_id"] = rows[-1]["group_id"] if number % 16 else row["id"]
        else:
            row["group_id"] = None
        rows.append(row)
    rows = factories.job_rows(account_ids[0], rows)
    with database.transaction() as transaction:
        for start in range(0, JOBS, 500):
            transaction.execute(sa.insert(Job), rows[start : start + 500])
        factories.enter_turns(transaction, rows)
    texts = [
        {
            "job_id": row["id"],
            "account_id": row["account_id"],
            "part": Part.TRACE,
            "text": f"let me look at case {row['metadata_']['case']} , a long look",
        }
        for row in rows
    ]
    with database.transaction() as transaction:
        transaction.execute(sa.insert(SearchText), texts)
    for number in range(100):
        submitted = factories.make_image(str(number).encode())
        image_id = submission.store_image(database, account_id=account_ids[0], image=submitted)
    in_order = sorted(
        (row for row in rows if row["status"] is Status.QUEUED), key=lambda row: row["ordering_at"]
    )
    return Crowd(
        database=database,
        account_id=account_ids[0],
        queued=[row["id"] for row in in_order],
        held=[(row["id"], 0) for row in rows if row["status"] is Status.RUNNING][:64],
        image_id=image_id,
    )


def plans(crowd: Crowd, act: Callable[[], object]) -> str:
    """Return the plans of all statements that ``act`` runs, one after the other."""
    seen: list[tuple[str, Any]] = []

    def note(*event: Any) -> None:  # noqa: ANN401 - SQLAlchemy's own hook
        _, _, statement, parameters, _, many = event
        if not many:
            seen.append((statement, parameters))

    engine = crowd.database.engine
    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        act()
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)
    explain = "EXPLAIN QUERY PLAN " if crowd.database.dialect == "sqlite" else "EXPLAIN "
    lines: list[str] = []
    with engine.connect() as connection:
        if crowd.database.dialect == "postgresql":
            # The tables about images are small here, and small tables are read whole if that is allowed.
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        for statement, parameters in seen:
            if statement.startswith(("SELECT", "UPDATE", "DELETE", "WITH")):
                lines += [
                    str(row[-1])
                    for row in connection.exec_driver_sql(explain + statement, parameters)
                ]
    return "\n".join(lines)


def assert_no_scan(plan: str) -> None:
    """No table of jobs or images is read from one end to the other."""
    for table in (
        "jobs",
        "search_texts",
        "images",
        "job_images",
        "generations",
        "timeline",
        "attempts",
    ):
        assert f"Seq Scan on {table}" not in plan, plan
        for line in plan.splitlines():
            assert line.strip() != f"SCAN {table}", plan


def test_a_claim_walks_the_turns_and_the_queue_of_one_account(crowd: Crowd) -> None:
    plan = plans(
        crowd,
        lambda: claims.claim(crowd.database, owner="other", lease=factories.LEASE),
    )

    assert "ix_queue_turns_next" in plan, plan
    assert plan.count("ix_jobs_turn") == 2, plan
    assert "ix_jobs_claim" not in plan, plan
    assert "TEMP B-TREE" not in plan, plan
    assert "Sort" not in plan, plan
    assert_no_scan(plan)


def test_a_claim_walks_the_same_indexes_while_a_part_is_paused(crowd: Crowd) -> None:
    pauses.pause(
        crowd.database,
        account_id=crowd.account_id,
        priority=None,
        actor="operator:test",
        reason=None,
    )
    for act in (
        lambda: claims.claim(crowd.database, owner="paused", lease=factories.LEASE),
        lambda: expiry.due(crowd.database, limit=64),
    ):
        plan = plans(crowd, act)

        assert "ix_jobs_turn" in plan, plan
        assert "ix_jobs_claim" not in plan, plan
        assert "TEMP B-TREE" not in plan, plan
        assert "Sort" not in plan, plan
        assert_no_scan(plan)
    pauses.resume(crowd.database, account_id=crowd.account_id, priority=None, actor="operator:test")


def test_a_claim_without_a_turn_walks_the_claim_index(crowd: Crowd) -> None:
    def claim() -> None:
        with crowd.database.transaction() as transaction:
            assert claims.by_rank(transaction, "other", factories.LEASE) is not None

    plan = plans(crowd, claim)

    assert "ix_jobs_claim" in plan, plan
    assert "TEMP B-TREE" not in plan, plan
    assert "Sort" not in plan, plan
    assert_no_scan(plan)


def test_a_sweep_walks_the_indexes_of_leases_and_deadlines(crowd: Crowd) -> None:
    plan = plans(
        crowd,
        lambda: expiry.sweep(
            crowd.database, actor="sweeper:test", crash_limit=3, rng=random.Random(1)
        ),
    )

    assert "ix_jobs_lease" in plan, plan
    assert "ix_jobs_deadline" in plan, plan
    assert "TEMP B-TREE" not in plan, plan
    assert_no_scan(plan)


def test_the_leases_of_a_dead_worker_are_found_by_their_index(crowd: Crowd) -> None:
    plan = plans(
        crowd,
        lambda: expiry.end_leases(
            crowd.database,
            owner="nobody",
            actor="sweeper:test",
            crash_limit=3,
            rng=random.Random(1),
        ),
    )

    assert "ix_jobs_lease" in plan, plan
    assert_no_scan(plan)


def test_renewal_and_watch_look_at_running_jobs_only(crowd: Crowd) -> None:
    for act in (
        lambda: claims.renew(
            crowd.database, owner="me", held=crowd.held, lease=timedelta(minutes=5)
        ),
        lambda: claims.watch(crowd.database, owner="me", held=crowd.held),
    ):
        plan = plans(crowd, act)

        # By the few that run, or by the ids that are held.
        assert any(name in plan for name in ("ix_jobs_lease", "(id=?)", "pk_jobs")), plan
        assert_no_scan(plan)


@pytest.mark.parametrize("place", [10, 1_500, 2_900])
def test_a_place_in_the_queue_counts_only_what_is_ahead(crowd: Crowd, place: int) -> None:
    plan = plans(crowd, lambda: history.get(crowd.database, crowd.queued[place], account_id=None))

    # Once for the job's own account, once for all others.
    assert plan.count("ix_jobs_turn") == 2, plan
    assert "ix_jobs_claim" not in plan, plan
    assert "ix_jobs_finished" in plan, plan
    # These would read the whole queue.
    assert "ix_jobs_deadline" not in plan, plan
    assert "ix_jobs_status_id" not in plan, plan
    assert_no_scan(plan)


def test_an_operation_finds_its_jobs_by_indexes(crowd: Crowd) -> None:
    wanted = history.Filter(account_id=crowd.account_id, rerun="none")
    created = history.Filter(account_id=None, operation_id=ids.new())
    for act in (
        lambda: history.matching(
            crowd.database, wanted, after=crowd.queued[0], before=ids.new(), limit=500
        ),
        lambda: history.page(crowd.database, created, limit=20),
    ):
        plan = plans(crowd, act)

        assert "operation_jobs" in plan or "ix_jobs_rerun_of" in plan, plan
        assert_no_scan(plan)


def test_the_due_jobs_are_counted_by_an_index(crowd: Crowd) -> None:
    plan = plans(crowd, lambda: expiry.due(crowd.database, limit=64))

    assert "ix_jobs_" in plan, plan
    assert_no_scan(plan)


def test_the_statistics_of_the_queue_use_indexes(crowd: Crowd) -> None:
    for account_id in (None, crowd.account_id):
        plan = plans(
            crowd,
            lambda account_id=account_id: statistics.queue(crowd.database, account_id=account_id),  # type: ignore[misc] # bound now
        )

        assert "ix_jobs_ended" in plan, plan
        assert_counts_by_index(crowd, plan)
        assert_no_scan(plan)
    plan = plans(crowd, lambda: statistics.waiting(crowd.database))
    assert_counts_by_index(crowd, plan)
    assert_no_scan(plan)


def assert_counts_by_index(crowd: Crowd, plan: str) -> None:
    """SQLite counts the queue by an index alone and sorts nothing. PostgreSQL decides by what a vacuum has seen."""
    if crowd.database.dialect == "sqlite":
        assert "USING COVERING INDEX ix_jobs_queued_status" in plan, plan
        assert "ix_jobs_deadline" not in plan, plan
        # Only the counts of accounts are sorted, to add up those of a priority.
        assert "TEMP B-TREE" not in plan or "CO-ROUTINE" in plan, plan


@pytest.mark.parametrize("statuses", [(), (Status.FAILED,)])
def test_a_page_of_an_account_is_read_in_order(crowd: Crowd, statuses: tuple[Status, ...]) -> None:
    filters = history.Filter(account_id=crowd.account_id, statuses=statuses)
    plan = plans(
        crowd,
        lambda: history.page(crowd.database, filters, limit=20, after=crowd.queued[-1]),
    )

    # An account with a good part of all jobs may as well be read off the primary key.
    expected = ("ix_jobs_account_id", "pk_jobs")
    assert any(name in plan for name in expected), plan
    assert_no_scan(plan)


def test_an_image_is_found_by_its_hash_in_one_account_and_in_all(crowd: Crowd) -> None:
    sha256 = factories.make_image(b"7").original.sha256
    for account_id in (crowd.account_id, None):
        filters = history.Filter(account_id=account_id, image_sha256=sha256)
        plan = plans(crowd, lambda filters=filters: history.page(crowd.database, filters, limit=5))  # type: ignore[misc] # bound now

        assert_no_scan(plan)


def test_a_group_and_its_followers_are_found_by_their_leader(crowd: Crowd) -> None:
    leader = crowd.queued[0]
    for act in (
        lambda: history.group(crowd.database, leader, account_id=None),
        lambda: history.page(
            crowd.database, history.Filter(account_id=None, group_id=leader), limit=5
        ),
    ):
        plan = plans(crowd, act)

        assert "ix_jobs_group" in plan, plan
        assert_no_scan(plan)


def test_what_went_wrong_is_found_by_an_index(crowd: Crowd) -> None:
    filters = history.Filter(account_id=None, error_codes=["engine_fault", "worker_lost"])
    plan = plans(crowd, lambda: history.page(crowd.database, filters, limit=5))

    assert "ix_jobs_error" in plan, plan
    assert_no_scan(plan)


@pytest.mark.parametrize("phrase", ["case 4711", "a long look"], ids=["rare", "frequent"])
@pytest.mark.parametrize("whose", ["one", "all"])
def test_a_phrase_is_found_by_the_index_of_words_and_tried_on_few_texts(
    crowd: Crowd, phrase: str, whose: str
) -> None:
    account_id = crowd.account_id if whose == "one" else None
    requested = history.Filter(account_id=account_id, phrases=(phrase,))
    plan = plans(
        crowd,
        lambda: history.page(crowd.database, requested, limit=20, after=crowd.queued[-1]),
    )

    index = "VIRTUAL TABLE INDEX" if crowd.database.dialect == "sqlite" else "ix_search_texts_words"
    assert index in plan, plan
    assert_no_scan(plan)


def test_an_idempotency_key_is_found_by_its_index(crowd: Crowd) -> None:
    plan = plans(
        crowd,
        lambda: idempotency.replay(
            crowd.database,
            account_id=crowd.account_id,
            key="unknown",
            fingerprint="f",
            stored=timedelta(hours=24),
        ),
    )

    assert_no_scan(plan)


def test_a_removal_finds_jobs_images_and_traces_by_their_keys(crowd: Crowd) -> None:
    for act in (
        lambda: retention.remove_image(crowd.database, crowd.image_id, account_id=crowd.account_id),
        lambda: retention.remove_image(crowd.database, ids.new(), account_id=crowd.account_id),
        lambda: history.attempts(crowd.database, crowd.queued[0]),
    ):
        assert_no_scan(plans(crowd, act))


def test_a_purge_finds_what_is_due_by_an_index_of_each_class(crowd: Crowd) -> None:
    old = timedelta(minutes=30)
    periods = purge.Periods(image=old, trace=old, answer=old, timeline=old)
    purged = []
    plan = plans(
        crowd, lambda: purged.append(purge.batch(crowd.database, periods, actor="me", limit=5))
    )

    assert purged == [purge.Purged(traces=5, answers=5, timelines=5, more=True)]
    for name in ("images", "trace", "answer", "timeline"):
        assert f"ix_jobs_{name}_stored" in plan, plan
    assert "ix_images_uploaded" in plan, plan
    assert_no_scan(plan)


def test_what_an_account_stores_is_read_and_counted_by_indexes(crowd: Crowd) -> None:
    assert_no_scan(plans(crowd, lambda: storage.fold(crowd.database)))
    changes = [{"account_id": crowd.account_id, "kind": "images", "bytes": 1} for _ in range(2_000)]
    with crowd.database.transaction() as transaction:
        transaction.execute(sa.insert(StorageChange), changes)

    read = plans(crowd, lambda: storage.usage(crowd.database, crowd.account_id, default_mb=1))
    folded = plans(crowd, lambda: storage.fold(crowd.database))
    counted = plans(crowd, lambda: storage.recount(crowd.database, crowd.account_id))

    assert "ix_storage_changes_account_id_kind_bytes" in read, read
    for plan in (read, folded):
        assert "Seq Scan on storage_changes" not in plan, plan
        # In the order of its key, without sorting what is to be folded.
        assert "SCAN storage_changes USING" not in plan, plan
    assert "TEMP B-TREE FOR ORDER BY" not in folded, folded
    assert "Sort" not in folded, folded
    assert_no_scan(counted)


def test_queued_jobs_are_counted_by_an_index_and_no_further_than_their_cap(crowd: Crowd) -> None:
    settings = Settings.read({}, queued_jobs_total=10_000, queued_jobs_per_account=100)
    here = admission.Admission(crowd.database, settings)

    def refused() -> None:
        with pytest.raises(errors.QueueFull):
            here.check(crowd.account_id)

    plan = plans(crowd, refused)

    assert "ix_jobs_" in plan, plan
    assert_no_scan(plan)
