"""``longlook config``: effective settings and their reference."""

from __future__ import annotations

import re

import pytest

from cli import config
from core import errors
from core.settings import PREFIX, Settings

SECRET = "ll_" + "s" * 43


def test_every_setting_is_shown_with_value_source_and_purpose() -> None:
    rows = {row.variable: row for row in config.effective({"LONGLOOK_PORT": "9000"})}
    assert len(rows) == len(Settings.model_fields)
    assert (rows["LONGLOOK_PORT"].value, rows["LONGLOOK_PORT"].source) == ("9000", "environment")
    assert rows["LONGLOOK_HOST"].source == "default"
    assert all(row.description.endswith((".", "`.")) for row in rows.values())


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
