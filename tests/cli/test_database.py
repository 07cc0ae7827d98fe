"""Commands that work on the database itself: keys, db, doctor."""

from __future__ import annotations

import contextlib
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from cli import main
from core import errors
from core.database import Database
from core.settings import Settings
from core.vault import Vault, add_key
from jobs.records import StorageChange
from jobs.store import history, settle, submission, traces, workers
from tests import databases, factories, webhooks
from webhooks import secrets
from webhooks.policy import Webhook

ENGINELESS = {"LONGLOOK_ENGINE_URLS": "scripted:"}


def longlook(home: Path, *words: str, **more: str) -> tuple[int, str]:
    """Run a command on the home directory ``home``; return exit code and stdout."""
    environment = {"LONGLOOK_HOME": str(home), "LONGLOOK_PEPPER": "pepper", **more}
    result = CliRunner().invoke(main.make_app(words[:1]), words, env=environment)
    if isinstance(result.exception, errors.LonglookError):
        raise result.exception
    return result.exit_code, result.stdout


@pytest.fixture(scope="module")
def upgraded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("cli") / "home"
    code, printed = longlook(home, "db", "upgrade")
    assert code == 0
    assert "the schema is at" in printed
    return home


def test_an_upgrade_of_what_is_up_to_date_does_nothing(upgraded: Path) -> None:
    assert longlook(upgraded, "db", "upgrade")[0] == 0


def test_the_database_is_for_its_owner_only(upgraded: Path) -> None:
    assert (upgraded / "longlook.db").stat().st_mode & 0o077 == 0


def test_the_migrations_make_what_the_models_say(upgraded: Path) -> None:
    code, printed = longlook(upgraded, "db", "check", LONGLOOK_TEST_POSTGRES_URL="")
    assert code == 0
    assert printed.split() == ["ok", "new", "SQLite", "database"]


def test_jobs_of_before_are_found_after_a_reindex(tmp_path: Path) -> None:
    longlook(tmp_path, "db", "upgrade")
    assert longlook(tmp_path, "db", "reindex") == (0, "ok           there are no jobs\n")
    database = Database(f"sqlite:///{tmp_path / 'longlook.db'}")
    factories.insert_jobs(database, factories.make_account(database), [{}] * 60)

    code, printed = longlook(tmp_path, "db", "reindex")

    requested = history.Filter(account_id=None, phrases=("how many circles",))
    views, _ = history.page(database, requested, limit=100)
    database.close()
    assert len(views) == 60
    assert (code, views[0].job.id.hex in printed) == (0, True)


def test_traces_are_read_again_by_todays_rules(tmp_path: Path) -> None:
    longlook(tmp_path, "db", "upgrade")
    assert longlook(tmp_path, "traces", "reparse") == (0, "ok           0 traces were read again\n")
    database = Database(f"sqlite:///{tmp_path / 'longlook.db'}")
    job_id = factories.make_job(database, factories.make_account(database))
    claimed = factories.claim(database)
    factories.begin(database, claimed)
    settle.succeed(database, claimed, answer=None, generation=factories.make_ended("I see a ball."))
    factories.forget_steps(database)

    code, printed = longlook(tmp_path, "traces", "reparse")

    [trace] = traces.read(database, job_id)
    database.close()
    assert (code, "1 traces" in printed) == (0, True)
    assert trace.stored_steps is not None


def test_accounts_are_listed_with_what_they_store_limited_and_counted_anew(tmp_path: Path) -> None:
    longlook(tmp_path, "db", "upgrade")
    database = Database(f"sqlite:///{tmp_path / 'longlook.db'}")
    account_id = factories.make_account(database, "web")
    image = factories.make_image(data=b"x" * 3 * 2**20)
    submission.store_image(database, account_id=account_id, image=image)

    def listed() -> dict[str, Any]:
        [row] = json.loads(
            longlook(tmp_path, "accounts", "ls", LONGLOOK_STORAGE_MB_PER_ACCOUNT="9")[1]
        )
        reported: dict[str, Any] = row
        return reported

    first = listed()
    assert longlook(tmp_path, "accounts", "limit", "web", "--storage-mb", "2")[0] == 0
    limited = listed()
    assert longlook(tmp_path, "accounts", "limit", "web")[0] == 0
    with database.transaction() as transaction:
        transaction.execute(sa.delete(StorageChange))
    forgotten = listed()
    code, printed = longlook(tmp_path, "db", "recount")
    database.close()

    assert (first["account"], first["images_bytes"], first["limit_bytes"]) == (
        "web",
        3 * 2**20,
        9 * 2**20,
    )
    assert (limited["storage_mb"], limited["limit_bytes"]) == (2, 2 * 2**20)
    assert (forgotten["storage_mb"], forgotten["total_bytes"]) == (None, 0)
    assert (code, printed) == (0, "ok           web stores 3.0 MiB\n")
    assert listed() == first
    with pytest.raises(errors.NotFound):
        longlook(tmp_path, "accounts", "limit", "nobody", "--storage-mb", "1")


