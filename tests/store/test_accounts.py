"""Who may ask: keys are shown once and kept as keyed hashes."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from core import errors, ids, peppers
from core.database import Database
from core.peppers import Peppers
from jobs.lifecycle import Role
from jobs.records.accounts import ApiKey
from jobs.store import accounts
from tests import databases, factories, races


def test_a_new_key_is_well_formed_and_never_the_same() -> None:
    keys = {accounts.new_key() for _ in range(50)}

    assert len(keys) == 50
    assert all(accounts.well_formed(key) for key in keys)
    assert {len(key) for key in keys} == {46}


@pytest.mark.parametrize("text", ["", "ll_", "ll_" + "a" * 42, "ll_" + "a" * 44, "sk_" + "a" * 43])
def test_anything_else_is_not_well_formed(text: str) -> None:
    assert not accounts.well_formed(text)


def test_a_line_break_after_a_key_is_not_a_part_of_it() -> None:
    assert not accounts.well_formed(accounts.new_key() + "\n")


def test_a_key_says_whose_it_is_and_what_it_may_do(database: Database) -> None:
    key = factories.make_key(database, account="acme", role=Role.OPERATE)

    principal = accounts.authenticate(database, key, peppers=[factories.PEPPER])

    assert principal is not None
    assert principal.account_id == accounts.account_id(database, "acme")
    assert principal.role is Role.OPERATE
    assert principal.actor == f"key:{ids.show('key', principal.key_id)}"


def test_an_unknown_key_another_pepper_or_nonsense_has_no_principal(database: Database) -> None:
    key = factories.make_key(database)

    assert accounts.authenticate(database, accounts.new_key(), peppers=[factories.PEPPER]) is None
    assert accounts.authenticate(database, key, peppers=[b"another"]) is None
    assert accounts.authenticate(database, "nonsense", peppers=[factories.PEPPER]) is None


def test_the_key_itself_is_nowhere_in_the_database(database: Database) -> None:
    key = factories.make_key(database)

    with database.reading() as transaction:
        row = transaction.session.scalars(sa.select(ApiKey)).one()
    [shown] = accounts.keys(database)

    assert len(row.digest) == 32
    assert key.encode() not in row.digest
    assert shown.redacted_key == f"{key[:5]}…{key[-4:]}"
    assert key not in repr(shown)


def test_a_revoked_key_has_no_principal_at_once_and_stays_on_the_list(database: Database) -> None:
    key = factories.make_key(database)
    principal = accounts.authenticate(database, key, peppers=[factories.PEPPER])
    assert principal is not None

    assert accounts.revoke_key(database, principal.key_id)

    assert accounts.authenticate(database, key, peppers=[factories.PEPPER]) is None
    assert not accounts.revoke_key(database, principal.key_id)
    assert not accounts.revoke_key(database, ids.new())
    assert [row.revoked_at is not None for row in accounts.keys(database)] == [True]


def test_a_key_that_is_there_is_left_as_it_is(database: Database) -> None:
    key = accounts.new_key()

    made = [
        accounts.create_key(
            database, key, pepper=factories.PEPPER, account=account, role=role, name=account
        )
        for account, role in (("first", Role.READ), ("second", Role.ADMIN))
    ]

    assert made[0] == made[1]
    assert [(row.account, row.role) for row in accounts.keys(database)] == [("first", Role.READ)]


def test_processes_that_start_together_make_one_account_and_one_key(database: Database) -> None:
    factories.make_key(database, account="default")
    key = accounts.new_key()

    made = races.race(
        *(
            lambda: accounts.create_key(
                database,
                key,
                pepper=factories.PEPPER,
                account="default",
                role=Role.ADMIN,
                name="bootstrap",
            )
            for _ in range(8)
        )
    )

    assert len(set(made)) == 1
    assert len(accounts.keys(database)) == 2


def test_keys_are_listed_oldest_first(database: Database) -> None:
    for account in ("b", "a", "c"):
        factories.make_key(database, account=account)

    assert [row.account for row in accounts.keys(database)] == ["b", "a", "c"]


def test_an_account_that_does_not_exist_has_no_id(database: Database) -> None:
    with pytest.raises(errors.NotFound):
        accounts.account_id(database, "nobody")


def test_an_expired_key_is_refused_and_says_since_when(database: Database) -> None:
    past = datetime(2020, 1, 31, tzinfo=UTC)
    keys = {name: accounts.new_key() for name in ("expired", "current")}
    made = {
        name: accounts.create_key(
            database,
            key,
            pepper=factories.PEPPER,
            account="acme",
            role=Role.READ,
            name=name,
            expires_at=past if name == "expired" else datetime(2999, 1, 1, tzinfo=UTC),
        )
        for name, key in keys.items()
    }

    def admitted(name: str) -> bool:
        key = keys[name]
        return accounts.authenticate(database, key, peppers=[factories.PEPPER]) is not None

    assert (admitted("expired"), admitted("current")) == (False, True)
    assert accounts.principal(database, made["expired"]) is None
    assert accounts.live_keys(database, made.values()) == {made["current"]}
    live = accounts.LiveKeys(database, peppers=Peppers([factories.PEPPER]))
    assert (live.may_hold(keys["expired"]), live.may_hold(keys["current"])) == (False, True)
    since = {name: live.expired_at(key) for name, key in keys.items()}
    assert since == {"expired": past, "current": None}
    assert (live.may_hold(accounts.new_key()), live.expired_at(accounts.new_key())) == (False, None)


def used(database: Database, key_id: uuid.UUID) -> datetime | None:
    row = accounts.find_key(database, key_id)
    assert row is not None
    return row.last_used_at


def test_a_use_is_stored_at_most_once_a_minute(database: Database) -> None:
    factories.make_key(database)
    [key_id] = [row.key_id for row in accounts.keys(database)]
    assert used(database, key_id) is None
    statements: list[str] = []
    for age in (300, 180, 150, 30):
        before = used(database, key_id)
        accounts.note_uses(database, [accounts.KeyUse(key_id, timedelta(seconds=age))])
        statements.append("stored" if used(database, key_id) != before else "left")

    assert statements == ["stored", "stored", "left", "stored"]
    last = used(database, key_id)
    assert last is not None
    assert last < databases.now(database) - timedelta(seconds=29)


def test_a_hash_is_replaced_by_one_with_a_newer_pepper(database: Database) -> None:
    key, other = factories.make_key(database), factories.make_key(database)
    [key_id] = [
        row.key_id for row in accounts.keys(database) if row.redacted_key.endswith(key[-4:])
    ]
    new = b"a newer pepper"
    digest, name = accounts.digest(key, pepper=new), peppers.identify(new)

    for _ in range(2):
        accounts.note_uses(database, [accounts.KeyUse(key_id, timedelta(0), digest, name)])

    def admitted(each: str, *known: bytes) -> bool:
        return accounts.authenticate(database, each, peppers=known) is not None

    assert admitted(key, new)
    assert not admitted(key, factories.PEPPER)
    assert admitted(other, new, factories.PEPPER)
    assert not admitted(other, new)
    live = accounts.LiveKeys(database, peppers=Peppers([new, factories.PEPPER]))
    assert [live.may_hold(each) for each in (key, other)] == [True, True]
    left = accounts.without_pepper(accounts.keys(database), [new])
    assert [row.redacted_key[-4:] for row in left] == [other[-4:]]


def test_names_of_keys_are_those_of_the_account_or_of_all(database: Database) -> None:
    own, foreign = (
        factories.make_account(database, "own"),
        factories.make_account(database, "other"),
    )
    actors = [f"key:{ids.show('key', row.key_id)}" for row in accounts.keys(database)]
    asked = [*actors, "worker:w", "operator:me", "key:key_" + "0" * 32, None]

    assert accounts.key_names(database, asked) == dict.fromkeys(actors, "test")
    assert len(accounts.key_names(database, asked, account_id=own)) == 1
    assert own != foreign
