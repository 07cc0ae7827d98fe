"""``longlook accounts`` and ``longlook db recount`` on a real database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from core import errors, ids
from core.database import Database
from jobs.records.accounts import StorageChange
from jobs.store import commands, submission
from tests import factories
from tests.cli.commands import local


def test_accounts_are_listed_with_their_storage_limited_and_recounted(tmp_path: Path) -> None:
    local(tmp_path, "db", "upgrade")
    database = Database(f"sqlite:///{tmp_path / 'longlook.db'}")
    account_id = factories.make_account(database, "web")
    image = factories.make_image(data=b"x" * 3 * 2**20)
    submission.store_image(database, account_id=account_id, image=image)

    def listed() -> dict[str, Any]:
        [row] = json.loads(
            local(tmp_path, "accounts", "ls", "--json", LONGLOOK_STORAGE_MB_PER_ACCOUNT="9")[1]
        )
        entry: dict[str, Any] = row
        return entry

    first = listed()
    assert local(tmp_path, "accounts", "limit", "web", "--storage-mb", "2")[0] == 0
    limited = listed()
    assert local(tmp_path, "accounts", "limit", "web")[0] == 0
    with database.transaction() as transaction:
        transaction.execute(sa.delete(StorageChange))
    uncounted = listed()
    code, printed = local(tmp_path, "db", "recount")
    database.close()

    assert (first["account"], first["images_bytes"], first["limit_bytes"]) == (
        "web",
        3 * 2**20,
        9 * 2**20,
    )
    assert (limited["storage_mb"], limited["limit_bytes"]) == (2, 2 * 2**20)
    assert (uncounted["storage_mb"], uncounted["total_bytes"]) == (None, 0)
    assert (code, printed) == (0, "ok           web stores 3.0 MiB\n")
    assert listed() == first
    with pytest.raises(errors.NotFound):
        local(tmp_path, "accounts", "limit", "unknown", "--storage-mb", "1")


def test_an_erasure_of_an_unknown_id_is_an_error(tmp_path: Path) -> None:
    local(tmp_path, "db", "upgrade")
    unknown = ids.show("acct", ids.new())

    with pytest.raises(errors.NotFound, match="no such account"):
        local(tmp_path, "accounts", "erase", unknown, "--confirm", unknown)


def test_an_erasure_asks_for_the_name_and_removes_the_account_and_its_keys(tmp_path: Path) -> None:
    local(tmp_path, "db", "upgrade")
    database = Database(f"sqlite:///{tmp_path / 'longlook.db'}")
    account_id = factories.make_account(database, "customer")
    factories.make_job(database, account_id, metadata={"customer": "42"})

    with pytest.raises(errors.LaunchError, match="--confirm customer"):
        local(tmp_path, "accounts", "erase", "customer")
    with pytest.raises(errors.LaunchError, match="Nothing was changed"):
        local(tmp_path, "accounts", "erase", "customer", "--confirm", "web")
    code, printed = local(tmp_path, "accounts", "erase", "customer", "--confirm", "customer")

    [row] = json.loads(local(tmp_path, "accounts", "ls", "--json")[1])
    [key] = json.loads(local(tmp_path, "keys", "ls", "--json")[1])
    database.close()
    assert (code, printed) == (0, "erased       1 jobs, 1 images\n")
    assert row["account"] == f"erased-{row['id']}"
    assert (key["name"], key["revoked_at"] is not None) == ("", True)


def test_jobs_are_erased_by_a_query_after_a_count(tmp_path: Path) -> None:
    local(tmp_path, "db", "upgrade")
    database = Database(f"sqlite:///{tmp_path / 'longlook.db'}")
    account_id = factories.make_account(database, "web")
    for case in ("1", "1", "2"):
        job_id = factories.make_job(database, account_id, metadata={"case": case})
        commands.cancel(database, job_id, account_id=None, actor="key:test")
    running = factories.make_job(database, account_id, metadata={"case": "1"})

    dry = local(tmp_path, "jobs", "erase", "meta.case:1", "--dry-run")
    with pytest.raises(errors.LaunchError, match="Nothing was changed"):
        local(tmp_path, "jobs", "erase", "meta.case:1", "--confirm", "3")
    done = local(tmp_path, "jobs", "erase", "meta.case:1", "--account", "web", "--confirm", "2")
    again = local(tmp_path, "jobs", "erase", "meta.case:1")

    assert factories.get_job(database, running).job.question is not None
    database.close()
    assert dry == (0, "matched      2 jobs to erase\n")
    assert done == (0, "erased       2 jobs, 0 images\n")
    assert again == (0, "matched      0 jobs to erase\n")
