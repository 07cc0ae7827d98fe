"""``longlook doctor`` on a real database."""

from __future__ import annotations

import contextlib
import json
import resource
from datetime import timedelta
from pathlib import Path

import pytest
from alembic import command

from cli import output
from cli.up import database as prepare
from core import peppers
from core.database import Database
from core.settings import Settings
from core.vault import Vault
from jobs.store import search, submission, workers
from migrations import schema
from tests import databases, factories, webhooks
from tests.cli.commands import local
from tests.connect_proxy import proxying
from webhooks import secrets
from webhooks.policy import Webhook

ENGINELESS = {"LONGLOOK_ENGINE_URLS": "scripted:"}


def test_the_doctor_reports_a_working_installation(upgraded: Path) -> None:
    code, printed = local(upgraded, "doctor", "--json", **ENGINELESS)
    verdicts = {entry["check"]: entry["verdict"] for entry in json.loads(printed)}
    assert code == 0
    assert {verdicts[check] for check in ("Python", "disk", "database", "Redis")} == {"ok"}
    assert verdicts["engine scripted:"] == "ok"


def test_the_doctor_names_a_vault_that_does_not_open_the_secrets(tmp_path: Path) -> None:
    local(tmp_path, "db", "upgrade")
    with contextlib.closing(Database(f"sqlite:///{tmp_path / 'longlook.db'}")) as database:
        other = Vault(["another key"])
        secrets.signing_key(database, make=lambda: secrets.new_pair(other))

    code, printed = local(tmp_path, "doctor", "--json", **ENGINELESS)

    [vault] = [entry for entry in json.loads(printed) if entry["check"] == "vault"]
    assert (code, vault["verdict"]) == (1, "missing")
    assert str(tmp_path / "vault") in vault["detail"]


def test_without_configured_engines_the_doctor_shows_those_of_the_workers(
    upgraded: Path,
) -> None:
    database = Database(f"sqlite:///{upgraded / 'longlook.db'}")
    engines = (
        workers.EngineState("http://127.0.0.1:4711", "ok", model="tiny-qvq", window=8),
        workers.EngineState("http://127.0.0.1:4712", "away"),
    )
    heartbeat = workers.WorkerHeartbeat("w", "h", 1, "1", slots=4, engines=engines)
    workers.beat(database, heartbeat, alive=timedelta(minutes=1))
    _, printed = local(upgraded, "doctor", "--json")
    workers.retire(database, "w")
    database.close()

    diagnoses = {entry["check"]: entry for entry in json.loads(printed)}
    assert diagnoses["engine http://127.0.0.1:4711"]["verdict"] == "ok"
    assert "tiny-qvq: 8 streams" in diagnoses["engine http://127.0.0.1:4711"]["detail"]
    assert diagnoses["engine http://127.0.0.1:4712"]["verdict"] == "warning"
    assert "engine http://127.0.0.1:30000" not in diagnoses


def test_the_doctor_checks_the_outbound_proxy(tmp_path: Path) -> None:
    def diagnosis(port: int) -> dict[str, str]:
        url = f"http://user:geheim@127.0.0.1:{port}"
        _, printed = local(tmp_path, "doctor", "--json", **ENGINELESS, LONGLOOK_OUTBOUND_PROXY=url)
        assert "geheim" not in printed
        [entry] = [one for one in json.loads(printed) if one["check"] == "outbound proxy"]
        return dict(entry)

    with proxying() as proxy:
        assert diagnosis(proxy.port)["verdict"] == "ok"
    assert diagnosis(proxy.port)["verdict"] == "warning"


def test_the_doctor_warns_of_notifications_that_no_process_sends(tmp_path: Path) -> None:
    local(tmp_path, "db", "upgrade")
    clock = databases.Clock()
    url = f"sqlite:///{tmp_path / 'longlook.db'}"
    with contextlib.closing(Database(url, clock=clock)) as database:
        before = webhook_diagnosis(tmp_path)
        clock.advance(-90)
        webhooks.run_job(
            database,
            factories.make_account(database),
            webhook=Webhook(url="https://app.example/hook").plain(),
        )

    assert (before["verdict"], before["detail"]) == ("ok", "0 pending")
    after = webhook_diagnosis(tmp_path)
    assert after["verdict"] == "warning"
    assert after["detail"].startswith("2 pending, the oldest for ")
    assert "webhooks.app" in after["remedy"]


