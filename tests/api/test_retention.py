"""What callers see of a job whose data retention has taken away."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest

from core import ids
from core.database import Database
from jobs.store import purge
from tests import webhooks
from tests.api import worker
from tests.api.conftest import Caller, Json
from tests.databases import Clock

PERIODS = {name: timedelta(days=30) for name in ("image", "trace", "answer", "timeline")}


def purged(
    caller: Caller, database: Database, clock: Clock, *classes: str
) -> tuple[Json, Json, Json]:
    """Return a job, its trace and its timeline after ``classes`` were taken away."""
    job = caller.job(metadata={"case": "42"})
    worker.finish(database)
    clock.advance(31 * 86_400)
    periods = purge.Periods(**{name: PERIODS[name] for name in classes})
    purge.batch(database, periods, actor="sweeper:test")
    return (
        caller("GET", job["urls"]["self"]).get_json(),
        caller("GET", job["urls"]["trace"]).get_json(),
        caller("GET", job["urls"]["timeline"]).get_json(),
    )


def test_of_a_job_that_is_not_old_nothing_is_removed(caller: Caller) -> None:
    job = caller.job()

    assert (job["data_removed"], job["removed"]) == (False, [])


@pytest.mark.parametrize("name", sorted(PERIODS))
def test_each_class_that_is_gone_is_named(
    caller: Caller, database: Database, clock: Clock, name: str
) -> None:
    job, trace, timeline = purged(caller, database, clock, name)

    assert job["removed"] == [name]
    assert job["data_removed"] is (name == "answer")
    assert trace["data_removed"] is (name == "trace")
    assert (job["question"] is None) is (job["answer"] is None) is (name == "answer")
    assert (trace["generations"][0]["text"] == "") is (name == "trace")
    assert (len(timeline["data"]) == 1) is (name == "timeline")
    image = caller("GET", f"/v1/images/{job['images'][0]['id']}")
    assert image.status_code == (404 if name == "image" else 200)


def test_what_a_job_was_and_what_it_cost_stays(
    caller: Caller, database: Database, clock: Clock
) -> None:
    job, trace, timeline = purged(caller, database, clock, *PERIODS)

    assert job["removed"] == ["image", "trace", "answer", "timeline"]
    assert (job["status"], job["attempt"], job["metadata"]) == ("succeeded", 1, {})
    assert job["usage"]["output_tokens"] == 11
    assert job["images"][0]["sha256"]
    assert trace["generations"][0]["usage"]["output_tokens"] == 11
    assert timeline["data"][0]["changes"]["status"] == "succeeded"
    attempts = caller("GET", job["urls"]["attempts"]).get_json()["data"]
    assert (attempts[0]["outcome"], attempts[0]["prompt"]) == ("succeeded", None)


@pytest.mark.parametrize("name", ["image", "answer"])
def test_a_job_whose_input_is_gone_cannot_be_run_again(
    caller: Caller, database: Database, clock: Clock, name: str
) -> None:
    job, _, _ = purged(caller, database, clock, name)

    answer = caller("POST", job["urls"]["rerun"])

    assert answer.status_code == 409
    assert answer.get_json()["detail"] == "The input of this job was removed."


def test_a_job_whose_trace_is_gone_can_be_run_again(
    caller: Caller, database: Database, clock: Clock
) -> None:
    job, _, _ = purged(caller, database, clock, "trace", "timeline")

    assert caller("POST", job["urls"]["rerun"]).status_code == 202


def test_a_deleted_jobs_answer_is_gone_from_its_notifications(
    caller: Caller, database: Database
) -> None:
    job = caller.job()
    webhooks.make_endpoint(database, ids.parse("acct", job["account"]) or uuid.UUID(int=0))
    worker.finish(database, answer="a heron")
    assert b"a heron" in webhooks.events(database)[0].payload

    assert caller("DELETE", job["urls"]["self"]).status_code == 200

    assert b"a heron" not in webhooks.events(database)[0].payload
