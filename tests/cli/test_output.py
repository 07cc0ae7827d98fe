"""What the terminal gets."""

from __future__ import annotations

import json

import pytest
from rich.cells import cell_len

from cli import job_output, output
from cli.client import Unreachable
from core import errors
from core.database import DatabaseUnavailable
from tests.cli.fake_api import delta, job


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
def test_each_kind_of_fault_has_its_exit_code(error: errors.LonglookError, code: int) -> None:
    assert output.exit_code(error) == code


def test_a_trace_grows_and_a_new_attempt_starts_it_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    growth = job_output.LiveText()
    restarted = {"type": "attempt.restarted", "attempt": 2}
    for event in (
        restarted,
        delta("Let me "),
        delta("not shown", sample=1),
        delta("look\x1b"),
        restarted,
        delta("Six."),
    ):
        growth.show(event)
    growth.end()

    printed = capsys.readouterr()
    assert printed.out == "│ Let me look\\x1b\n│ Six.\n"
    assert printed.err == "(attempt 2 starts again)\n"


def test_a_growing_text_is_folded_behind_its_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "16")
    growth = job_output.LiveText()
    for piece in ("x" * 10, " " * 20, "answer: 7\nansw", "er: 8\n\n圆圆圆圆圆圆圆圆"):
        growth.show(delta(piece))
    growth.end()

    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith("│")] == []
    assert max(cell_len(line) for line in lines) <= 16


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        (["👩", "\u200d", "👩"], "👩\u200d👩"),
        (["\u0645\u06cc\u200c", "\u062e\u0648"], "\u0645\u06cc\u200c\u062e\u0648"),
        (["pay\u200d", "pal"], r"pay\u200dpal"),
        (["one\r", "\ntwo"], "one\n│ two"),
        (["one\r", "two"], r"one\rtwo"),
        (["one\u200d"], r"one\u200d"),
    ],
)
def test_what_depends_on_its_neighbor_waits_for_it(
    pieces: list[str], shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    growth = job_output.LiveText()
    for piece in pieces:
        growth.show(delta(piece))
    growth.end()

    assert capsys.readouterr().out == f"│ {shown}\n"


def test_a_fault_has_one_line_at_the_left_edge(capsys: pytest.CaptureFixture[str]) -> None:
    output.fault("longlook: no\nlonglook: yes\x9b\n  log")

    assert capsys.readouterr().err == "longlook: no\n  longlook: yes\\x9b\n  log\n"


def test_what_guards_find_is_told_as_it_happens_and_with_the_result(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = {"kind": "loop", "action": "forced", "tokens_saved": 7012}
    growth = job_output.LiveText()
    growth.show(delta("Again "))
    growth.show({"type": "finding", "attempt": 1, "sample": 0, "finding": found})
    job_output.result(
        job("succeeded") | {"findings": [found, {"kind": "verify", "action": "doubted"}]}
    )

    printed = capsys.readouterr()
    assert printed.err == "(loop, forced, 7012 tokens saved)\n"
    assert "found: loop, forced, 7012 tokens saved\nfound: verify, doubted\n" in printed.out


def test_a_vote_is_told_in_a_sentence() -> None:
    classes = [{"text": "6", "samples": [0, 1, 4]}, {"text": "7\x1b", "samples": [2]}]
    reported = {"requested": 8, "counted": 5, "classes": classes, "abstained": [3]}

    assert (
        job_output.votes(reported)
        == "3 of 5 samples say so; 7\\x1b: 1; without an answer: 1 (8 asked for)"
    )


def test_a_pipe_gets_json_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert not output.for_people()
    output.as_json({"answer": "sechs Möwen"})
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"answer": "sechs Möwen"}
    assert printed.count("\n") == 1
    assert "Möwen" in printed


def test_a_succeeded_job_shows_answer_and_cached_share(capsys: pytest.CaptureFixture[str]) -> None:
    job_output.result(job("succeeded"))
    printed = capsys.readouterr().out
    assert "answer: 6" in printed
    assert "100 tokens in, 93 of them cached (93%), 40 tokens out" in printed


@pytest.mark.parametrize(
    ("kind", "text", "value", "reported"),
    [
        ("number", "6", 6, ""),
        ("number", "six", 6, "value: 6\n"),
        ("choice", "B", "深绿", 'value: "深绿"\n'),
        ("number", "many", None, "value: null\n"),
        ("free", "six", None, ""),
    ],
)
def test_an_answers_value_is_shown_when_its_text_does_not_say_it(
    kind: str, text: str, value: object, reported: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"answer_format": {"type": kind}}

    job_output.result(job("succeeded", options=options, answer={"text": text, "value": value}))

    assert f"answer: {text}\n{reported}100 tokens in" in capsys.readouterr().out


def test_a_failed_job_shows_message_and_code(capsys: pytest.CaptureFixture[str]) -> None:
    job_output.result(job("failed"))
    assert "failed: The engine failed. (engine_fault)" in capsys.readouterr().out


def test_a_cancelled_job_shows_that_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    job_output.result(job("cancelled"))
    assert capsys.readouterr().out == "cancelled\n"


def test_usage_of_nothing_is_no_division_by_nothing() -> None:
    assert job_output.usage({"input_tokens": 0, "output_tokens": 0}) == "0 tokens in, 0 tokens out"


def test_a_narrow_terminal_shows_ids_and_states_whole(
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


def test_a_table_shows_markup_and_controls_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("id", "text"), [("job_1", "[red]not red[/red] \x1b[31m")])
    assert "[red]not red[/red] \\x1b[31m" in capsys.readouterr().out