def test_a_key_is_printed_once_listed_without_itself_and_revoked(upgraded: Path) -> None:
    _, printed = longlook(upgraded, "keys", "create", "--role", "operate", "--name", "mine")
    made = json.loads(printed)
    assert made["key"].startswith("ll_")
    _, listing = longlook(upgraded, "keys", "ls")
    assert made["key"] not in listing
    row = next(row for row in json.loads(listing) if row["id"] == made["id"])
    assert (row["account"], row["role"], row["name"]) == ("default", "operate", "mine")
    assert longlook(upgraded, "keys", "revoke", made["id"])[0] == 0
    with pytest.raises(errors.NotFound):
        longlook(upgraded, "keys", "revoke", made["id"])


def test_a_key_has_limits_of_its_own_until_it_is_given_others(upgraded: Path) -> None:
    limits = ("--requests-per-minute", "60", "--max-body-mb", "2")
    key_id = json.loads(longlook(upgraded, "keys", "create", *limits)[1])["id"]

    def listed() -> tuple[int | None, int | None]:
        rows = json.loads(longlook(upgraded, "keys", "ls")[1])
        row = next(row for row in rows if row["id"] == key_id)
        return row["requests_per_minute"], row["max_body_mb"]

    assert listed() == (60, 2)
    assert longlook(upgraded, "keys", "limit", key_id, "--max-body-mb", "3")[0] == 0
    assert listed() == (None, 3)
    assert longlook(upgraded, "keys", "limit", key_id)[0] == 0
    assert listed() == (None, None)
    with pytest.raises(errors.NotFound):
        longlook(upgraded, "keys", "limit", "key_" + "0" * 32)


def test_a_key_has_the_highest_priority_of_its_role_or_its_own(upgraded: Path) -> None:
    def made(*options: str) -> str:
        return str(json.loads(longlook(upgraded, "keys", "create", *options)[1])["id"])

    def listed(key_id: str) -> str:
        rows = json.loads(longlook(upgraded, "keys", "ls")[1])
        return str(next(row["max_priority"] for row in rows if row["id"] == key_id))

    submits, administers = made(), made("--role", "admin")
    assert (listed(submits), listed(administers)) == ("normal", "high")
    assert listed(made("--max-priority", "low")) == "low"
    assert longlook(upgraded, "keys", "limit", submits, "--max-priority", "high")[0] == 0
    assert listed(submits) == "high"
    assert longlook(upgraded, "keys", "limit", submits)[0] == 0
    assert listed(submits) == "normal"


@pytest.mark.parametrize("key_id", ["key_1", "nonsense", "key_" + "0" * 32])
def test_a_key_that_is_not_there_cannot_be_revoked(upgraded: Path, key_id: str) -> None:
    with pytest.raises(errors.NotFound, match=key_id):
        longlook(upgraded, "keys", "revoke", key_id)


def test_keys_of_a_database_without_tables_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(errors.LaunchError, match="longlook db upgrade"):
        longlook(tmp_path, "keys", "create")


def test_a_database_that_cannot_be_opened_is_told_without_its_password(tmp_path: Path) -> None:
    url = "postgresql://user:hidden@127.0.0.1:1/none"
    with pytest.raises(errors.LaunchError, match=r"127\.0\.0\.1:1") as reported:
        longlook(tmp_path, "db", "upgrade", LONGLOOK_DATABASE_URL=url)
    assert "hidden" not in str(reported.value)


def test_the_doctor_finds_what_is_there(upgraded: Path) -> None:
    code, printed = longlook(upgraded, "doctor", **ENGINELESS)
    found = {one["what"]: one["verdict"] for one in json.loads(printed)}
    assert code == 0
    assert {found[what] for what in ("Python", "disk", "database", "Redis")} == {"ok"}
    assert found["engine scripted:"] == "ok"


