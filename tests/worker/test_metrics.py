"""What a worker counts: each job once, when its end is committed; and the page on which Prometheus reads it."""

from __future__ import annotations

import random
import threading
import urllib.request
import uuid
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry

from core.database import Database
from core.exporter import Exporter
from core.metrics import new_registry
from jobs import metrics
from jobs.answers import votes
from jobs.answers.extraction import Answer
from jobs.lifecycle import Priority
from jobs.store import commands, expiry, settle
from tests import factories
from tests.e2e.stack import free_port

FAULT = settle.Failure("engine_fault", "It failed.", retryable=True)


@pytest.fixture
def registry(database: Database) -> CollectorRegistry:
    registry = new_registry()
    metrics.JobMetrics(database, registry=registry, model="tiny-qvq")
    return registry


@pytest.fixture
def account_id(database: Database) -> uuid.UUID:
    return factories.make_account(database)


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"longlook_{name}", labels)


def test_a_job_that_ran_is_counted_with_its_times_and_tokens(
    database: Database, registry: CollectorRegistry, account_id: uuid.UUID
) -> None:
    factories.make_job(database, account_id, priority=Priority.HIGH)
    claimed = factories.claim(database)
    started_at = factories.begin(database, claimed)
    assert started_at is not None
    ended = factories.make_ended(
        first_token_at=started_at + timedelta(seconds=3),
        ended_at=started_at + timedelta(seconds=4),
    )
    settle.succeed(database, claimed, answer=Answer("6", "boxed"), generation=ended)
    settle.succeed(database, claimed, answer=Answer("7", "boxed"), generation=ended)

    assert value(registry, "jobs_submitted_total", priority="high") == 1
    assert value(registry, "job_queue_seconds_count", priority="high") == 1
    assert (
        value(registry, "jobs_finished_total", priority="high", outcome="succeeded", error_code="")
        == 1
    )
    assert value(registry, "job_run_seconds_count", model="tiny-qvq", outcome="succeeded") == 1
    assert value(registry, "job_total_seconds_count", outcome="succeeded") == 1
    assert value(registry, "job_attempts_total", outcome="succeeded") == 1
    assert value(registry, "time_to_first_token_seconds_sum", model="tiny-qvq") == pytest.approx(3)
    assert value(registry, "time_per_output_token_seconds_sum", model="tiny-qvq") == pytest.approx(
        0.1
    )
    assert [
        value(registry, "tokens_total", model="tiny-qvq", kind=kind) for kind in ("input", "output")
    ] == [50, 11]


def test_the_samples_of_a_vote_are_counted_by_their_outcome(
    database: Database, registry: CollectorRegistry, account_id: uuid.UUID
) -> None:
    factories.make_job(database, account_id)
    claimed = factories.claim(database)
    factories.begin(database, claimed)
    agreed = (votes.AnswerClass("6", (0, 1, 3)),)
    tally = votes.Tally(
        requested=8, begun=5, classes=agreed, abstained=(), generations={0: 0, 1: 1, 3: 3}
    )

    settle.succeed(
        database,
        claimed,
        answer=Answer("6", "boxed"),
        generation=factories.make_ended(),
        tally=tally,
    )

    results = ("counted", "unneeded", "spared")
    assert [value(registry, "vote_samples_total", result=one) for one in results] == [3, 2, 3]


def test_attempts_are_counted_by_how_they_ended_and_a_job_once(
    database: Database, registry: CollectorRegistry, account_id: uuid.UUID
) -> None:
    factories.make_job(database, account_id)
    settle.release(database, factories.claim(database), generation=None)
    factories.claim(database, lease=timedelta(seconds=-1))
    expiry.sweep(database, actor="sweeper:test", crash_limit=1, rng=random.Random(1))

    assert value(registry, "job_attempts_total", outcome="released") == 1
    assert value(registry, "job_attempts_total", outcome="lost") == 1
    assert value(registry, "leases_expired_total") == 1
    assert value(registry, "job_queue_seconds_count", priority="normal") == 1
    failed = {"priority": "normal", "outcome": "failed", "error_code": "worker_lost"}
    assert value(registry, "jobs_finished_total", **failed) == 1


def test_a_cancel_of_a_queued_job_is_an_end_but_no_attempt(
    database: Database, registry: CollectorRegistry, account_id: uuid.UUID
) -> None:
    job_id = factories.make_job(database, account_id)
    commands.cancel(database, job_id, account_id=None, actor="key:test")
    commands.cancel(database, job_id, account_id=None, actor="key:test")

    assert (
        value(
            registry, "jobs_finished_total", priority="normal", outcome="cancelled", error_code=""
        )
        == 1
    )
    assert value(registry, "job_attempts_total", outcome="cancelled") is None


def test_an_unlisted_code_is_counted_as_other(
    database: Database, registry: CollectorRegistry, account_id: uuid.UUID
) -> None:
    factories.make_job(database, account_id)
    settle.fail(
        database, factories.claim(database), settle.Failure("novel", "New."), generation=None
    )

    assert (
        value(
            registry, "jobs_finished_total", priority="normal", outcome="failed", error_code="other"
        )
        == 1
    )


def test_a_rolled_back_change_is_not_counted(database: Database) -> None:
    woken: list[object] = []
    database.listen(woken.append)

    def note(text: str, divisor: int) -> float:
        with database.transaction() as transaction:
            transaction.notes.append(text)
            return 1 / divisor

    with pytest.raises(ZeroDivisionError):
        note("one", 0)
    note("two", 1)

    assert woken == ["two"]


def test_the_page_is_served_until_the_worker_stops(registry: CollectorRegistry) -> None:
    port = free_port()
    exporter = Exporter(registry, host="127.0.0.1", port=port)
    exporter.start()
    try:
        # A second worker with the same port does without.
        second = Exporter(registry, host="127.0.0.1", port=port)
        second.start()
        second.stop()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            page = answer.read().decode()
    finally:
        exporter.stop()

    assert "longlook_build_info{" in page
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10)


def test_without_a_port_nothing_is_served(registry: CollectorRegistry) -> None:
    exporter = Exporter(registry, host="127.0.0.1", port=0)
    before = set(threading.enumerate())
    exporter.start()

    started = set(threading.enumerate()) - before
    assert not [thread for thread in started if "serve_forever" in thread.name]
