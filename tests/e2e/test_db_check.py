"""``longlook db check`` against a PostgreSQL server."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli import main
from tests import postgres

pytestmark = pytest.mark.e2e


def test_migrations_and_models_agree_on_postgresql_and_nothing_is_left(
    postgres_server: postgres.Server, tmp_path: Path
) -> None:
    name = postgres_server.create()
    environment = {
        "LONGLOOK_HOME": str(tmp_path),
        "LONGLOOK_DATABASE_URL": postgres_server.url(name),
        "LONGLOOK_TEST_POSTGRES_URL": postgres_server.url(name),
    }
    runner = CliRunner()
    upgraded = runner.invoke(main.make_app(["db"]), ["db", "upgrade"], env=environment)
    checked = runner.invoke(main.make_app(["db"]), ["db", "check"], env=environment)
    postgres_server.drop(name)
    assert (upgraded.exit_code, checked.exit_code) == (0, 0), checked.output
    assert [line.split()[0] for line in checked.stdout.splitlines()] == ["ok"] * 3
