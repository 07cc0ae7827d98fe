"""``longlook accounts`` and ``longlook db recount`` on a real database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from core import errors
from core.database import Database
from jobs.records import StorageChange
from jobs.store import submission
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
