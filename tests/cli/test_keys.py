"""``longlook keys`` on a real database."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from api.key_uses import KeyUses
from cli import erasing, main
from core import errors, ids, peppers
from core.database import Database
from core.settings import Settings
from jobs.store import accounts
from tests.cli.commands import local
from tests.databases import ROOT


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


def listed(home: Path, key_id: str) -> dict[str, Any]:
    """Return a key as the list shows it."""
    rows = json.loads(local(home, "keys", "ls", "--json")[1])
    row: dict[str, Any] = next(row for row in rows if row["id"] == key_id)
    return row


def test_the_list_says_who_made_and_revoked_a_key(upgraded: Path) -> None:
    key_id = json.loads(local(upgraded, "keys", "create", "--json")[1])["id"]
    made = listed(upgraded, key_id)
    local(upgraded, "keys", "revoke", key_id)

    assert made["created_by"] == erasing.actor()
    assert (made["last_used_at"], made["revoked_by"]) == (None, None)
    assert listed(upgraded, key_id)["revoked_by"] == erasing.actor()


def test_the_table_shows_when_a_key_was_last_used(tmp_path: Path) -> None:
    local(tmp_path, "db", "upgrade")
    names = ("new", "used", "revoked")
    made = {
        name: json.loads(local(tmp_path, "keys", "create", "--json", "--name", name)[1])["id"]
        for name in names
    }
    local(tmp_path, "keys", "revoke", made["revoked"])
    used = ids.parse("key", made["used"])
    assert used is not None
    with contextlib.closing(Database(f"sqlite:///{tmp_path / 'longlook.db'}")) as database:
        accounts.note_uses(database, [accounts.KeyUse(used, timedelta(days=3))])

    lines = local(tmp_path, "keys", "ls", "-o", "tsv")[1].splitlines()
    columns = lines[0].split("\t")
    rows = [dict(zip(columns, line.split("\t"), strict=True)) for line in lines[1:]]

    assert {row["name"]: row["last used"] for row in rows} == {
        "new": "never",
        "used": "3 d ago",
        "revoked": "revoked",
    }
    assert {row["created by"] for row in rows} == {erasing.actor()}


def test_a_new_key_is_printed_with_its_expiry(upgraded: Path) -> None:
    environment = {"LONGLOOK_HOME": str(upgraded), "LONGLOOK_PEPPER": "pepper"}
    printed = [
        CliRunner().invoke(main.make_app(["keys"]), ["keys", "create", *options], env=environment)
        for options in (("--expires", "2999-01-31"), ())
    ]

    assert "expires 2999-01-31 00:00 UTC" in printed[0].stderr
    assert "never expires" in printed[1].stderr


def test_a_limit_that_no_database_can_store_is_refused(upgraded: Path) -> None:
    for option in ("--requests-per-minute", "--max-body-mb"):
        assert local(upgraded, "keys", "create", option, str(2**31))[0] == 2


def rotate(home: Path, *options: str) -> int:
    """Rotate the pepper of the home directory."""
    return local(home, "keys", "rotate-pepper", *options, LONGLOOK_PEPPER="")[0]


def principal(home: Path, key: str) -> accounts.Principal | None:
    """Return the owner of a key, as the API finds it."""
    settings = Settings.read({"LONGLOOK_HOME": str(home)})
    with contextlib.closing(Database(settings.database)) as database:
        return accounts.authenticate(database, key, peppers=peppers.read(settings))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a home directory with a database, and with a pepper of its own."""
    local(tmp_path, "db", "upgrade")
    peppers.ensure(Settings.read({"LONGLOOK_HOME": str(tmp_path)}))
    return tmp_path


def create(home: Path, *options: str) -> str:
    """Create a key with the pepper of the home directory."""
    printed = local(home, "keys", "create", "--json", *options, LONGLOOK_PEPPER="")[1]
    return str(json.loads(printed)["key"])


