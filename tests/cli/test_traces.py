"""``longlook traces`` on a real database."""

from __future__ import annotations

from pathlib import Path

from core.database import Database
from jobs.store import settle, traces
from tests import factories
from tests.cli.commands import local


def test_traces_are_parsed_again_by_the_current_rules(tmp_path: Path) -> None:
    local(tmp_path, "db", "upgrade")
    assert local(tmp_path, "traces", "reparse") == (0, "ok           0 traces parsed\n")
    database = Database(f"sqlite:///{tmp_path / 'longlook.db'}")
    job_id = factories.make_job(database, factories.make_account(database))
    claimed = factories.claim(database)
    factories.begin(database, claimed)
    settle.succeed(database, claimed, answer=None, generation=factories.make_ended("I see a ball."))
    factories.forget_steps(database)

    code, printed = local(tmp_path, "traces", "reparse")

    [trace] = traces.read(database, job_id)
    database.close()
    assert (code, "1 traces" in printed) == (0, True)
    assert trace.stored_steps is not None
