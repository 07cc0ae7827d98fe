"""How commands show a job."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from cli import job_output
from tests.cli.fake_api import delta, job


def test_a_live_trace_starts_over_with_a_new_attempt(
    capsys: pytest.CaptureFixture[str],
) -> None:
    live = job_output.LiveText()
    restarted = {"type": "attempt.restarted", "attempt": 2}
    for event in (
        restarted,
        delta("Let me "),
        delta("not shown", sample=1),
        delta("look\x1b"),
        restarted,
        delta("Six."),
    ):
        live.show(event)
    live.end()

    printed = capsys.readouterr()
    assert printed.out == "│ Let me look\\x1b\n│ Six.\n"
    assert printed.err == "(attempt 2 starts over)\n"


def test_every_wrapped_line_of_a_live_trace_starts_with_a_bar(
    capsys: pytest.CaptureFixture[str],
) -> None:
    live = job_output.LiveText(16)
    for piece in ("x" * 10, " " * 20, "answer: 7\nansw", "er: 8\n\n圆圆圆圆圆圆圆圆"):
        live.show(delta(piece))
    live.end()

    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith("│")] == []
    assert max(cell_len(line) for line in lines) <= 16


def test_a_live_trace_is_wrapped_between_words(capsys: pytest.CaptureFixture[str]) -> None:
    live = job_output.LiveText(16)
    for piece in ("Let me co", "unt the pel", "icans again"):
        live.show(delta(piece))
    live.end()
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "│ Let me count",
        "│ the pelicans",
        "│ again",
    ]


def test_each_line_of_several_samples_starts_with_its_number(
    capsys: pytest.CaptureFixture[str],
) -> None:
    live = job_output.LiveText(samples=2)
    for sample, piece in ((0, "One, "), (1, "Six.\n"), (0, "two.\nThr"), (1, "End"), (0, "ee")):
        live.show(delta(piece, sample=sample))
    live.end()
    assert capsys.readouterr().out.splitlines() == [
        "│1│ Six.",
        "│0│ One, two.",
        "│0│ Three",
        "│1│ End",
    ]


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
def test_a_character_waits_for_the_next_one_that_its_display_depends_on(
    pieces: list[str], shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    live = job_output.LiveText()
    for piece in pieces:
        live.show(delta(piece))
    live.end()

    assert capsys.readouterr().out == f"│ {shown}\n"


def test_findings_are_shown_live_and_with_the_result(
    capsys: pytest.CaptureFixture[str],
) -> None:
    entry = {"kind": "loop", "action": "forced", "tokens_saved": 7012}
    live = job_output.LiveText()
    live.show(delta("Again "))
    live.show({"type": "finding", "attempt": 1, "generation": 0, "finding": entry})
    job_output.result(
        job("succeeded") | {"findings": [entry, {"kind": "verify", "action": "doubted"}]}
    )

    printed = capsys.readouterr()
    assert printed.err == "(loop, forced, 7012 tokens saved)\n"
    assert "finding: loop, forced, 7012 tokens saved\nfinding: verify, doubted\n" in printed.out


def test_votes_are_shown_as_text() -> None:
    classes = [{"text": "6", "generations": [0, 1, 4]}, {"text": "7\x1b", "generations": [2]}]
    count = {"requested": 8, "counted": 5, "classes": classes, "abstained": [3]}

    assert (
        job_output.votes(count)
        == "3 of 5 samples agree; 7\\x1b: 1; without an answer: 1 (8 requested)"
    )


def test_a_succeeded_job_shows_answer_and_cached_share(capsys: pytest.CaptureFixture[str]) -> None:
    job_output.result(job("succeeded"))
    printed = capsys.readouterr().out
    assert "answer: 6" in printed
    assert "100 tokens in, 93 of them cached (93%), 40 tokens out" in printed


@pytest.mark.parametrize(
    ("kind", "text", "value", "shown"),
    [
        ("number", "6", 6, ""),
        ("number", "six", 6, "value: 6\n"),
        ("choice", "B", "深绿", 'value: "深绿"\n'),
        ("number", "many", None, "value: null\n"),
        ("free", "six", None, ""),
    ],
)
def test_the_value_of_an_answer_is_shown_if_it_differs_from_the_text(
    kind: str, text: str, value: object, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"answer_format": {"type": kind}}

    job_output.result(job("succeeded", options=options, answer={"text": text, "value": value}))

    assert f"answer: {text}\n{shown}100 tokens in" in capsys.readouterr().out


def test_a_failed_job_shows_message_and_code(capsys: pytest.CaptureFixture[str]) -> None:
    job_output.result(job("failed"))
    assert "failed: The engine failed. (engine_fault)" in capsys.readouterr().out


def test_a_cancelled_job_shows_its_status(capsys: pytest.CaptureFixture[str]) -> None:
    job_output.result(job("cancelled"))
    assert capsys.readouterr().out == "cancelled\n"


def test_usage_without_input_tokens_has_no_cached_share() -> None:
    assert job_output.usage({"input_tokens": 0, "output_tokens": 0}) == "0 tokens in, 0 tokens out"
