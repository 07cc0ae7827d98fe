"""Cordons of engines and drains of workers, from the command line to a worker process, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from core import errors, ids
from core.database import Database
from jobs.lifecycle import Status
from jobs.store import history
from tests import factories
from tests.chaos import victims
from tests.chaos.scene import submitted
from tests.e2e.stack import eventually
from tests.operating import House, Json, house_in


@pytest.fixture
def house(database: Database, tmp_path: Path) -> Iterator[House]:
    """Return a service with an operator and a tenant."""
    with house_in(database, tmp_path) as served:
        yield served


@pytest.fixture
def environment(database_url: str, redis_url: str, tmp_path: Path) -> dict[str, str]:
    """Return the environment of a worker with two engines and a quick heartbeat."""
    return {
        "LONGLOOK_HOME": str(tmp_path),
        "LONGLOOK_DATABASE_URL": database_url,
        "LONGLOOK_REDIS_URL": redis_url,
        "LONGLOOK_ENGINE_URLS": "scripted:",
        "LONGLOOK_SWEEP_SECONDS": "1",
    }


def engine(house: House) -> Json:
    """Return the only engine."""
    [listed] = house.run("engines", "ls")["data"]
    return dict(listed)


def submit(house: House) -> str:
    """Submit a job of the tenant and return its id."""
    job_id = factories.make_job(house.database, house.account_id, images=[(submitted(), 4)])
    return ids.show("job", job_id)


def status(house: House, job: str) -> Status:
    """Return the status of a job."""
    job_id = ids.parse("job", job)
    assert job_id is not None
    return history.status(house.database, [job_id])[job_id]


def test_a_cordoned_engine_gets_no_new_jobs_until_it_is_uncordoned(
    house: House, environment: dict[str, str]
) -> None:
    with victims.running(victims.worker, environment):
        assert eventually(lambda: bool(house.run("engines", "ls")["data"]))
        house.run("engines", "drain", "scripted:", "--reason", "new driver")
        assert (engine(house)["cordoned"], engine(house)["running"]) == (True, 0)
        assert engine(house)["reason"] == "new driver"
        assert house.get("/readyz")["notes"] == ["All engines are cordoned: jobs stay queued."]
        assert "longlook_engines_cordoned 1.0" in house.text("/metrics")
        job = submit(house)
        ages: list[float] = []

        def has_beaten() -> bool:
            ages.append(house.run("queue")["workers"][0]["heartbeat_age_seconds"])
            return ages[-2:] != sorted(ages[-2:])

        assert eventually(has_beaten)
        assert status(house, job) is Status.QUEUED

        house.run("engines", "uncordon", "scripted:")
        assert eventually(lambda: status(house, job) is Status.SUCCEEDED)


def test_a_drained_worker_takes_no_jobs_and_a_new_one_does(
    house: House, environment: dict[str, str]
) -> None:
    with victims.running(victims.worker, environment):
        assert eventually(lambda: bool(house.run("workers", "ls")["data"]))
        [worker] = house.run("workers", "ls")["data"]
        drained = house.run("workers", "drain", worker["id"], "--wait")["data"]
        assert [(shown["state"], shown["running"]) for shown in drained] == [("draining", 0)]
        job = submit(house)
        assert status(house, job) is Status.QUEUED

        with victims.running(victims.worker, environment):
            assert eventually(lambda: status(house, job) is Status.SUCCEEDED)
        assert house.run("jobs", "show", job)["attempt"] == 1
        [attempt] = house.get(f"/v1/jobs/{job}/attempts")["data"]
        assert attempt["worker"] != worker["id"]


def test_a_drained_worker_takes_jobs_again_once_it_is_undrained(
    house: House, environment: dict[str, str]
) -> None:
    with victims.running(victims.worker, environment):
        assert eventually(lambda: bool(house.run("workers", "ls")["data"]))
        [worker] = house.run("workers", "ls")["data"]
        house.run("workers", "drain", worker["id"], "--wait")
        [drained] = house.run("workers", "ls")["data"]
        assert drained["drain_requested_by"].startswith("key:key_")
        job = submit(house)
        assert status(house, job) is Status.QUEUED

        [undrained] = house.run("workers", "undrain", worker["id"])["data"]
        assert (undrained["drain_requested_at"], undrained["drain_requested_by"]) == (None, None)
        assert eventually(lambda: status(house, job) is Status.SUCCEEDED)
        [shown] = house.run("workers", "ls")["data"]
        assert (shown["id"], shown["state"]) == (worker["id"], "live")
        with pytest.raises(errors.NotFound, match="drained worker"):
            house.run("workers", "undrain", worker["id"])


def test_only_operators_cordon_and_drain(house: House) -> None:
    for key in (house.reader, house.tenant):
        for words in (
            ("engines", "ls"), ("engines", "cordon", "x"), ("engines", "uncordon", "x"),
            ("workers", "ls"), ("workers", "drain", "x"), ("workers", "undrain", "x"),
        ):  # fmt: skip
            with pytest.raises(errors.InsufficientScope):
                house.run(*words, key=key)


def test_unknown_engines_and_workers_are_reported(house: House) -> None:
    for words in (
        ("engines", "cordon", "x"),
        ("engines", "uncordon", "x"),
        ("workers", "drain", "x"),
        ("workers", "undrain", "x"),
    ):
        with pytest.raises(errors.NotFound):
            house.run(*words)
