"""``Prefer: wait``: an answer that is held back until the job has finished."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from api.app import service_of
from api.framework import Router
from api.serving import current
from api.streams.waits import Waits
from core import ids
from core.database import Database
from core.shares import Shares
from jobs.store import history
from tests import factories
from tests.api import wire, worker
from tests.api.conftest import Caller

#: Of those who wait.
ACCOUNT = uuid.UUID(int=0)


class Patient(Waits):
    """Waits that signal the start of a wait."""

    def __init__(self, database: Database, *, permits: int) -> None:
        super().__init__(database, shares=Shares(permits, name="waits"), check_seconds=0.01)
        self.begun = threading.Semaphore(0)

    def _enter(self, job_id: uuid.UUID, finished: threading.Event) -> None:
        super()._enter(job_id, finished)
        self.begun.release()


@pytest.fixture
def job_id(database: Database) -> uuid.UUID:
    return factories.make_job(database, factories.make_account(database))


def test_waits_for_one_or_several_jobs_end_when_their_job_has_finished(
    database: Database, job_id: uuid.UUID
) -> None:
    waits = Patient(database, permits=3)
    with ThreadPoolExecutor(3) as pool:
        both = [pool.submit(waits.wait, job_id, account_id=ACCOUNT, seconds=60) for _ in range(2)]
        for _ in both:
            assert waits.begun.acquire(timeout=30)
        worker.finish(database)
        assert [wait.result(30) for wait in both] == [True, True]
        second = factories.make_job(database, factories.make_account(database))
        again = pool.submit(waits.wait, second, account_id=ACCOUNT, seconds=60)
        assert waits.begun.acquire(timeout=30)
        worker.finish(database)
        assert again.result(30) is True
    waits.close()


def test_the_wait_ends_when_its_time_is_over(database: Database, job_id: uuid.UUID) -> None:
    waits = Waits(database, shares=Shares(1, name="waits"))
    assert waits.wait(job_id, account_id=ACCOUNT, seconds=0.01) is True
    assert history.status(database, [job_id])[job_id] == "queued"
    waits.close()


def test_one_more_than_there_are_permits_does_not_wait(
    database: Database, job_id: uuid.UUID
) -> None:
    waits = Patient(database, permits=1)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(waits.wait, job_id, account_id=ACCOUNT, seconds=60)
        assert waits.begun.acquire(timeout=30)
        assert waits.wait(job_id, account_id=ACCOUNT, seconds=60) is False
        waits.close()
        assert first.result(30) is True
    assert (
        Waits(database, shares=Shares(0, name="waits")).wait(job_id, account_id=ACCOUNT, seconds=60)
        is False
    )


def test_waits_of_one_account_leave_permits_to_another_and_give_theirs_back(
    database: Database, job_id: uuid.UUID
) -> None:
    waits = Patient(database, permits=4)
    other = uuid.UUID(int=1)
    with ThreadPoolExecutor(4) as pool:
        held = [pool.submit(waits.wait, job_id, account_id=ACCOUNT, seconds=60) for _ in range(3)]
        for _ in held:
            assert waits.begun.acquire(timeout=30)
        assert waits.wait(job_id, account_id=ACCOUNT, seconds=60) is False
        held.append(pool.submit(waits.wait, job_id, account_id=other, seconds=60))
        assert waits.begun.acquire(timeout=30)
        worker.finish(database)
        assert [wait.result(30) for wait in held] == [True] * 4
    assert waits.wait(job_id, account_id=ACCOUNT, seconds=0.01) is True
    waits.close()


def test_a_closed_service_ends_all_waits(database: Database, job_id: uuid.UUID) -> None:
    waits = Waits(database, shares=Shares(1, name="waits"))
    waits.close()
    assert waits.wait(job_id, account_id=ACCOUNT, seconds=60) is True


def test_a_disconnect_ends_the_wait(database: Database, job_id: uuid.UUID) -> None:
    waits = Waits(database, shares=Shares(1, name="waits"))
    request = wire.Held()
    request.hang_up()
    with current.running(request):
        assert waits.wait(job_id, account_id=ACCOUNT, seconds=3600) is True
    assert waits.open == 0
    waits.close()


def test_a_submitted_job_that_finishes_in_time_is_answered_with_200(
    caller: Caller, database: Database
) -> None:
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(caller.submit, headers={"Prefer": "respond-async, wait=60"})
        while not caller("GET", "/v1/jobs").get_json()["data"]:
            assert not answer.done()
        worker.finish(database)
        held = answer.result(60)
    assert held.status_code == 200
    assert held.get_json()["status"] == "succeeded"
    assert held.headers["Preference-Applied"] == "wait=55"
    assert held.headers["Location"] == held.get_json()["urls"]["self"]
    again = caller("GET", held.headers["Location"], headers={"Prefer": "wait=60"})
    assert again.get_json()["status"] == "succeeded"


def test_a_job_that_does_not_finish_in_time_is_answered_with_202(caller: Caller) -> None:
    answer = caller.submit(headers={"Prefer": "wait=1"})
    assert answer.status_code == 202
    assert answer.headers["Preference-Applied"] == "wait=1"


@pytest.mark.parametrize("prefer", ["wait=0", "wait", "wait=x", "wait=-1", "handling=lenient"])
def test_a_preference_that_is_not_understood_is_ignored(caller: Caller, prefer: str) -> None:
    answer = caller.submit(headers={"Prefer": prefer})
    assert answer.status_code == 202
    assert "Preference-Applied" not in answer.headers


def test_a_draining_service_lets_all_go_who_wait(app: Router, caller: Caller) -> None:
    service_of(app).drain()
    job = caller.submit(headers={"Prefer": "wait=60"})
    assert job.status_code == 202
    shown = caller("GET", job.headers["Location"], headers={"Prefer": "wait=60"})
    assert ids.parse("job", shown.get_json()["id"]) is not None
