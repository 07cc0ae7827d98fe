"""The queue's caps as the store counts them, and the disk."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from core import errors
from core.database import Database
from core.database_faults import DiskFull
from core.settings import Settings
from jobs.records.jobs import Job
from jobs.store import admission
from tests import factories
from tests.fakes import HandTimer

Open = Callable[..., admission.Admission]


@pytest.fixture
def timer() -> HandTimer:
    return HandTimer()


@pytest.fixture
def router(database: Database, timer: HandTimer) -> Open:
    """Return what makes the admission of an API process."""

    def made(**caps: int) -> admission.Admission:
        settings = Settings.read({}, **caps)
        return admission.Admission(database, settings, timer=timer)

    return made


def statements(database: Database, act: Callable[[], object]) -> int:
    """Return how many statements ``act`` sends."""
    seen: list[Any] = []
    sa.event.listen(database.engine, "before_cursor_execute", lambda *event: seen.append(event[2]))
    act()
    return len(seen)


def take(database: Database, at: admission.Admission, account_id: uuid.UUID) -> None:
    """Take a job in, as a door does."""
    at.check(account_id)
    factories.make_job(database, account_id)
    at.took(account_id)


def test_only_queued_jobs_count(database: Database, account_id: uuid.UUID, router: Open) -> None:
    for _ in range(3):
        factories.make_job(database, account_id)
    factories.claim(database)

    router(queued_jobs_per_account=3).check(account_id)
    with pytest.raises(errors.QueueFull, match="account's queue is full: it has 2 jobs"):
        router(queued_jobs_per_account=2).check(account_id)
    with pytest.raises(errors.QueueFull, match="The queue is full: it has 2 jobs"):
        router(queued_jobs_total=2).check(account_id)


def test_within_a_second_a_process_counts_without_the_database(
    database: Database, account_id: uuid.UUID, router: Open
) -> None:
    here = router(queued_jobs_total=3)
    for _ in range(3):
        take(database, here, account_id)

    def refused() -> None:
        with pytest.raises(errors.QueueFull):
            here.check(account_id)

    assert statements(database, refused) == 0


def test_what_others_take_in_is_seen_a_second_later(
    database: Database, account_id: uuid.UUID, router: Open, timer: HandTimer
) -> None:
    here, there = router(queued_jobs_total=3), router(queued_jobs_total=3)
    here.check(account_id)
    for _ in range(3):
        take(database, there, account_id)
    here.check(account_id)

    timer.seconds += 1

    with pytest.raises(errors.QueueFull):
        here.check(account_id)


def test_accounts_are_counted_only_when_one_could_be_full(
    database: Database, account_id: uuid.UUID, router: Open
) -> None:
    factories.make_job(database, account_id)

    assert statements(database, lambda: router(queued_jobs_per_account=2).check(account_id)) <= 2
    few = router(queued_jobs_per_account=1)
    few.check(factories.make_account(database))
    with pytest.raises(errors.QueueFull):
        few.check(account_id)


def test_a_count_that_takes_long_is_repeated_less_often(
    database: Database, account_id: uuid.UUID, timer: HandTimer
) -> None:
    def slow() -> float:
        timer.seconds += 1  # Each look at the clock takes a second, so each count does.
        return timer.seconds

    here = admission.Admission(database, Settings.read({}, queued_jobs_total=1), timer=slow)
    here.check(account_id)
    factories.make_job(database, account_id)
    timer.seconds += 15
    here.check(account_id)

    timer.seconds += 5

    with pytest.raises(errors.QueueFull):
        here.check(account_id)


def test_a_database_that_does_not_answer_admits_no_job(account_id: uuid.UUID) -> None:
    away = Database("sqlite:////no/such/folder/longlook.db")

    with pytest.raises(errors.Unavailable):
        admission.Admission(away, Settings.read({})).check(account_id)
    away.close()


def test_the_disk_matters_only_to_sqlite_and_is_looked_at_once_a_second(
    database: Database, timer: HandTimer
) -> None:
    wide = admission.Disk(database, floor_mb=0, timer=timer)
    assert wide.has_room
    wide.check()

    narrow = admission.Disk(database, floor_mb=2**40, timer=timer)

    if database.dialect == "postgresql":
        assert narrow.has_room
        return
    assert not narrow.has_room
    with pytest.raises(DiskFull, match="too little free disk space"):
        narrow.check()


def test_the_disk_is_the_one_of_the_database_wherever_that_will_be() -> None:
    nowhere = Database("sqlite:////no/such/folder/longlook.db")

    assert admission.Disk(nowhere, floor_mb=0).has_room
    assert not admission.Disk(nowhere, floor_mb=2**40).has_room
    nowhere.close()


def test_a_full_disk_of_the_database_is_reported_and_nothing_is_stored(
    database: Database, account_id: uuid.UUID
) -> None:
    if database.dialect == "postgresql":
        # The error that PostgreSQL raises when its disk is full, at the same place.
        statements_ = [
            """CREATE FUNCTION disk_full() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$""",
            """CREATE TRIGGER disk_full BEFORE INSERT ON image_bytes
            FOR EACH ROW EXECUTE FUNCTION disk_full()""",
        ]
        undo = ["DROP TRIGGER disk_full ON image_bytes", "DROP FUNCTION disk_full"]
    else:
        with database.reading() as transaction:
            pages = transaction.session.scalar(sa.text("PRAGMA page_count"))
        # Of this connection, which is given out next.
        statements_, undo = [f"PRAGMA max_page_count={pages + 1}"], []
    run(database, statements_)

    image = factories.make_image(data=bytes(2**20))
    with pytest.raises(DiskFull) as full:
        factories.make_job(database, account_id, images=[(image, 4)])

    run(database, undo)
    assert (full.value.code, full.value.status, full.value.retryable) == (
        "insufficient_storage",
        503,
        True,
    )
    with database.reading() as transaction:
        assert transaction.session.scalar(sa.select(sa.func.count()).select_from(Job)) == 0


def run(database: Database, statements_: list[str]) -> None:
    """Run statements as they are."""
    with database.engine.begin() as connection:
        for statement in statements_:
            connection.exec_driver_sql(statement)
