"""Jobs whose clients wait on open connections, on both databases."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
import sqlalchemy as sa

from core.database import Database
from jobs.lifecycle import Status
from jobs.records.jobs import HeldJob
from jobs.records.timeline import TimelineEntry
from jobs.store import history, holds
from tests import factories
from tests.databases import Age

ACTOR = "sweeper:test"
#: Seconds after which a hold has lapsed.
PASSED = holds.LEASE.total_seconds() + 1


@pytest.fixture
def job_id(database: Database) -> uuid.UUID:
    return factories.make_job(database, factories.make_account(database), held=True)


def held(database: Database) -> set[uuid.UUID]:
    with database.reading() as transaction:
        return set(transaction.execute(sa.select(HeldJob.job_id)).scalars())


def status(database: Database, job_id: uuid.UUID) -> Status:
    return history.status(database, [job_id])[job_id]


def test_only_a_job_that_is_submitted_so_is_held(database: Database, job_id: uuid.UUID) -> None:
    factories.make_job(database, factories.make_account(database))
    assert held(database) == {job_id}
    assert holds.lapse(database, actor=ACTOR) == 0
    assert status(database, job_id) is Status.QUEUED


def test_the_job_of_a_hold_that_lapsed_is_cancelled_once(
    database: Database, job_id: uuid.UUID, age: Age
) -> None:
    age(PASSED)
    assert holds.lapse(database, actor=ACTOR) == 1
    assert holds.lapse(database, actor=ACTOR) == 0
    assert status(database, job_id) is Status.CANCELLED
    assert held(database) == set()
    with database.reading() as transaction:
        actors = set(transaction.execute(sa.select(TimelineEntry.actor)).scalars())
    assert ACTOR in actors


def test_the_worker_of_a_running_job_is_asked_to_stop(
    database: Database, job_id: uuid.UUID, age: Age
) -> None:
    claimed = factories.claim(database, lease=timedelta(days=1))
    age(PASSED)
    assert holds.lapse(database, actor=ACTOR) == 1
    view = factories.get_job(database, claimed.job_id)
    assert view.job.id == job_id
    assert view.job.cancel_requested_at is not None


def test_a_renewed_hold_does_not_lapse(database: Database, job_id: uuid.UUID, age: Age) -> None:
    age(PASSED)
    holds.renew(database, [job_id])
    assert holds.lapse(database, actor=ACTOR) == 0
    assert held(database) == {job_id}


def test_a_job_whose_hold_has_ended_is_left_alone(
    database: Database, job_id: uuid.UUID, age: Age
) -> None:
    holds.end(database, job_id)
    age(PASSED)
    holds.renew(database, [job_id])
    assert holds.lapse(database, actor=ACTOR) == 0
    assert status(database, job_id) is Status.QUEUED
