"""Erasures through the API, on both databases: of jobs by their ids and by a query, and of an account."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from core import ids
from core.database import Database
from jobs.lifecycle import Role
from jobs.records.accounts import Account, ApiKey
from jobs.records.jobs import Job
from jobs.records.operations import Operation
from jobs.store import settle
from tests import factories
from tests.operating import House, Json, house_in


@pytest.fixture
def house(database: Database, tmp_path: Path) -> Iterator[House]:
    """Return a service with an operator and a tenant."""
    with house_in(database, tmp_path) as served:
        yield served


@pytest.fixture
def admin(house: House) -> str:
    """Return an admin's key."""
    return factories.make_key(house.database, account="operations", role=Role.ADMIN)


def operate(house: House, key: str, status: int = 202, **body: object) -> Json:
    answered, answer = house.ask("POST", "/v1/operations", key, body)
    assert answered == status, answer
    return answer


def shown(house: House, operation: Json) -> Json:
    return house.get(f"/v1/operations/{operation['id']}")


def questions(house: House, job_ids: list[uuid.UUID]) -> list[str | None]:
    with house.database.reading() as transaction:
        wanted = sa.select(Job.question).where(Job.id.in_(job_ids)).order_by(Job.id)
        return list(transaction.session.scalars(wanted))


def test_jobs_are_erased_by_their_ids(house: House) -> None:
    made = house.ended(3)
    names = [ids.show("job", job_id) for job_id in made[:2]]
    preview = operate(house, house.tenant, 200, action="delete", job_ids=names, dry_run=True)
    assert preview["matched"] == 2

    operation = operate(house, house.tenant, action="delete", job_ids=[*names, names[0]])
    house.work()

    ended = shown(house, operation)
    assert (ended["status"], ended["total"], ended["done"]) == ("succeeded", 2, 2)
    assert [text is None for text in questions(house, made)] == [True, True, False]
    entries = house.get(f"/v1/jobs/{names[0]}/timeline")["data"]
    assert entries[-1]["changes"]["operation"] == operation["id"]
    assert entries[-1]["actor_name"] == "test"


def test_a_timeline_names_the_keys_of_ones_own_account_and_all_keys_to_operators(
    house: House,
) -> None:
    own, others = house.ended(2)
    for key, job_id in ((house.tenant, own), (house.operator, others)):
        operate(house, key, action="delete", job_ids=[ids.show("job", job_id)])
    house.work()

    def names(key: str, job_id: uuid.UUID) -> list[str | None]:
        path = f"/v1/jobs/{ids.show('job', job_id)}/timeline"
        entries = house.ask("GET", path, key)[1]["data"]
        return [entry["actor_name"] for entry in entries if "operation" in entry["changes"]]

    assert names(house.tenant, own) == names(house.operator, own) == ["test"]
    assert (names(house.tenant, others), names(house.operator, others)) == ([None], ["test"])


def test_the_command_line_shows_the_name_of_a_key(house: House) -> None:
    [job_id] = house.ended(1)
    operate(house, house.tenant, action="delete", job_ids=[ids.show("job", job_id)])
    house.work()
    words = ("jobs", "timeline", ids.show("job", job_id))

    printed = {form: house.printed(*words, "-o", form) for form in ("table", "wide")}

    assert "key:test" in printed["table"]
    assert "actor id" not in printed["table"]
    assert printed["wide"].splitlines()[0].split()[-2:] == ["actor", "id"]


def test_each_job_that_is_not_the_callers_is_named(house: House) -> None:
    [own] = house.ended(1)
    other = factories.make_account(house.database, "other")
    foreign = factories.make_job(house.database, other)
    names = [ids.show("job", job_id) for job_id in (foreign, own, ids.new())]

    answer = operate(house, house.tenant, 422, action="delete", job_ids=names)

    assert [fault["pointer"] for fault in answer["errors"]] == ["#/job_ids/0", "#/job_ids/2"]
    malformed = operate(house, house.tenant, 422, action="delete", job_ids=["job_1", "x"])
    assert [fault["pointer"] for fault in malformed["errors"]] == ["#/job_ids/0", "#/job_ids/1"]