def test_the_doctor_hears_of_engines_from_the_workers_when_no_setting_names_them(
    upgraded: Path,
) -> None:
    database = Database(f"sqlite:///{upgraded / 'longlook.db'}")
    engines = (
        workers.EngineState("http://127.0.0.1:4711", "ok", model="tiny-qvq", window=8),
        workers.EngineState("http://127.0.0.1:4712", "away"),
    )
    heartbeat = workers.WorkerHeartbeat("w", "h", 1, "1", slots=4, engines=engines)
    workers.beat(database, heartbeat, alive=timedelta(minutes=1))
    _, printed = longlook(upgraded, "doctor")
    workers.retire(database, "w")
    database.close()

    found = {one["what"]: one for one in json.loads(printed)}
    assert found["engine http://127.0.0.1:4711"]["verdict"] == "ok"
    assert "tiny-qvq: 8 streams" in found["engine http://127.0.0.1:4711"]["detail"]
    assert found["engine http://127.0.0.1:4712"]["verdict"] == "warning"
    assert "engine http://127.0.0.1:30000" not in found


def test_the_doctor_warns_of_webhooks_that_no_process_sends(tmp_path: Path) -> None:
    longlook(tmp_path, "db", "upgrade")
    clock = databases.Clock()
    url = f"sqlite:///{tmp_path / 'longlook.db'}"
    with contextlib.closing(Database(url, clock=clock)) as database:
        before = webhooks_found(tmp_path)
        clock.advance(-90)
        webhooks.run_job(
            database,
            factories.make_account(database),
            webhook=Webhook(url="https://app.example/hook").plain(),
        )
        webhooks.fan_out(database)

    assert (before["verdict"], before["detail"]) == ("ok", "0 to be told")
    after = webhooks_found(tmp_path)
    assert after["verdict"] == "warning"
    assert after["detail"].startswith("1 to be told, the first for ")
    assert "webhooks.app" in after["remedy"]


def webhooks_found(home: Path) -> dict[str, str]:
    """Return what the doctor finds of webhooks."""
    _, printed = longlook(home, "doctor", **ENGINELESS)
    [found] = [one for one in json.loads(printed) if one["what"] == "webhooks"]
    return dict(found)


def test_the_doctor_tells_who_is_near_the_storage_quota(tmp_path: Path) -> None:
    longlook(tmp_path, "db", "upgrade")
    with contextlib.closing(Database(f"sqlite:///{tmp_path / 'longlook.db'}")) as database:
        account_id = factories.make_account(database, "web")
        image = factories.make_image(data=bytes(2**20))
        submission.store_image(database, account_id=account_id, image=image)

    def reported(quota_mb: int) -> tuple[str, str]:
        quota = {"LONGLOOK_STORAGE_MB_PER_ACCOUNT": str(quota_mb)}
        _, printed = longlook(tmp_path, "doctor", **ENGINELESS, **quota)
        [found] = [one for one in json.loads(printed) if one["what"] == "storage"]
        return found["verdict"], found["detail"]

    assert reported(2) == ("ok", "1.0 MiB, accounts: 1")
    assert reported(1) == ("warning", "1.0 MiB, accounts: 1; near their quota: 1 (web)")
    assert reported(0) == ("warning", "1.0 MiB, accounts: 1; without a quota: 1")
    verdict, detail = reported(2**30)
    assert (verdict, "the disk does not" in detail) == ("warning", True)


def test_the_doctor_fails_and_advises_when_something_needed_is_missing(tmp_path: Path) -> None:
    (tmp_path / "longlook.db").touch()
    code, printed = longlook(
        tmp_path, "doctor", **ENGINELESS, LONGLOOK_REDIS_URL="redis://127.0.0.1:1/0"
    )
    found = {one["what"]: one for one in json.loads(printed)}
    assert code == 1
    assert found["database"]["verdict"] == found["Redis"]["verdict"] == "missing"
    assert "longlook db upgrade" in found["database"]["remedy"]


def test_secrets_are_encrypted_with_a_new_key_and_stay_what_they_are(tmp_path: Path) -> None:
    longlook(tmp_path, "db", "upgrade")
    database = Database(f"sqlite:///{tmp_path / 'longlook.db'}")
    vault = Vault.of(Settings.read({}, home=tmp_path))
    secret, stored = secrets.new_secret(vault)
    account_id = factories.make_account(database)
    secrets.default_secret(database, account_id, make=lambda: stored)
    secrets.signing_key(database, make=lambda: secrets.new_pair(vault))
    [old] = (tmp_path / "vault").read_text().split()

    # Whoever began and died has left a new key with which nothing is sealed yet.
    add_key(Settings.read({}, home=tmp_path))
    add_key(Settings.read({}, home=tmp_path))
    for _ in range(2):
        assert longlook(tmp_path, "secrets", "rotate") == (
            0,
            "ok           2 secrets are encrypted with the newest key\n",
        )

    again = secrets.default_secret(database, account_id, make=lambda: stored)
    database.close()
    assert vault.open(again.secret) == secret
    assert old not in (tmp_path / "vault").read_text()
    with pytest.raises(errors.SettingsError):
        Vault([old]).open(again.secret)
