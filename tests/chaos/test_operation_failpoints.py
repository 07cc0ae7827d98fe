"""A delivery process that dies while it works on an operation, on purpose, at each line that matters."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from core.database import Database
from core.failpoints import VARIABLE
from jobs.lifecycle import OperationResult, Role
from jobs.records.accounts import Account
from jobs.records.jobs import Job
from jobs.records.operations import Operation, OperationJob
from tests import factories
from tests.chaos import senders, victims
from tests.chaos.scene import killed
from tests.e2e.stack import VAULT_KEY, eventually
from tests.operating import House, house_in


@pytest.fixture
def house(database: Database, tmp_path: Path) -> Iterator[House]:
    """Return a service with an operator and a tenant."""
    with house_in(database, tmp_path) as served:
        yield served


#: The places at which a delivery process dies, each within an operation of five jobs.
_PLACES = [
    "collect.commit=kill",
    "collect.committed=kill",
    "operate.commit=kill:2",
    "operate.committed=kill:2",
    "operate.committed=kill:4",
    "conclude.commit=kill",
    "conclude.committed=kill",
]


def environment_in(folder: Path, database_url: str, redis_url: str) -> dict[str, str]:
    """Return the environment of a delivery process."""
    return {
        "LONGLOOK_HOME": str(folder),
        "LONGLOOK_DATABASE_URL": database_url,
        "LONGLOOK_REDIS_URL": redis_url,
        "LONGLOOK_VAULT_KEY": VAULT_KEY,
        "LONGLOOK_PEPPER": factories.PEPPER.decode(),
    }


def kill_and_finish(house: House, place: str, environment: dict[str, str], operation: str) -> None:
    """Let a delivery process die at a place, and another one finish the operation."""
    with victims.running(senders.sender, environment | {VARIABLE: place}) as victim:
        assert killed(victim)
    with house.database.transaction() as transaction:
        transaction.update(
            Operation,
            Operation.lease_owner.is_not(None),
            lease_expires_at=transaction.now(timedelta(seconds=-1)),
        )
    with victims.running(senders.sender, environment):
        assert eventually(
            lambda: house.run("operations", "show", operation)["status"] == "succeeded"
        )


@pytest.mark.parametrize("place", ["operate.committed=kill:2", "conclude.commit=kill"])
def test_a_killed_process_leaves_an_erasure_of_an_account_that_another_one_finishes(
    house: House, place: str, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    house.ended(5)
    admin = factories.make_key(house.database, account="operations", role=Role.ADMIN)
    body = {"action": "erase_account", "account": "tenant"}
    _, operation = house.ask("POST", "/v1/operations", admin, body)

    environment = environment_in(tmp_path, database_url, redis_url)
    kill_and_finish(house, place, environment, operation["id"])

    shown = house.run("operations", "show", operation["id"])
    assert (shown["total"], shown["done"], shown["skipped"], shown["failed"]) == (5, 5, 0, 0)
    with house.database.reading() as transaction:
        left = sa.select(sa.func.count()).where(Job.question.is_not(None))
        assert transaction.scalar(left) == 0
        name = transaction.scalar(sa.select(Account.name).where(Account.id == house.account_id))
    assert name.startswith("erased-acct_")


@pytest.mark.parametrize("place", _PLACES)
def test_a_killed_process_leaves_an_operation_that_another_one_finishes(
    house: House, place: str, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    made = house.ended(5)
    environment = environment_in(tmp_path, database_url, redis_url)
    operation = house.run("jobs", "rerun", "status:cancelled", "rerun:none")
    kill_and_finish(house, place, environment, operation["id"])

    shown = house.run("operations", "show", operation["id"])
    assert (shown["total"], shown["done"], shown["skipped"], shown["failed"]) == (5, 5, 0, 0)
    assert sorted(map(str, house.reruns())) == sorted(map(str, made))
    with house.database.reading() as transaction:
        rows = transaction.session.scalars(sa.select(OperationJob)).all()
    assert {row.result for row in rows} == {OperationResult.DONE}
    assert len({row.new_job_id for row in rows}) == 5
