"""``longlook db`` on a real database."""

from __future__ import annotations

from pathlib import Path

import pytest

from core import errors
from core.database import Database
from jobs.store import history
from tests import factories
from tests.cli.commands import local


def test_an_upgrade_of_an_up_to_date_database_does_nothing(upgraded: Path) -> None:
    assert local(upgraded, "db", "upgrade")[0] == 0


def test_only_the_owner_can_read_the_database(upgraded: Path) -> None:
    assert (upgraded / "longlook.db").stat().st_mode & 0o077 == 0


def test_the_migrations_match_the_models(upgraded: Path) -> None:
    code, printed = local(upgraded, "db", "check", LONGLOOK_TEST_POSTGRES_URL="")
    assert code == 0
    assert printed.split() == ["ok", "new", "SQLite", "database"]


def test_old_jobs_are_found_after_a_reindex(tmp_path: Path) -> None:
    local(tmp_path, "db", "upgrade")
    assert local(tmp_path, "db", "reindex") == (0, "ok           no jobs to index\n")
    database = Database(f"sqlite:///{tmp_path / 'longlook.db'}")
    factories.insert_jobs(database, factories.make_account(database), [{}] * 60)

    code, printed = local(tmp_path, "db", "reindex")

    filters = history.Filter(account_id=None, phrases=("how many circles",))
    views, _ = history.page(database, filters, limit=100)
    database.close()
    assert len(views) == 60
    assert (code, views[0].job.id.hex in printed) == (0, True)


def test_an_unreachable_database_is_reported_without_its_password(tmp_path: Path) -> None:
    url = "postgresql://user:hidden@127.0.0.1:1/none"
    with pytest.raises(errors.LaunchError, match=r"127\.0\.0\.1:1") as raised:
        local(tmp_path, "db", "upgrade", LONGLOOK_DATABASE_URL=url)
    assert "hidden" not in str(raised.value)
