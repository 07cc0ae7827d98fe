"""A job that waits is let go at once, and the timeline tells by whom."""

from __future__ import annotations

import random
import uuid

from core.database import Database
from jobs.lifecycle import Status
from jobs.store import claims, commands, settle, timeline
from tests import factories

FAULT = settle.Failure("engine_fault", "It failed.", retryable=True)


def waiting_job(database: Database, account_id: uuid.UUID) -> uuid.UUID:
    """Return a job that waits for its second try."""
    job_id = factories.make_job(database, account_id)
    settle.retry(database, factories.claim(database), FAULT, generation=None, rng=random.Random(1))
    factories.postpone(database)
    assert claims.claim(database, owner="early", lease=factories.LEASE) is None
    return job_id


def run_now(database: Database, job_id: uuid.UUID) -> Status | None:
    return commands.run_now(database, job_id, account_id=None, actor="key:test")


def test_a_waiting_job_can_be_claimed_at_once(database: Database, account_id: uuid.UUID) -> None:
    job_id = waiting_job(database, account_id)

    assert run_now(database, job_id) is Status.QUEUED

    entry = timeline.read(database, job_id, limit=100)[0][-1]
    reported = factories.get_job(database, job_id).job.not_before.isoformat(timespec="microseconds")
    assert (entry.action, entry.actor, entry.changes) == (
        "run_now",
        "key:test",
        {"not_before": reported},
    )
    assert factories.claim(database).job_id == job_id


def test_a_job_that_is_due_keeps_its_age(database: Database, account_id: uuid.UUID) -> None:
    job_id = factories.make_job(database, account_id)
    before = factories.get_job(database, job_id).job.not_before

    assert run_now(database, job_id) is Status.QUEUED

    assert factories.get_job(database, job_id).job.not_before == before
    assert [entry.action for entry in timeline.read(database, job_id, limit=100)[0]] == [
        "submitted"
    ]


def test_a_job_that_does_not_wait_stays_as_it_is(database: Database, account_id: uuid.UUID) -> None:
    job_id = factories.make_job(database, account_id)
    claimed = factories.claim(database)
    assert run_now(database, job_id) is Status.RUNNING
    settle.fail(database, claimed, FAULT, generation=None)
    assert run_now(database, job_id) is Status.FAILED


def test_a_job_of_another_account_is_none(database: Database, account_id: uuid.UUID) -> None:
    job_id = waiting_job(database, account_id)
    other = factories.make_account(database)

    assert commands.run_now(database, job_id, account_id=other, actor="key:test") is None
    assert claims.claim(database, owner="early", lease=factories.LEASE) is None


def test_a_timeline_is_read_in_pages(database: Database, account_id: uuid.UUID) -> None:
    job_id = waiting_job(database, account_id)
    factories.make_job(database, account_id)
    run_now(database, job_id)

    first, more = timeline.read(database, job_id, limit=3)
    rest, end = timeline.read(database, job_id, limit=3, after=first[-1].id)

    assert [entry.action for entry in (*first, *rest)] == [
        "submitted",
        "claimed",
        "retried",
        "run_now",
    ]
    assert (more, end) == (True, False)
