"""A reindex that is killed continues where it stopped, and in the end every job is found once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from core import failpoints, ids
from core.database import Database
from jobs.records.search import SearchText
from jobs.store import history, search
from tests import factories

JOBS = 170
#: Jobs of one transaction.
_BATCH = 50


@pytest.mark.parametrize(
    ("failpoint", "batches"), [("reindex.commit", 1), ("reindex.committed", 2)]
)
def test_a_reindex_that_is_killed_continues_where_it_stopped(
    database: Database, tmp_path: Path, failpoint: str, batches: int
) -> None:
    factories.insert_jobs(database, factories.make_account(database), [{}] * JOBS)

    killed = _reindex(database, tmp_path, {failpoints.VARIABLE: f"{failpoint}=kill:1"})
    reached = search.reindexed(database)
    done = _reindex(database, tmp_path, {})

    assert killed.returncode == -signal.SIGKILL
    assert reached is not None
    assert reached.jobs == batches * _BATCH
    assert done.returncode == 0, done.stderr
    assert f"after {reached.jobs} jobs, at {ids.show('job', reached.reached)}" in done.stdout
    assert f"indexed {JOBS} jobs" in done.stdout
    assert search.reindexed(database) is None
    wanted = history.Filter(account_id=None, phrases=("how many circles",))
    assert len(history.page(database, wanted, limit=JOBS + 1)[0]) == JOBS
    with database.reading() as transaction:
        texts = sa.select(sa.func.count()).select_from(SearchText)
        assert transaction.scalar(texts) == JOBS


def _reindex(
    database: Database, home: Path, more: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run ``longlook db reindex`` in a process of its own."""
    url = database.url.set(drivername=database.dialect).render_as_string(hide_password=False)
    settings = {"LONGLOOK_HOME": str(home), "LONGLOOK_DATABASE_URL": url, "COLUMNS": "200"}
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from cli.main import run; run(sys.argv[1:])",
            "db",
            "reindex",
        ],
        env=os.environ | settings | more,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
