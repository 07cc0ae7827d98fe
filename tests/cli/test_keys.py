"""``longlook keys`` on a real database."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core import errors
from tests.cli.commands import local


def test_a_key_is_printed_once_listed_without_its_secret_and_revoked(upgraded: Path) -> None:
    _, printed = local(upgraded, "keys", "create", "--role", "operate", "--name", "mine", "--json")
    created = json.loads(printed)
    assert created["key"].startswith("ll_")
    _, listing = local(upgraded, "keys", "ls", "--json")
    assert created["key"] not in listing
    row = next(row for row in json.loads(listing) if row["id"] == created["id"])
    assert (row["account"], row["role"], row["name"]) == ("default", "operate", "mine")
    assert local(upgraded, "keys", "revoke", created["id"])[0] == 0
    with pytest.raises(errors.NotFound):
        local(upgraded, "keys", "revoke", created["id"])


def test_limits_of_a_key_are_set_and_reset(upgraded: Path) -> None:
    limits = ("--requests-per-minute", "60", "--max-body-mb", "2")
    key_id = json.loads(local(upgraded, "keys", "create", "--json", *limits)[1])["id"]

    def listed() -> tuple[int | None, int | None]:
        rows = json.loads(local(upgraded, "keys", "ls", "--json")[1])
        row = next(row for row in rows if row["id"] == key_id)
        return row["requests_per_minute"], row["max_body_mb"]

    assert listed() == (60, 2)
    assert local(upgraded, "keys", "limit", key_id, "--max-body-mb", "3")[0] == 0
    assert listed() == (None, 3)
    assert local(upgraded, "keys", "limit", key_id)[0] == 0
    assert listed() == (None, None)
    with pytest.raises(errors.NotFound):
        local(upgraded, "keys", "limit", "key_" + "0" * 32)


def test_the_highest_priority_of_a_key_depends_on_its_role_or_is_set(upgraded: Path) -> None:
    def create(*options: str) -> str:
        return str(json.loads(local(upgraded, "keys", "create", "--json", *options)[1])["id"])

    def listed(key_id: str) -> str:
        rows = json.loads(local(upgraded, "keys", "ls", "--json")[1])
        return str(next(row["max_priority"] for row in rows if row["id"] == key_id))

    submitter, admin = create(), create("--role", "admin")
    assert (listed(submitter), listed(admin)) == ("normal", "high")
    assert listed(create("--max-priority", "low")) == "low"
    assert local(upgraded, "keys", "limit", submitter, "--max-priority", "high")[0] == 0
    assert listed(submitter) == "high"
    assert local(upgraded, "keys", "limit", submitter)[0] == 0
    assert listed(submitter) == "normal"


@pytest.mark.parametrize("key_id", ["key_1", "nonsense", "key_" + "0" * 32])
def test_an_unknown_key_cannot_be_revoked(upgraded: Path, key_id: str) -> None:
    with pytest.raises(errors.RequestError, match=key_id):
        local(upgraded, "keys", "revoke", key_id)


def test_a_key_is_named_by_the_beginning_of_its_id(upgraded: Path) -> None:
    made = json.loads(local(upgraded, "keys", "create", "--json")[1])["id"]
    others = {row["id"] for row in json.loads(local(upgraded, "keys", "ls", "--json")[1])} - {made}
    begin = next(
        made[:end] for end in range(10, 37) if not any(id_.startswith(made[:end]) for id_ in others)
    )
    assert local(upgraded, "keys", "limit", begin, "--max-priority", "low")[0] == 0
    assert local(upgraded, "keys", "revoke", begin)[0] == 0
    rows = json.loads(local(upgraded, "keys", "ls", "--json")[1])
    [row] = [row for row in rows if row["id"] == made]
    assert row["revoked_at"] is not None


def test_keys_without_a_schema_name_the_command_that_creates_it(tmp_path: Path) -> None:
    with pytest.raises(errors.LaunchError, match="longlook db upgrade"):
        local(tmp_path, "keys", "create")


def test_a_key_expires_at_a_time_in_the_future_only(upgraded: Path) -> None:
    options = ("keys", "create", "--json", "--expires")
    key_id = json.loads(local(upgraded, *options, "2999-01-31")[1])["id"]

    rows = json.loads(local(upgraded, "keys", "ls", "--json")[1])
    [expires] = [row["expires_at"] for row in rows if row["id"] == key_id]
    assert expires.startswith("2999-01-31T00:00:00")
    assert local(upgraded, *options, "90d")[0] == 0
    for wrong in ("2001-01-31", "soon", "0d"):
        assert local(upgraded, *options, wrong)[0] == 2
