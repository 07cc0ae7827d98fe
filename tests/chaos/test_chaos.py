"""The service during random faults, and a worker without a fence, whose violations the checks must detect."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core import errors
from core.database import Database
from jobs import queue
from jobs.lifecycle import Status
from tests import children, databases, postgres
from tests.chaos import checks
from tests.chaos.callers import IMAGES, Api
from tests.chaos.deployment import CRASH_LIMIT, Deployment
from tests.chaos.run import Plan, run
from tests.e2e.stack import Stack, eventually
from tests.redis_servers import RedisServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

LIMITS = checks.Limits(crashes=CRASH_LIMIT)


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_in_a_storm_every_job_ends_once_and_as_its_client_saw_it(database: str) -> None:
    try:
        report = run(Plan(database=database, seconds=25, seed=5))
    except postgres.Missing as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))

    assert report.wrong == []
    assert report.figures.statuses["succeeded"] > 10
    assert report.figures.faults.total() > 5
    assert report.figures.repeated > 0


@pytest.fixture(params=["fenced", "unfenced"])
def deployment(request: pytest.FixtureRequest) -> Iterator[Deployment]:
    folder = children.short_folder()
    deployment = Deployment(folder, database="sqlite", fenced=request.param == "fenced")
    deployment.start()
    yield deployment
    deployment.close()
    shutil.rmtree(folder, ignore_errors=True)


def test_late_writes_of_a_frozen_worker_are_rejected_and_without_a_fence_are_detected(
    deployment: Deployment,
) -> None:
    api = Api(deployment.api_url, key=deployment.stack.key)
    jobs: list[str] = []
    frozen: list[str] = []

    def freeze() -> bool:
        jobs.append(api.submit(IMAGES[:1], "How many?", options={"temperature": 0})["id"])
        frozen[:] = [name] if (name := freeze_in_an_answer(deployment, api, jobs[-1])) else []
        return bool(frozen)

    def ended() -> bool:
        return all(Status(api.job(job_id)["status"]).terminal for job_id in jobs)

    assert eventually(freeze)
    [name] = frozen
    before = sum("job_lost" in line for line in deployment.logged(name))
    assert eventually(ended)
    deployment.thaw(name)

    if deployment.fenced:
        assert eventually(
            lambda: sum("job_lost" in line for line in deployment.logged(name)) > before
        )
        assert violations(deployment) == []
    else:
        assert eventually(
            lambda: any("ended 2 times" in violation for violation in violations(deployment))
        )


def freeze_in_an_answer(deployment: Deployment, api: Api, job_id: str) -> str | None:
    """Freeze the worker of a job in the middle of an answer; return its name, or None if the answer ended before.

    Whoever is frozen in a transaction locks all others out of SQLite, so that nobody else could end the job.
    """

    def last() -> dict[str, Any]:
        return api.attempts(job_id)[-1]

    assert eventually(lambda: any(each["text"] for each in api.trace(job_id)["generations"]))
    pid = int(last()["worker"].split(":")[1])
    [name] = [name for name, place in deployment.workers.items() if place.process.pid == pid]
    with contextlib.closing(Database(deployment.stack.database_url)) as database:
        deployment.freeze(name)
        while databases.is_locked(database):
            deployment.thaw(name)
            assert eventually(lambda: not databases.is_locked(database))
            deployment.freeze(name)
    if last()["outcome"] is None and int(last()["worker"].split(":")[1]) == pid:
        return name
    deployment.thaw(name)
    return None


def test_wakeups_that_redis_lost_are_repeated(
    short_folder: Path, sqlite_source: databases.SqliteSource
) -> None:
    redis = RedisServer(short_folder)
    redis.start()
    # The interval of the sweep is the default, independent of the lease.
    stack = Stack(
        short_folder,
        sqlite_source.create(),
        redis.url,
        "scripted:?tokens_per_second=0",
        variables={"LONGLOOK_LEASE_SECONDS": "60"},
    )
    try:
        client = stack.start_api()
        jobs = [client.submit(IMAGES[:1], f"How many on {n}?")["id"] for n in range(5)]
        # No process has received these wakeups.
        assert eventually(lambda: redis.length(queue.REASON) == len(jobs))
        redis.flush()
        stack.start_worker()

        def done() -> bool:
            return all(client.job(job)["status"] == "succeeded" for job in jobs)

        assert eventually(done)
    finally:
        stack.close()
        redis.stop()


def violations(deployment: Deployment) -> list[str]:
    database = Database(deployment.stack.database_url)
    try:
        return checks.broken(checks.lives(database).values(), LIMITS)
    except errors.Unavailable:
        return []
    finally:
        database.close()
