"""The queue in the API: turns of accounts, priorities of keys, and the warning about a late start."""

from __future__ import annotations

from datetime import timedelta

import pytest
from flask.testing import FlaskClient

from core.database import Database, utcnow
from jobs.lifecycle import HEAD_START, Priority, Role, Status
from jobs.store import accounts
from tests import factories
from tests.api import image_files
from tests.api.conftest import Caller, Part


def queue(database: Database, account: str, jobs: int) -> None:
    """Put many jobs of an account into the queue."""
    row = {"ordering_at": utcnow() - HEAD_START[Priority.NORMAL]}
    account_id = accounts.account_id(database, account)
    factories.insert_jobs(database, account_id, [row] * jobs)


def have_run(database: Database, account: str, *, seconds: int) -> None:
    """Let 20 jobs have run for so long."""
    now = utcnow()
    ran = {
        "status": Status.SUCCEEDED,
        "started_at": now - timedelta(seconds=seconds),
        "finished_at": now,
    }
    factories.insert_jobs(database, accounts.account_id(database, account), [ran] * 20)


def test_a_backlog_of_another_account_is_not_ahead_of_the_first_job(
    caller: Caller, stranger: Caller, database: Database
) -> None:
    queue(database, "default", 300)
    factories.claim(database)

    first, second = stranger.job(), stranger.job()

    assert first["queue"]["position"] <= 2
    assert second["queue"]["position"] <= 4
    assert factories.claim(database).account_id in {
        accounts.account_id(database, name) for name in ("stranger", "default")
    }
    shown = caller("GET", caller.job()["urls"]["self"]).get_json()["queue"]
    assert (shown["position"], shown["at_least"]) == (301, False)


@pytest.mark.parametrize(
    ("role", "own", "requested", "code"),
    [
        (Role.SUBMIT, None, "high", 422),
        (Role.SUBMIT, None, "normal", 202),
        (Role.SUBMIT, Priority.HIGH, "high", 202),
        (Role.SUBMIT, Priority.LOW, "normal", 422),
        (Role.SUBMIT, Priority.LOW, "low", 202),
        (Role.ADMIN, None, "high", 202),
        (Role.ADMIN, Priority.NORMAL, "high", 422),
    ],
)
def test_a_priority_above_the_highest_one_of_the_key_is_refused_by_name(  # noqa: PLR0917 - a row of the table
    client: FlaskClient,
    database: Database,
    role: Role,
    own: Priority | None,
    requested: str,
    code: int,
) -> None:
    caller = Caller(client, factories.make_key(database, role=role, max_priority=own))

    answer = caller.submit(priority=requested)

    assert answer.status_code == code
    if code == 422:
        [fault] = answer.get_json()["errors"]
        highest = own or Priority.NORMAL
        assert (fault["pointer"], fault["code"]) == ("#/options/priority", "priority_not_allowed")
        assert f"`{highest}`" in fault["detail"]
        assert f"`{requested}`" in fault["detail"]


def test_a_job_is_found_again_by_its_key_when_its_priority_is_no_longer_allowed(
    caller: Caller, client: FlaskClient, database: Database
) -> None:
    header = {"Idempotency-Key": "once"}
    job = caller.submit(priority="high", headers=header).get_json()
    plain = Caller(client, factories.make_key(database))

    again = plain.submit(priority="high", headers=header)

    assert (again.status_code, again.get_json()["id"]) == (202, job["id"])
    assert plain.submit(priority="high", headers={"Idempotency-Key": "twice"}).status_code == 422


def test_a_group_and_a_form_are_refused_alike(stranger: Caller) -> None:
    fields: dict[str, Part | list[Part]] = {
        "options": '{"priority": "high"}',
        "image": image_files.png(),
    }
    group = stranger.form("/v1/groups", fields | {"questions": ["Why?", "How?"]})
    job = stranger.form("/v1/jobs", fields | {"question": "Why?"})

    for answer in (group, job):
        assert answer.status_code == 422
        assert [fault["code"] for fault in answer.get_json()["errors"]] == ["priority_not_allowed"]


def test_a_key_of_the_low_class_submits_low_jobs_by_default(
    client: FlaskClient, database: Database
) -> None:
    caller = Caller(client, factories.make_key(database, max_priority=Priority.LOW))

    assert caller.job()["priority"] == "low"


def test_a_rerun_has_no_higher_priority_than_the_key_that_asks(
    caller: Caller, operator: Caller, client: FlaskClient, database: Database
) -> None:
    job = caller.job(priority="high")
    plain = Caller(client, factories.make_key(database))
    path = f"/v1/jobs/{job['id']}/rerun"

    assert plain("POST", path).get_json()["priority"] == "normal"
    assert operator("POST", path).get_json()["priority"] == "high"


@pytest.mark.parametrize(("deadline", "late"), [(500, True), (5_000, False)])
def test_a_submission_that_would_begin_after_its_deadline_says_so(
    caller: Caller, database: Database, deadline: int, *, late: bool
) -> None:
    have_run(database, "default", seconds=10)
    queue(database, "default", 150)

    job = caller.job(deadline_seconds=deadline)

    assert job["queue"] == {
        "position": 101,
        "at_least": True,
        "eta_seconds": 1510,
        "paused": False,
    }
    codes = [warning["code"] for warning in job["warnings"]]
    assert codes == (["deadline_before_eta"] if late else [])
    if late:
        assert "1510" in job["warnings"][0]["message"]
        assert str(deadline) in job["warnings"][0]["message"]


def test_a_group_says_so_for_its_last_job(caller: Caller, database: Database) -> None:
    have_run(database, "default", seconds=10)
    for questions, late in ((2, False), (8, True)):
        fields: dict[str, Part | list[Part]] = {
            "options": '{"deadline_seconds": 60}',
            "image": image_files.png(),
            "questions": [f"Question {number}?" for number in range(questions)],
        }
        group = caller.form("/v1/groups", fields).get_json()

        codes = [warning["code"] for warning in group["warnings"]]
        assert codes == (["deadline_before_eta"] if late else [])
