"""What commands print."""

from __future__ import annotations

import json

import pytest

from cli import output
from cli.client import Unreachable
from core import errors
from core.database import DatabaseUnavailable


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidRequest("x"), 2),
        (errors.NotFound("x"), 2),
        (errors.SettingsError("x"), 2),
        (Unreachable("x"), 3),
        (DatabaseUnavailable("x"), 3),
        (errors.Unauthenticated("x"), 4),
        (errors.InsufficientScope("x"), 4),
        (errors.LaunchError("x"), 1),
        (errors.EngineFault("x"), 1),
    ],
)
def test_each_kind_of_error_has_an_exit_code(error: errors.LonglookError, code: int) -> None:
    assert output.exit_code(error) == code


def test_only_the_first_line_of_an_error_starts_at_the_left_edge(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.fault("longlook: no\nlonglook: yes\x9b\n  log")

    assert capsys.readouterr().err == "longlook: no\n  longlook: yes\\x9b\n  log\n"


def test_a_pipe_gets_json_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert not output.for_people()
    output.as_json({"answer": "sechs Möwen"})
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"answer": "sechs Möwen"}
    assert printed.count("\n") == 1
    assert "Möwen" in printed


def test_a_narrow_terminal_shows_ids_and_states_in_full(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    job_id = "job_" + "0" * 32

    output.table(
        ("id", "state", "created", "question"),
        [(job_id, "succeeded", "11-23 10:00", "How many " * 20)],
        whole=3,
    )

    [_, row] = capsys.readouterr().out.splitlines()
    assert row.startswith(f"{job_id}  succeeded  11-23 10:00  How many")
    assert len(row.rstrip()) <= 80


def test_a_table_shows_markup_and_control_characters_literally(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.table(("id", "text"), [("job_1", "[red]not red[/red] \x1b[31m")])
    assert "[red]not red[/red] \\x1b[31m" in capsys.readouterr().out
