"""``longlook eval``: data sets, grades, intervals, reports, and how an interrupted run continues."""

import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.evaluation import dataset, grading, report, summary
from core import errors


def _file(folder: Path, *lines: object, name: str = "set.jsonl") -> Path:
    (folder / "a.png").write_bytes(b"any")
    path = folder / name
    path.write_text(
        "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    )
    return path


def test_a_line_has_an_image_a_question_and_an_answer(tmp_path: Path) -> None:
    path = _file(
        tmp_path,
        {"image": "a.png", "question": "How many?", "answer": 6, "kind": "count"},
        "",
        {
            "id": "which",
            "images": ["a.png", "a.png"],
            "question": "Which?",
            "answer": "b",
            "choices": ["red", "green"],
        },
        {"id": 7, "image": "a.png", "question": "Is it?", "answer": True},
    )

    count, which, boolean = dataset.read(path)

    assert (count.number, count.id, count.answer, count.kind) == (1, "1", "6", "count")
    assert (which.number, which.answer, which.images) == (3, "green", (tmp_path / "a.png",) * 2)
    assert (boolean.id, boolean.answer) == ("7", "yes")


def test_an_error_names_every_fault_of_every_line(tmp_path: Path) -> None:
    path = _file(
        tmp_path,
        "{",
        "[]",
        {"image": "missing.png", "question": " ", "answer": None, "mood": "good"},
        {"id": "x", "image": "a.png", "images": ["a.png"], "question": "Q", "answer": "1"},
        {"id": "x", "image": "a.png", "question": "Q", "answer": "z", "choices": ["a", "b"]},
        {"image": "a.png", "question": "Q", "answer": "1", "choices": ["a"]},
    )

    with pytest.raises(errors.InvalidRequest) as caught:
        dataset.read(path)

    found = {(fault.pointer, fault.detail.partition(" ")[0]) for fault in caught.value.faults}
    assert {pointer for pointer, _ in found} == {f"line {number}" for number in range(1, 7)}
    of_third = [fault.detail for fault in caught.value.faults if fault.pointer == "line 3"]
    assert len(of_third) == 4


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff\xfe"])
def test_a_file_without_questions_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(content)

    with pytest.raises(errors.InvalidRequest):
        dataset.read(path)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_ends_of_an_interval_are_the_shares_whose_score_is_the_quantile(
    counts: tuple[int, int],
) -> None:
    right, questions = counts
    share = right / questions

    low, high = summary.wilson(right, questions)

    assert 0 <= low <= share + 1e-9
    assert share - 1e-9 <= high <= 1
    for end in {low, high} - {0.0, 1.0}:
        score = (share - end) / math.sqrt(end * (1 - end) / questions)
        assert abs(abs(score) - 1.959964) < 1e-3 or math.isclose(end, share, abs_tol=1e-9)


def _grade(kind: str, *, right: bool, text: str | None = "6", **job: object) -> summary.Grade:
    item = {"id": "1", "kind": kind, "question": "How many <b>?", "answer": "6"}
    whole = {
        "id": "job_1",
        "status": "succeeded",
        "answer": None if text is None else {"text": text, "rule": "boxed", "forced": False},
        "usage": {
            "input_tokens": 100,
            "cached_tokens": 40,
            "output_tokens": 10,
            "engine_seconds": 1.5,
        },
        **job,
    }
    return summary.grade(item, whole, right=right)


def test_a_summary_counts_each_kind_and_all() -> None:
    grades = [
        _grade("count", right=True),
        _grade("count", right=False, text=None, status="failed", error={"code": "timeout"}),
        _grade("color", right=True),
    ]

    color, count, total = summary.summarize(grades)

    assert (color.kind, color.questions, color.accuracy) == ("color", 1, 1.0)
    assert (count.accuracy, count.answered, count.failed) == (0.5, 0.5, 1)
    assert (total.questions, total.right) == (3, 2)
    assert total.cached == pytest.approx(0.4)
    assert summary.summarize(grades[:2])[-1].kind == "count"


def test_a_question_without_a_job_is_wrong_and_not_submitted() -> None:
    item = {"id": "1", "kind": "all", "question": "Q", "answer": "6"}

    grade = summary.grade(item, None, right=False)

    assert (grade.error, grade.text, grade.job) == ("not_submitted", None, None)


@pytest.mark.parametrize(
    ("text", "expected", "answer_format", "right"),
    [
        ("The answer is 6.", "6", {"type": "number"}, True),
        ("six or seven", "6", {"type": "number"}, False),
        ("B", "green", {"type": "choice", "options": ["red", "green"]}, True),
        ("red", "green", {"type": "choice", "options": ["red", "green"]}, False),
        (r"\frac{1}{2}", "0.5", None, True),
        (r"x^2 + 2x + 1", r"(x+1)^2", None, True),
        ("Paris", "London", None, False),
        ("I cannot say.", "I cannot say.", {"type": "number"}, False),
    ],
)
def test_an_answer_is_right_if_it_means_the_same(
    text: str, expected: str, answer_format: dict[str, Any] | None, *, right: bool
) -> None:
    with grading.grader() as grader:
        assert grader.right(text, expected, answer_format=answer_format, question="Which?") is right


class _Loads(HTMLParser):
    """Collects what a page would load or run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [tag] if tag in {"script", "img", "link", "iframe", "b"} else []
        self.found += [
            name for name, _ in attrs if name.startswith("on") or name in {"src", "href"}
        ]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_report_shows_the_figures_and_runs_nothing_of_the_data(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>\x1b[2J"
    grades = [_grade("count", right=False, text=hostile), _grade(hostile, right=True)]

    paths = report.write(
        tmp_path, grades, summary.summarize(grades), title="set", facts={"model": hostile}
    )

    lines = [json.loads(line) for line in paths[0].read_text().splitlines()]
    assert [line["text"] for line in lines] == [hostile, "6"]
    assert [one["kind"] for one in json.loads(paths[1].read_text())["summaries"]][-1] == "total"
    page = _Loads()
    page.feed(paths[2].read_text())
    assert page.found == []
    assert "\x1b" not in paths[2].read_text()
    assert any("50.0 %" in text for text in page.texts)


def test_a_report_fits_a_narrow_screen_and_has_both_color_schemes() -> None:
    grades = [_grade("a kind with a name that is longer than the room next to its bar", right=True)]

    text = report.page(
        grades, summary.summarize(grades), title="set", facts={"model": "tiny-qvq", "samples": 5}
    )

    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    assert "color-scheme: light dark" in text
    assert text.count("<table>") == text.count('<div class="wide"><table>') == 3
    assert text.count("<svg ") == text.count('<div class="wide"><svg ') == 2
    page = _Loads()
    page.feed(text)
    assert "a kind with a name th…" in page.texts
    assert {"tiny-qvq", "5"} <= set(page.texts)
