"""``longlook config``: effective settings and their reference."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cli import config
from core import errors, settings
from core.settings import PREFIX, Settings
from tests.cli.commands import local

SECRET = "ll_" + "s" * 43


def test_every_setting_is_shown_with_value_source_and_purpose() -> None:
    rows = {row.variable: row for row in config.effective({"LONGLOOK_PORT": "9000"})}
    assert len(rows) == len(Settings.model_fields)
    assert (rows["LONGLOOK_PORT"].value, rows["LONGLOOK_PORT"].source) == ("9000", "environment")
    assert rows["LONGLOOK_HOST"].source == "default"
    assert all(row.description.endswith((".", "`.")) for row in rows.values())


def test_the_sections_are_those_of_the_settings() -> None:
    text = Path(settings.__file__).read_text(encoding="utf-8")
    commented = re.findall(r"^    # (.+)\n    (\w+):", text, re.MULTILINE)

    assert {name: section for section, name in commented} == config.SECTIONS
    rows = {row.variable: row.section for row in config.effective({})}
    assert rows["LONGLOOK_SPOOL_MB"] == "The API"
    assert rows["LONGLOOK_VAULT_KEY"] == "Secrets and access"


@pytest.mark.parametrize(
    ("words", "found", "others"),
    [
        (["webhook"], "LONGLOOK_WEBHOOK_SECONDS", "LONGLOOK_PORT"),
        (["LONGLOOK_PORT"], "LONGLOOK_PORT", "LONGLOOK_WEBHOOK_SECONDS"),
        (["secrets and"], "LONGLOOK_PEPPER", "LONGLOOK_API_KEY"),
        (["worker", "LEASE"], "LONGLOOK_LEASE_SECONDS", "LONGLOOK_WORKER_SLOTS"),
    ],
)
def test_a_filter_matches_names_and_sections(
    tmp_path: Path, words: list[str], found: str, others: str
) -> None:
    code, printed = local(tmp_path, "config", "show", *words)

    assert code == 0
    assert found in printed
    assert others not in printed
    as_json = json.loads(local(tmp_path, "config", "show", *words, "--json")[1])
    assert found in as_json
    assert others not in as_json


def test_a_filter_that_matches_nothing_names_the_sections(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidRequest, match="Secrets and access; "):
        local(tmp_path, "config", "show", "webhooks", "nonsense")


def test_no_secret_is_shown() -> None:
    names = ("PEPPER", "BOOTSTRAP_KEY", "VAULT_KEY", "API_KEY", "ENGINE_API_KEY")
    rows = config.effective({f"{PREFIX}{name}": SECRET for name in names})
    assert SECRET not in repr(rows)
    assert sum(row.value == "(set)" for row in rows) == len(names)


def test_the_reference_is_the_same_on_every_machine_and_lists_every_setting() -> None:
    text = config.documentation()
    assert str(Settings.read({}).home) not in text
    assert re.findall(r"^\| `(LONGLOOK_\w+)`", text, re.MULTILINE) == [
        f"{PREFIX}{name.upper()}" for name in Settings.model_fields
    ]
    assert {line.count("|") - line.count("\\|") for line in text.splitlines()} == {4}


def test_an_unknown_setting_is_reported_without_its_value() -> None:
    with pytest.raises(errors.SettingsError, match="LONGLOOK_PROT: no such setting") as raised:
        config.effective({"LONGLOOK_PROT": SECRET})
    assert SECRET not in str(raised.value)


def test_a_password_in_a_url_is_masked() -> None:
    rows = config.effective(
        {
            "LONGLOOK_DATABASE_URL": "postgresql://longlook:s3cret-word@db/longlook",
            "LONGLOOK_REDIS_URL": "redis://:s3cret-word@redis:6379/0",
            "LONGLOOK_ENGINE_URLS": "http://user:s3cret-word@engine:30000,http://other:30000",
        }
    )

    shown = {row.variable: row.value for row in rows}
    assert "s3cret-word" not in str(shown)
    assert shown["LONGLOOK_DATABASE_URL"] == "postgresql://longlook:***@db/longlook"
    assert shown["LONGLOOK_ENGINE_URLS"].endswith("@engine:30000,http://other:30000")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://ll:s3c/r3t@db/ll", "postgresql://ll:***@db/ll"),
        ("postgresql://ll:s3c@r3t@db/ll", "postgresql://ll:***@db/ll"),
        ("postgresql:///ll?password=s3cr3t&host=db", "postgresql:///ll?password=***&host=db"),
        ("postgresql://db:5432/ll?user=me", "postgresql://db:5432/ll?user=me"),
    ],
)
def test_the_password_is_masked_in_every_form_of_a_url(url: str, shown: str) -> None:
    [row] = [
        row
        for row in config.effective({"LONGLOOK_DATABASE_URL": url})
        if row.variable == "LONGLOOK_DATABASE_URL"
    ]

    assert row.value == shown