def webhook_diagnosis(home: Path) -> dict[str, str]:
    """Return the doctor's diagnosis of webhooks."""
    _, printed = local(home, "doctor", "--json", **ENGINELESS)
    [diagnosis] = [entry for entry in json.loads(printed) if entry["check"] == "webhooks"]
    return dict(diagnosis)


def test_the_doctor_names_accounts_near_their_storage_quota(tmp_path: Path) -> None:
    local(tmp_path, "db", "upgrade")
    with contextlib.closing(Database(f"sqlite:///{tmp_path / 'longlook.db'}")) as database:
        account_id = factories.make_account(database, "web")
        image = factories.make_image(data=bytes(2**20))
        submission.store_image(database, account_id=account_id, image=image)

    def diagnosis(quota_mb: int) -> tuple[str, str]:
        quota = {"LONGLOOK_STORAGE_MB_PER_ACCOUNT": str(quota_mb)}
        _, printed = local(tmp_path, "doctor", "--json", **ENGINELESS, **quota)
        [entry] = [entry for entry in json.loads(printed) if entry["check"] == "storage"]
        return entry["verdict"], entry["detail"]

    assert diagnosis(2) == ("ok", "1.0 MiB, accounts: 1")
    assert diagnosis(1) == ("warning", "1.0 MiB, accounts: 1; near their quota: 1 (web)")
    assert diagnosis(0) == ("warning", "1.0 MiB, accounts: 1; without a quota: 1")
    verdict, detail = diagnosis(2**30)
    assert (verdict, "the disk has less" in detail) == ("warning", True)


def test_the_doctor_shows_limits_and_warns_before_they_are_reached(tmp_path: Path) -> None:
    local(tmp_path, "db", "upgrade")
    with contextlib.closing(Database(f"sqlite:///{tmp_path / 'longlook.db'}")) as database:
        account_id = factories.make_account(database)
        for _ in range(4):
            factories.make_job(database, account_id)

    def verdicts(**settings: str) -> dict[str, tuple[str, str]]:
        _, printed = local(tmp_path, "doctor", "--json", **ENGINELESS, **settings)
        return {
            entry["check"]: (entry["verdict"], entry["detail"]) for entry in json.loads(printed)
        }

    ample = verdicts(LONGLOOK_QUEUED_JOBS_TOTAL="6", LONGLOOK_MAX_CONNECTIONS="128")
    assert ample["queue limit"] == ("ok", "4 of 6 jobs; 50000 for one account")
    assert ample["open files"] == ("ok", "enough for 128 connections")
    scarce = verdicts(LONGLOOK_QUEUED_JOBS_TOTAL="5", LONGLOOK_MAX_CONNECTIONS="1000000")
    assert scarce["queue limit"][0] == "warning"
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = hard == resource.RLIM_INFINITY or hard >= 1_000_512
    assert scarce["open files"][0] == ("ok" if enough else "warning")


@pytest.mark.parametrize(
    ("revision", "verdict", "says"),
    [
        ("9000", "ok", "revision 9000 of a later version"),
        (schema.BASELINE, "missing", "run `longlook db upgrade`"),
        (schema.COPYING, "missing", "repeat `longlook db copy`"),
        ("0017", "missing", "start with a new database"),
    ],
)
def test_the_doctor_says_whether_this_version_works_on_the_revision(
    tmp_path: Path, revision: str, verdict: str, says: str
) -> None:
    local(tmp_path, "db", "upgrade")
    with (
        contextlib.closing(Database(f"sqlite:///{tmp_path / 'longlook.db'}")) as database,
        database.transaction() as transaction,
    ):
        schema.mark(transaction, revision)

    _, printed = local(tmp_path, "doctor", "--json", **ENGINELESS)

    diagnoses = {entry["check"]: entry for entry in json.loads(printed)}
    assert diagnoses["database"]["verdict"] == verdict
    assert says in diagnoses["database"]["detail"] + diagnoses["database"]["remedy"]
    # A later revision is no reason to check less.
    assert ("storage" in diagnoses) == (verdict == "ok")


