"""What commands print."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from cli import formats, output, tables
from cli.client import Unreachable
from cli.formats import Format
from core import errors
from core.database_faults import DatabaseUnavailable


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
    output.as_json({"answer": "sechs Möwen"})
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"answer": "sechs Möwen"}
    assert printed.count("\n") == 1
    assert "Möwen" in printed


COLUMNS = ("id", "state", "created", "question", "answer")
ROW = ("job_" + "0" * 32, "succeeded", "11-23 10:00", "How many " * 20, "deadline_exceeded")


def test_columns_that_are_whole_keep_their_width_and_the_others_share_the_rest() -> None:
    sizes = tables.widths(COLUMNS, [ROW], width=100, whole=3)
    assert sizes is not None
    assert sizes == [36, 9, 11, 19, 17]
    assert sum(sizes) + tables.GAP * 4 == 100
    assert tables.cut(ROW[3], 19) == "How many How many …"


def test_rows_that_do_not_fit_are_not_broken() -> None:
    assert tables.widths(COLUMNS, [ROW], width=80, whole=3) is None
    assert tables.widths(COLUMNS, [ROW], width=80, whole=0) is None


def test_nothing_is_cut_in_a_pipe() -> None:
    assert tables.widths(COLUMNS, [ROW], width=None, whole=3) == [36, 9, 11, 180, 17]


@pytest.fixture
def wide_and_narrow(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[Format], list[str]]]:
    def shown(chosen: Format) -> list[str]:
        formats.choose(chosen)
        output.table(("id", "host", "text"), [("1", "here", "a\tb\nc\x1b")], wide=["host"])
        return capsys.readouterr().out.splitlines()

    yield shown
    formats.choose(None)


@pytest.mark.parametrize(
    ("chosen", "lines"),
    [
        (Format.TABLE, ["id  text", "1   a\\tb\\nc\\x1b"]),
        (Format.WIDE, ["id  host  text", "1   here  a\\tb\\nc\\x1b"]),
        (Format.TSV, ["id\thost\ttext", "1\there\ta\\tb\\nc\\x1b"]),
    ],
)
def test_each_format_has_its_columns_and_escapes_control_characters(
    wide_and_narrow: Callable[[Format], list[str]], chosen: Format, lines: list[str]
) -> None:
    assert wide_and_narrow(chosen) == lines


def test_json_lines_have_a_line_for_each_entry_of_a_page(
    capsys: pytest.CaptureFixture[str],
) -> None:
    formats.choose(Format.JSONL)
    try:
        output.as_json({"object": "list", "data": [{"id": 1}, {"id": 2}]})
        output.as_json({"id": 3})
    finally:
        formats.choose(None)
    assert capsys.readouterr().out.splitlines() == ['{"id": 1}', '{"id": 2}', '{"id": 3}']


def test_json_and_another_format_contradict_each_other() -> None:
    with pytest.raises(errors.InvalidRequest, match="--json and -o tsv"):
        formats.choose(Format.TSV, as_json=True)


def test_a_table_shows_markup_and_control_characters_literally(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.table(("id", "text"), [("job_1", "[red]not red[/red] \x1b[31m")])
    assert "[red]not red[/red] \\x1b[31m" in capsys.readouterr().out
