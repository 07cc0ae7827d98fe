"""``longlook secrets`` on a real database."""

from __future__ import annotations

from pathlib import Path

import pytest

from core import errors
from core.database import Database
from core.settings import Settings
from core.vault import Vault, add_key
from tests import factories
from tests.cli.commands import local
from webhooks import secrets


def test_secrets_are_reencrypted_with_a_new_key_and_stay_the_same(tmp_path: Path) -> None:
    local(tmp_path, "db", "upgrade")
    database = Database(f"sqlite:///{tmp_path / 'longlook.db'}")
    vault = Vault.of(Settings.read({}, home=tmp_path))
    secret, stored = secrets.new_secret(vault)
    account_id = factories.make_account(database)
    secrets.default_secret(database, account_id, make=lambda: stored)
    secrets.signing_key(database, make=lambda: secrets.new_pair(vault))
    [old] = (tmp_path / "vault").read_text().split()

    # An interrupted rotation leaves a new key that has not sealed any secret yet.
    add_key(Settings.read({}, home=tmp_path))
    add_key(Settings.read({}, home=tmp_path))
    for _ in range(2):
        assert local(tmp_path, "secrets", "rotate") == (
            0,
            "ok           2 secrets are encrypted with the newest key\n",
        )

    again = secrets.default_secret(database, account_id, make=lambda: stored)
    database.close()
    assert vault.open(again.secret) == secret
    assert old not in (tmp_path / "vault").read_text()
    with pytest.raises(errors.SettingsError):
        Vault([old]).open(again.secret)