@pytest.mark.parametrize(
    "body",
    [
        {"action": "delete"},
        {"action": "delete", "query": "status:failed", "job_ids": ["job_" + "0" * 32]},
        {"action": "erase_account"},
        {"action": "erase_account", "account": "tenant", "query": "status:failed"},
    ],
)
def test_an_operation_has_one_way_to_name_its_jobs(house: House, admin: str, body: Json) -> None:
    assert operate(house, admin, 422, **body)["errors"]


def test_an_account_is_erased(house: House, admin: str) -> None:
    made = house.ended(2)
    made.append(factories.make_job(house.database, house.account_id))
    other = factories.make_account(house.database, "other")
    kept = factories.make_job(house.database, other)
    preview = operate(house, admin, 200, action="erase_account", account="tenant", dry_run=True)
    assert (preview["matched"], preview["action"]) == (3, "erase_account")
    assert house.ask("GET", "/v1/jobs", house.tenant)[0] == 200

    operation = operate(house, admin, action="erase_account", account="tenant")
    house.work()

    ended = shown(house, operation)
    assert (ended["status"], ended["action"]) == ("succeeded", "erase_account")
    assert (ended["total"], ended["done"], ended["skipped"], ended["failed"]) == (3, 3, 0, 0)
    assert ended["key_name"] == "test"
    assert questions(house, made) == [None, None, None]
    assert questions(house, [kept]) != [None]
    assert house.ask("GET", "/v1/jobs", house.tenant)[0] == 401
    with house.database.reading() as transaction:
        name = transaction.scalar(sa.select(Account.name).where(Account.id == house.account_id))
        keys = transaction.session.scalars(
            sa.select(ApiKey).where(ApiKey.account_id == house.account_id)
        ).all()
    assert name == f"erased-{ids.show('acct', house.account_id)}"
    assert {(key.name, key.revoked_at is None) for key in keys} == {("", False)}
    assert all(str(key.revoked_by).startswith("key:key_") for key in keys)


def test_an_erasure_of_an_account_waits_for_its_running_jobs(house: House, admin: str) -> None:
    made = factories.make_job(house.database, house.account_id)
    claimed = factories.claim(house.database)
    operation = operate(house, admin, action="erase_account", account="tenant")
    house.work()
    waiting = shown(house, operation)
    assert (waiting["status"], waiting["waiting_for"]) == ("running", "jobs_running")

    assert settle.stop(house.database, claimed, generation=None)
    with house.database.transaction() as transaction:
        transaction.update(Operation, Operation.finished_at.is_(None), not_before=transaction.now())
    house.work()

    ended = shown(house, operation)
    assert (ended["status"], ended["total"], ended["done"]) == ("succeeded", 1, 1)
    assert questions(house, [made]) == [None]


def test_only_admins_erase_accounts_and_not_their_own(house: House, admin: str) -> None:
    for key in (house.operator, house.tenant):
        operate(house, key, 403, action="erase_account", account="tenant")
    operate(house, admin, 409, action="erase_account", account="operations")
    operate(house, admin, 404, action="erase_account", account="nobody")
    operate(house, admin, 404, action="erase_account", account="acct_" + "0" * 32)

    house.work()
    assert house.ask("GET", "/v1/jobs", house.tenant)[0] == 200


def test_more_jobs_than_confirmed_change_nothing_of_the_account(house: House, admin: str) -> None:
    house.ended(2)
    operate(house, admin, 409, action="erase_account", account="tenant", confirm=1)
    operation = operate(house, admin, action="erase_account", account="tenant", confirm=2)
    house.ended(1)
    with house.database.transaction() as transaction:
        # As if the third job had been submitted between the count and the operation.
        transaction.update(Operation, Operation.finished_at.is_(None), max_jobs=1)
    house.work()

    ended = shown(house, operation)
    assert (ended["status"], ended["error"]["code"]) == ("failed", "too_many_jobs")
    assert house.ask("GET", "/v1/jobs", house.tenant)[0] == 200
