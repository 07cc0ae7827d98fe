"""API keys over HTTP, from the API to the database, on both databases."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from api.key_uses import KeyUses
from core import errors, ids
from core.database import Database, Transaction
from core.database_faults import DatabaseUnavailable
from jobs.lifecycle import Role
from jobs.store import accounts
from tests import factories, races
from tests.e2e.stack import eventually
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


def create(house: House, admin: str, **body: object) -> Json:
    status, answer = house.ask("POST", "/v1/keys", admin, body)
    assert status == 201, answer
    return answer


def test_a_key_is_shown_once_works_and_is_revoked_once(house: House, admin: str) -> None:
    made = create(
        house,
        admin,
        name="frontend",
        role="read",
        account="tenant",
        expires_at="2999-01-31T00:00:00Z",
    )
    key = made["key"]
    assert house.ask("GET", "/v1/jobs", key)[0] == 200
    status, seen = house.ask("GET", f"/v1/keys/{made['id']}", admin)
    _, page = house.ask("GET", "/v1/keys", admin)
    assert status == 200
    assert seen == made | {"key": None}
    assert key not in str(page)
    assert made["expires_at"] == "2999-01-31T00:00:00.000Z"
    assert (made["account"], made["role"], made["max_priority"]) == ("tenant", "read", "normal")
    assert made["created_by"].startswith("key:key_")
    assert (made["created_by_name"], made["last_used_at"]) == ("test", None)

    first = house.ask("DELETE", f"/v1/keys/{made['id']}", admin)
    other = factories.make_key(house.database, account="others", role=Role.ADMIN)
    second = house.ask("DELETE", f"/v1/keys/{made['id']}", other)

    assert first == second
    assert first[0] == 200
    assert first[1]["revoked_by"] == made["created_by"]
    assert house.ask("GET", "/v1/jobs", key)[0] == 401


def test_a_key_is_of_the_callers_account_unless_another_is_named(house: House, admin: str) -> None:
    shown_id = ids.show("acct", house.account_id)

    assert create(house, admin)["account"] == "operations"
    assert create(house, admin, account=shown_id)["account"] == "tenant"
    assert create(house, admin, account="a new one")["account"] == "a new one"
    for absent in ("acct_" + "0" * 32, f"{shown_id}0", f"erased-{shown_id}"):
        status, answer = house.ask("POST", "/v1/keys", admin, {"account": absent})
        assert (status, answer["error"]["param"]) == (404, "account")


def test_the_last_key_of_an_admin_stays(house: House, admin: str) -> None:
    """Those that are revoked or have expired do not count."""
    own = next(
        key["id"]
        for key in house.ask("GET", "/v1/keys", admin)[1]["data"]
        if key["role"] == "admin"
    )
    second = create(house, admin, role="admin")
    create(house, admin, role="operate")
    assert house.ask("DELETE", f"/v1/keys/{second['id']}", second["key"])[0] == 200

    status, answer = house.ask("DELETE", f"/v1/keys/{own}", admin)

    assert (status, answer["error"]["code"]) == (409, "conflict")
    third = create(house, admin, role="admin")
    assert house.ask("DELETE", f"/v1/keys/{own}", admin)[0] == 200
    assert house.ask("GET", "/v1/keys", admin)[0] == 401
    assert house.ask("GET", "/v1/keys", third["key"])[0] == 200


def test_two_admins_do_not_revoke_each_other(database: Database) -> None:
    keys = [principal(database, factories.make_key(database, role=Role.ADMIN)) for _ in range(2)]

    def revoke(key: accounts.Principal) -> str:
        try:
            return str(accounts.revoke_key(database, key.key_id, keep_an_admin=True))
        except errors.Conflict as error:
            return error.code

    results = races.race(*(functools.partial(revoke, key) for key in keys))

    assert sorted(results) == ["True", "conflict"]


def test_every_fault_of_a_key_is_named(house: House, admin: str) -> None:
    body = {
        "name": "n" * 256,
        "role": "root",
        "account": " ",
        "expires_at": "2001-01-31T00:00:00Z",
        "requests_per_minute": 2**31,
        "max_body_mb": 0,
        "max_priority": "urgent",
        "colour": "red",
    }

    status, answer = house.ask("POST", "/v1/keys", admin, body)

    assert status == 422
    assert {fault["pointer"] for fault in answer["errors"]} == {f"#/{name}" for name in body}
    assert "future" in str(answer["errors"])
    before = house.ask("GET", "/v1/keys", admin)[1]["data"]
    assert all(key["name"] == "test" for key in before)


def test_only_admins_see_and_change_keys(house: House, admin: str) -> None:
    made = create(house, admin)
    for key in (house.operator, house.tenant, house.reader):
        for method, path in (
            ("GET", "/v1/keys"),
            ("POST", "/v1/keys"),
            ("GET", f"/v1/keys/{made['id']}"),
            ("DELETE", f"/v1/keys/{made['id']}"),
        ):
            assert house.ask(method, path, key)[0] == 403, (method, path)
    assert house.ask("GET", f"/v1/keys/{made['id']}", admin)[1]["revoked_at"] is None
    for missing in ("key_" + "0" * 32, "key_1"):
        assert house.ask("DELETE", f"/v1/keys/{missing}", admin)[0] == 404


def test_keys_are_listed_page_by_page_and_by_account(house: House, admin: str) -> None:
    made = [create(house, admin, name=str(number), account="acme")["id"] for number in range(5)]
    house.ask("DELETE", f"/v1/keys/{made[0]}", admin)
    seen: list[str] = []
    after = ""
    while True:
        _, page = house.ask("GET", f"/v1/keys?limit=2&account=acme{after}", admin)
        seen += [key["id"] for key in page["data"]]
        if not page["has_more"]:
            break
        after = f"&after={page['last_id']}"

    assert seen == made[::-1]
    assert house.ask("GET", "/v1/keys?account=nobody", admin)[0] == 404
    assert house.ask("GET", "/v1/keys?after=x", admin)[0] == 422
    _, everything = house.ask("GET", "/v1/keys?limit=100", admin)
    assert {key["account"] for key in everything["data"]} == {"acme", "operations", "tenant"}


def principal(database: Database, key: str) -> accounts.Principal:
    found = accounts.authenticate(database, key, peppers=[factories.PEPPER])
    assert found is not None
    return found


def last_used(database: Database, key_id: object) -> datetime | None:
    [row] = [row for row in accounts.keys(database) if row.key_id == key_id]
    return row.last_used_at


def test_uses_are_stored_in_the_background(database: Database) -> None:
    owner = principal(database, factories.make_key(database))
    uses = KeyUses(database, every_seconds=0.01)

    uses.note(owner)

    assert eventually(lambda: last_used(database, owner.key_id) is not None)
    uses.close()
    stored = last_used(database, owner.key_id)
    assert stored is not None
    assert stored.tzinfo is UTC


def test_uses_of_the_last_minute_are_stored_at_the_end(database: Database) -> None:
    owners = [principal(database, factories.make_key(database)) for _ in range(3)]
    uses = KeyUses(database)
    for owner in owners:
        uses.note(owner)
    assert [last_used(database, owner.key_id) for owner in owners] == [None] * 3

    uses.close()

    assert None not in [last_used(database, owner.key_id) for owner in owners]


class Away(Database):
    """A database that does not answer for a while."""

    away = True

    @contextlib.contextmanager
    def transaction(self, name: str = "") -> Iterator[Transaction]:
        if self.away:
            raise DatabaseUnavailable("It is away.")
        with super().transaction(name) as transaction:
            yield transaction


def test_uses_wait_for_a_database_that_is_away(database: Database, database_url: str) -> None:
    owner = principal(database, factories.make_key(database))
    away = Away(database_url)
    uses = KeyUses(away)
    uses.note(owner, key="k", pepper=b"newer")
    uses.close()
    assert last_used(database, owner.key_id) is None

    away.away = False
    uses.close()

    assert last_used(database, owner.key_id) is not None
    [row] = accounts.keys(database)
    assert row.pepper_id != owner.pepper_id
    away.close()


def test_a_request_notes_the_use_of_its_key(database: Database, tmp_path: Path) -> None:
    with house_in(database, tmp_path) as house:
        assert house.ask("GET", "/v1/jobs", house.tenant)[0] == 200
        assert house.ask("GET", "/v1/jobs", "ll_" + "x" * 43)[0] == 401
        house.service.key_uses.close()
        _, page = house.ask(
            "GET", "/v1/keys", factories.make_key(database, account="a", role=Role.ADMIN)
        )

    used = {key["account"]: key["last_used_at"] for key in page["data"] if key["role"] == "submit"}
    assert used["tenant"] is not None
    assert [key["role"] for key in page["data"] if key["last_used_at"]] == ["submit"]
