"""The sweeper purges old data by the retention periods."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from datetime import timedelta

import pytest
import sqlalchemy as sa

from core.database import Database, utcnow
from jobs.lifecycle import Status
from jobs.records.jobs import Job
from jobs.records.timeline import TimelineEntry
from jobs.store import purge
from tests import factories
from tests.databases import Clock
from tests.fakes import RecordingWakeup
from worker.sweeper import Sweeper

DAY = timedelta(days=1)
JOBS = 120


def sweeper(database: Database, periods: purge.Periods, *, every: float = 10) -> Sweeper:
    return Sweeper(
        database,
        wakeup=RecordingWakeup(lying=None),
        owner="me",
        lease=timedelta(seconds=60),
        interval_seconds=every,
        alive=timedelta(seconds=30),
        crash_limit=3,
        rng=random.Random(1),
        periods=periods,
    )


@pytest.fixture
def account_id(database: Database) -> uuid.UUID:
    return factories.make_account(database)


def end_jobs(database: Database, account_id: uuid.UUID, *, age: timedelta, count: int) -> None:
    """Put jobs in that ended some time ago."""
    at = utcnow() - age
    row = {"status": Status.SUCCEEDED, "started_at": at, "finished_at": at, "answer_text": "6"}
    factories.insert_jobs(database, account_id, [row] * count)


def left(database: Database) -> int:
    """Return how many answers there are."""
    with database.reading() as transaction:
        answers = sa.select(sa.func.count()).where(Job.answer_text.is_not(None))
        return transaction.session.scalar(answers) or 0


def test_the_thread_purges_in_batches_until_nothing_is_left(
    database: Database, account_id: uuid.UUID, wait_for: Callable[[Callable[[], bool]], bool]
) -> None:
    end_jobs(database, account_id, age=2 * DAY, count=JOBS)
    end_jobs(database, account_id, age=DAY / 2, count=1)
    running = sweeper(database, purge.Periods(answer=DAY), every=0.01)

    running.start()
    try:
        assert wait_for(lambda: left(database) == 1)
    finally:
        running.stop()

    with database.reading() as transaction:
        actors = transaction.session.scalars(sa.select(TimelineEntry.actor)).all()
    assert actors == ["sweeper:me"] * JOBS


def test_the_next_purge_is_a_minute_after_nothing_was_left(
    database: Database, account_id: uuid.UUID, clock: Clock
) -> None:
    running = sweeper(database, purge.Periods(answer=DAY))
    running.purge()
    end_jobs(database, account_id, age=2 * DAY, count=1)
    clock.advance(55)
    running.purge()
    assert left(database) == 1

    clock.advance(6)
    running.purge()

    assert left(database) == 0


def test_without_periods_nothing_is_purged(database: Database, account_id: uuid.UUID) -> None:
    end_jobs(database, account_id, age=1000 * DAY, count=1)

    sweeper(database, purge.NO_RETENTION).purge()

    assert left(database) == 1