def test_keys_outlive_a_rotation_of_the_pepper(home: Path) -> None:
    settings = Settings.read({"LONGLOOK_HOME": str(home)})
    old = create(home)
    before = peppers.read(settings)

    assert rotate(home) == 0
    assert rotate(home) == 0
    during = peppers.read(settings)
    assert (len(during), during[1:]) == (2, before)
    new = create(home)
    assert principal(home, old) is not None
    assert principal(home, new) is not None
    with pytest.raises(errors.LaunchError, match="1 live keys have not been used"):
        rotate(home, "--finish")

    with contextlib.closing(Database(settings.database)) as database:
        uses = KeyUses(database)
        owner = principal(home, old)
        assert owner is not None
        uses.note(owner, key=old, pepper=during[0])
        uses.close()
    assert principal(home, old) is not None
    assert rotate(home, "--finish") == 0
    assert rotate(home, "--finish") == 0

    assert peppers.read(settings) == during[:1]
    assert principal(home, old) is not None
    assert principal(home, new) is not None


def test_keys_that_are_not_used_are_revoked_at_the_end_of_a_rotation(home: Path) -> None:
    unused = create(home)
    expired = create(home, "--expires", "9d")
    assert rotate(home) == 0

    assert rotate(home, "--revoke-unused") == 2
    assert principal(home, unused) is not None
    assert rotate(home, "--finish", "--revoke-unused") == 0

    assert (principal(home, unused), principal(home, expired)) == (None, None)
    rows = json.loads(local(home, "keys", "ls", "--json")[1])
    assert {row["revoked_by"] for row in rows} == {erasing.actor()}


def test_a_rotation_with_the_wrong_pepper_is_refused(home: Path) -> None:
    create(home)
    (home / "pepper").write_text("another\n")

    with pytest.raises(errors.LaunchError, match="hashed with another pepper"):
        rotate(home)
    assert (home / "pepper").read_text() == "another\n"


def test_a_pepper_of_the_environment_is_not_changed(upgraded: Path) -> None:
    with pytest.raises(errors.SettingsError, match="the environment sets the peppers"):
        local(upgraded, "keys", "rotate-pepper", LONGLOOK_PEPPER="pepper")
    key = json.loads(local(upgraded, "keys", "create", "--json", LONGLOOK_PEPPER="new, pepper")[1])
    with contextlib.closing(Database(f"sqlite:///{upgraded / 'longlook.db'}")) as database:
        assert accounts.authenticate(database, key["key"], peppers=[b"new"]) is not None
    with pytest.raises(errors.LaunchError, match="need the old pepper"):
        local(upgraded, "keys", "rotate-pepper", "--finish", LONGLOOK_PEPPER="newest, new, pepper")


#: Rotates in a child that dies at a line, then checks the key, and again for the next line until a child lives.
_ROTATE = """
import contextlib, os, signal, sys
from typer.testing import CliRunner
from cli import main
from core import peppers
from core.database import Database
from core.settings import Settings
from jobs.store import accounts

key, *options = sys.argv[1:]
files = ("cli/keys.py", "core/peppers.py", "core/secret_files.py")
app = main.make_app(["keys"])
settings = Settings.read()

def rotate(lines):
    def trace(frame, event, _value):
        nonlocal lines
        if not frame.f_code.co_filename.endswith(files):
            return None
        if event == "line":
            lines -= 1
            if not lines:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace
    sys.settrace(trace)
    os._exit(CliRunner().invoke(app, ["keys", "rotate-pepper", *options]).exit_code)

for line in range(1, 1000):
    child = os.fork()
    if not child:
        rotate(line)
    status = os.waitpid(child, 0)[1]
    with contextlib.closing(Database(settings.database)) as database:
        assert accounts.authenticate(database, key, peppers=peppers.read(settings)), line
    if os.waitstatus_to_exitcode(status) == 0:
        print(line)
        break
    assert os.WTERMSIG(status) == signal.SIGKILL, status
"""


@pytest.mark.parametrize("step", [[], ["--finish", "--revoke-unused"]], ids=["begin", "finish"])
def test_a_rotation_that_is_killed_at_any_line_leaves_each_key_usable(
    home: Path, step: list[str]
) -> None:
    key = create(home)
    if step:
        rotate(home)
        key = create(home)
    environment = os.environ | {"LONGLOOK_HOME": str(home), "PYTHONPATH": str(ROOT)}

    ended = subprocess.run(
        [sys.executable, "-c", _ROTATE, key, *step],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )

    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 10
    assert principal(home, key) is not None
    assert len(peppers.read(Settings.read({"LONGLOOK_HOME": str(home)}))) == (1 if step else 2)