def test_a_due_reindex_is_reported_until_it_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'longlook.db'}"
    command.upgrade(databases.alembic(url), "0109")
    with contextlib.closing(Database(url)) as opened:
        factories.insert_jobs(opened, factories.make_account(opened), [{}] * 60)

    def diagnosis() -> dict[str, str] | None:
        _, printed = local(tmp_path, "doctor", "--json", **ENGINELESS)
        found = [entry for entry in json.loads(printed) if entry["check"] == "search index"]
        return found[0] if found else None

    _, upgrading = local(tmp_path, "db", "upgrade")
    due = diagnosis()
    prepare.prepare(Settings.read({"LONGLOOK_HOME": str(tmp_path), "LONGLOOK_PEPPER": "pepper"}))
    starting = capsys.readouterr().out
    with contextlib.closing(Database(url)) as opened:
        search.rebuild(opened)
    stopped = diagnosis()
    local(tmp_path, "db", "reindex")

    assert output.REINDEX_DUE in upgrading.replace("\n", " ")
    assert output.REINDEX_DUE in starting
    assert due is not None
    assert (due["verdict"], due["detail"]) == ("warning", "a reindex is due")
    assert "longlook db reindex" in due["remedy"]
    assert stopped is not None
    assert "after 50 jobs" in stopped["detail"]
    assert diagnosis() is None
    assert output.REINDEX_DUE not in local(tmp_path, "db", "upgrade")[1]


def test_the_doctor_fails_with_a_remedy_if_something_is_missing(tmp_path: Path) -> None:
    (tmp_path / "longlook.db").touch()
    code, printed = local(
        tmp_path, "doctor", "--json", **ENGINELESS, LONGLOOK_REDIS_URL="redis://127.0.0.1:1/0"
    )
    diagnoses = {entry["check"]: entry for entry in json.loads(printed)}
    assert code == 1
    assert diagnoses["database"]["verdict"] == diagnoses["Redis"]["verdict"] == "missing"
    assert "longlook db upgrade" in diagnoses["database"]["remedy"]


def test_the_doctor_names_keys_that_expire_soon_and_follows_a_rotation(tmp_path: Path) -> None:
    def rows() -> dict[str, dict[str, str]]:
        printed = local(tmp_path, "doctor", "--json", LONGLOOK_PEPPER="", **ENGINELESS)[1]
        return {entry["check"]: entry for entry in json.loads(printed)}

    def keys(*words: str) -> None:
        assert local(tmp_path, "keys", *words, LONGLOOK_PEPPER="")[0] == 0

    local(tmp_path, "db", "upgrade")
    assert "pepper" not in rows()
    peppers.ensure(Settings.read({"LONGLOOK_HOME": str(tmp_path)}))
    keys("create", "--name", "later", "--expires", "90d")
    assert (rows()["keys"]["verdict"], rows()["pepper"]["verdict"]) == ("ok", "ok")
    keys("create", "--name", "soon", "--expires", "9d")
    assert rows()["keys"]["verdict"] == "warning"
    assert "soon on 2" in rows()["keys"]["detail"]
    assert "later" not in rows()["keys"]["detail"]

    keys("rotate-pepper")
    assert "2 of 2 live keys were not used" in rows()["pepper"]["detail"]
    keys("rotate-pepper", "--finish", "--revoke-unused")
    keys("create")
    assert rows()["pepper"]["verdict"] == "ok"
    (tmp_path / "pepper").write_text("another\n")
    assert (rows()["pepper"]["verdict"], rows()["keys"]["verdict"]) == ("missing", "ok")
