"""The timeline, the end of a wait, and how the queue does, as callers see them."""

from __future__ import annotations

import dataclasses
import random
from datetime import timedelta

from core.database import Database
from jobs.store import settle, workers
from tests import factories
from tests import webhooks as reported
from tests.api import worker
from tests.api.conftest import Caller, Json
from tests.databases import Age
from tests.fakes import RecordingWakeup

ALIVE = timedelta(minutes=1)
ENGINE = workers.EngineState("http://engine", "ok", model="tiny-qvq", version="1", window=8)
WORKER = workers.WorkerHeartbeat(id="w", host="h", pid=1, version="1.0", slots=4, engines=(ENGINE,))


def put_back(database: Database) -> None:
    """Let the next job's attempt fail, so that it waits for another."""
    fault = settle.Failure("engine_fault", "It failed.", retryable=True)
    settle.retry(database, factories.claim(database), fault, generation=None, rng=random.Random(1))
    factories.postpone(database)


def test_a_timeline_shows_who_changed_what_and_when(caller: Caller, database: Database) -> None:
    job = caller.job()
    worker.finish(database)

    reported = caller("GET", job["urls"]["timeline"]).get_json()

    assert [entry["action"] for entry in reported["data"]] == ["submitted", "claimed", "succeeded"]
    assert reported["data"][0]["actor"].startswith("key:key_")
    assert reported["data"][0]["at"] == job["created_at"]
    assert reported["data"][1]["actor"] == "worker:worker-1"
    assert reported["data"][1]["changes"] == {"status": "running", "attempt": 1}
    assert reported["has_more"] is False


def test_a_long_timeline_comes_in_pages(caller: Caller, database: Database) -> None:
    job = caller.job()
    worker.finish(database)
    events: list[str] = []
    page: Json = {"last_id": 0, "has_more": True}
    while page["has_more"]:
        query = f"?limit=2&after={page['last_id']}"
        page = caller("GET", job["urls"]["timeline"] + query).get_json()
        events += [entry["action"] for entry in page["data"]]

    assert events == ["submitted", "claimed", "succeeded"]
    assert caller("GET", f"{job['urls']['timeline']}?after=-1").status_code == 422


def test_run_now_ends_the_wait_of_a_job_and_wakes_workers(
    caller: Caller, database: Database, wakeup: RecordingWakeup
) -> None:
    job = caller.job()
    put_back(database)
    rung = wakeup.rung

    answer = caller("POST", job["urls"]["run_now"])

    assert (answer.status_code, answer.get_json()["status"]) == (200, "queued")
    assert wakeup.rung == rung + 1
    assert factories.claim(database).attempt == 2
    last = caller("GET", job["urls"]["timeline"]).get_json()["data"][-2]
    assert (last["action"], list(last["changes"])) == ("run_now", ["not_before"])


def test_run_now_refuses_a_job_that_is_not_queued(
    caller: Caller, database: Database, wakeup: RecordingWakeup
) -> None:
    job = caller.job()
    claimed = worker.start(database)
    rung = wakeup.rung
    running = caller("POST", job["urls"]["run_now"])
    worker.end(database, claimed)
    ended = caller("POST", job["urls"]["run_now"])

    assert (running.status_code, ended.status_code, wakeup.rung) == (409, 409, rung)
    assert ended.get_json()["detail"] == "The job must be queued; it is succeeded."


def test_callers_see_their_own_queue_and_operators_all_of_it(
    caller: Caller, stranger: Caller, operator: Caller, database: Database
) -> None:
    caller.job()
    stranger.job()
    worker.finish(database)
    caller.job()
    workers.beat(database, WORKER, alive=ALIVE)

    mine = caller("GET", "/v1/queue").get_json()
    theirs = stranger("GET", "/v1/queue").get_json()
    everybodys = operator("GET", "/v1/queue").get_json()

    assert (mine["depth"], mine["submitted_per_minute"], mine["finished_per_minute"]) == (
        1,
        0.4,
        0.2,
    )
    assert (mine["workers"], mine["engines"]) == (None, None)
    assert (theirs["depth"], theirs["due"], theirs["finished_per_minute"]) == (1, 1, 0)
    assert (everybodys["depth"], everybodys["submitted_per_minute"]) == (2, 0.6)
    assert everybodys["oldest_age_seconds"] >= 0
    assert operator("GET", "/v1/queue?account=default").get_json()["depth"] == 1
    assert caller("GET", "/v1/queue?account=default").status_code == 403


def test_operators_see_workers_and_engines(operator: Caller, database: Database, age: Age) -> None:
    workers.beat(database, dataclasses.replace(WORKER, id="gone"), alive=ALIVE)
    age(61)
    workers.beat(database, WORKER, alive=ALIVE)
    leaving = dataclasses.replace(WORKER, id="x", draining=True, engines=None)
    workers.beat(database, leaving, alive=ALIVE)

    reported = operator("GET", "/v1/queue").get_json()

    assert [(one["id"], one["state"]) for one in reported["workers"]] == [
        ("gone", "silent"),
        ("w", "live"),
        ("x", "draining"),
    ]
    assert reported["workers"][0]["heartbeat_age_seconds"] >= 61
    assert reported["engines"] == reported["workers"][1]["engines"] == [dataclasses.asdict(ENGINE)]
    assert reported["workers"][2]["engines"] == []


def test_callers_see_how_many_of_their_webhooks_are_pending(
    caller: Caller, stranger: Caller, operator: Caller, database: Database, age: Age
) -> None:
    nothing = {"depth": 0, "oldest_age_seconds": None}
    assert caller("GET", "/v1/queue").get_json()["deliveries"] == nothing
    for _ in range(2):
        caller.job(webhook={"url": "https://app.example/hook"})
        worker.finish(database)
    age(30)
    reported.try_once(database, reported.OK)
    reported.try_once(database, reported.DOWN)

    mine = caller("GET", "/v1/queue").get_json()["deliveries"]

    assert mine["depth"] == 1
    assert mine["oldest_age_seconds"] >= 30
    assert stranger("GET", "/v1/queue").get_json()["deliveries"] == nothing
    assert operator("GET", "/v1/queue").get_json()["deliveries"]["depth"] == 1
    assert operator("GET", "/v1/queue?account=stranger").get_json()["deliveries"] == nothing
