"""Pauses of the queue, from the command line and the API to the claim, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from cli import doctor
from cli import queue as queue_command
from core import errors, ids
from core.database import Database
from jobs.lifecycle import Priority, Role
from jobs.store import claims, expiry, workers
from tests import factories, operating
from tests.operating import House, house_in


@pytest.fixture
def house(database: Database, tmp_path: Path) -> Iterator[House]:
    """Return a service with an operator and a tenant."""
    with house_in(database, tmp_path) as served:
        yield served


def claim(house: House) -> claims.Claim | None:
    """Claim a job as a worker does."""
    return claims.claim(house.database, owner="w", lease=factories.LEASE, pauses_seconds=(0, 0))


def test_nothing_is_claimed_while_all_is_paused_and_everything_says_so(
    house: House, database_url: str, tmp_path: Path
) -> None:
    job_id = factories.make_job(house.database, house.account_id)
    shown = ids.show("job", job_id)

    paused = house.run("queue", "pause", "--reason", "moving the GPUs")

    assert (paused["account"], paused["priority"]) == (None, None)
    assert paused["paused_by_name"] == "test"
    assert claim(house) is None
    assert expiry.due(house.database, limit=8) == 0
    job = house.run("jobs", "show", shown, key=house.tenant)
    assert job["queue"]["paused"] is True
    assert job["queue"]["eta_seconds"] is None
    state = house.run("queue")
    assert [pause["reason"] for pause in state["pauses"]] == ["moving the GPUs"]
    assert "by test: moving the GPUs" in "\n".join(queue_command.summary(state))
    [seen] = house.run("queue", key=house.tenant)["pauses"]
    assert (seen["reason"], seen["paused_by"]) == ("moving the GPUs", None)
    assert house.get("/readyz")["notes"] == ["The queue is paused."]
    assert house.text("/metrics").count('longlook_queue_pauses{scope="all"} 1.0') == 1
    settings = operating.settings_in(tmp_path, database_url=database_url)
    [row] = [row for row in doctor.diagnose(settings) if row.check == "queue"]
    assert "moving the GPUs" in row.detail

    house.run("queue", "resume")

    assert house.run("jobs", "show", shown)["queue"]["paused"] is False
    assert house.get("/readyz")["notes"] == []
    claimed = claim(house)
    assert claimed is not None
    assert claimed.job_id == job_id


def test_a_pause_survives_the_process(house: House) -> None:
    factories.make_job(house.database, house.account_id)
    house.run("queue", "pause")
    reopened = Database(house.database.url.render_as_string(hide_password=False))
    try:
        assert claims.claim(reopened, owner="w", lease=factories.LEASE) is None
    finally:
        reopened.close()


def test_other_accounts_and_priorities_go_on(house: House) -> None:
    other = factories.make_account(house.database)
    mine = factories.make_job(house.database, house.account_id)
    low = factories.make_job(house.database, other, priority=Priority.LOW)
    normal = factories.make_job(house.database, other)
    house.run("queue", "pause", "--account", "tenant")
    house.run("queue", "pause", "--class", "low")

    assert expiry.due(house.database, limit=8) == 1
    first = claim(house)
    assert first is not None
    assert first.job_id == normal
    assert claim(house) is None

    house.run("queue", "resume", "--class", "low")
    second = claim(house)
    assert second is not None
    assert second.job_id == low
    house.run("queue", "resume", "--account", "tenant")
    third = claim(house)
    assert third is not None
    assert third.job_id == mine


def test_jobs_that_are_paused_twice_stay_paused_until_both_end(house: House) -> None:
    factories.make_job(house.database, house.account_id)
    house.run("queue", "pause")
    house.run("queue", "pause", "--account", "tenant", "--priority", "normal")
    house.run("queue", "resume")
    assert claim(house) is None
    house.run("queue", "resume", "--account", "tenant", "--priority", "normal")
    assert claim(house) is not None


def test_a_repeated_pause_is_one_and_its_history_remains(house: House) -> None:
    first = house.run("queue", "pause", "--reason", "first")
    second = house.run("queue", "pause", "--reason", "second")
    assert (second["id"], second["reason"]) == (first["id"], "first")
    house.run("queue", "resume")
    with pytest.raises(errors.NotFound):
        house.run("queue", "resume")
    house.run("queue", "pause", "--reason", "third")

    listed = house.get("/v1/queue/pauses")["data"]
    assert [pause["reason"] for pause in listed] == ["third", "first"]
    assert [pause["resumed_at"] is None for pause in listed] == [True, False]
    assert listed[1]["resumed_by"].startswith("key:key_")


def test_only_operators_pause(house: House) -> None:
    admin = factories.make_key(house.database, account="operations", role=Role.ADMIN)
    for key in (house.reader, house.tenant):
        for words in (("pause",), ("resume",), ("pause", "--account", "tenant")):
            with pytest.raises(errors.InsufficientScope):
                house.run("queue", *words, key=key)
    house.run("queue", "pause", key=admin)
    house.run("queue", "resume")


def test_a_tenant_does_not_see_the_pauses_of_others(house: House) -> None:
    factories.make_key(house.database, account="secret customer")
    house.run("queue", "pause", "--account", "secret customer")
    assert house.run("queue", key=house.tenant)["pauses"] == []
    assert len(house.run("queue")["pauses"]) == 1
    assert house.get("/readyz")["notes"] == ["A part of the queue is paused."]


def test_after_a_resume_workers_are_woken_at_once(house: House) -> None:
    heartbeat = workers.WorkerHeartbeat(id="w", host="h", pid=1, version="1", slots=8)
    workers.beat(house.database, heartbeat, alive=timedelta(minutes=1))
    for _ in range(3):
        factories.make_job(house.database, house.account_id)
    house.run("queue", "pause")
    before = house.wakeup.rung
    house.run("queue", "resume")
    assert house.wakeup.rung == before + 3
