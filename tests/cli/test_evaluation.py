"""``longlook eval``: data sets, grades, intervals, reports, and how an interrupted run continues."""

import json
import math
import os
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli import client
from cli.evaluation import dataset, grading, report, runs, summary
from core import errors
from tests.cli.fake_api import Canned, job, serving


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
        {"id": 7, "image": None, "question": "Is it?", "answer": True},
    )

    count, which, boolean = dataset.read(path)

    assert (count.number, count.id, count.answers, count.kind) == (1, "1", ("6",), "count")
    assert (which.number, which.answers, which.images) == (3, ("green",), (tmp_path / "a.png",) * 2)
    assert (boolean.id, boolean.answers, boolean.images) == ("7", ("yes",), ())


def test_an_image_may_have_an_address(tmp_path: Path) -> None:
    addresses = ["https://example.com/a.png", "data:image/png;base64,AA=="]
    path = _file(tmp_path, {"images": [*addresses, "a.png"], "question": "Q", "answer": "1"})

    assert dataset.read(path)[0].images == (*addresses, tmp_path / "a.png")


@pytest.mark.parametrize(
    ("choices", "answer", "expected"),
    [
        (["red", "green"], "(B)", "green"),
        (["red", "green"], "B.", "green"),
        (["red", "green"], " green ", "green"),
        (["B", "A"], "A", "A"),
        ({"A": "red", "B": "green"}, "B", "green"),
        ({"1": "B", "2": "A"}, "2", "A"),
        ([1, 2.5, 3], 2.5, "2.5"),
        (["yes", "no"], False, "no"),
    ],
)
def test_a_choice_is_an_option_or_its_letter(
    tmp_path: Path, choices: object, answer: object, expected: str
) -> None:
    path = _file(tmp_path, {"question": "Q", "answer": answer, "choices": choices})

    assert dataset.read(path)[0].answers == (expected,)


@pytest.mark.parametrize("answer", [9, True, "z", "A or B", ["A", "z"], float("nan"), None, []])
def test_an_answer_that_is_none_of_the_choices_is_a_fault(tmp_path: Path, answer: object) -> None:
    path = _file(tmp_path, {"question": "Q", "answer": answer, "choices": ["1", "2"]})

    with pytest.raises(errors.InvalidRequest) as caught:
        dataset.read(path)

    assert [fault.pointer for fault in caught.value.faults] == ["line 1"]


@pytest.mark.parametrize("name", ["number", "boolean"])
def test_an_answer_without_a_value_of_the_format_is_a_fault(tmp_path: Path, name: str) -> None:
    """No answer could be right."""
    lines = ({"question": "Q", "answer": answer} for answer in (6, "5 cm", True, "no", "red"))
    path = _file(tmp_path, *lines, {"question": "Q", "answer": "A", "choices": ["red", "green"]})
    fit = {"number": {1, 2}, "boolean": {3, 4}}[name]

    with pytest.raises(errors.InvalidRequest) as caught:
        dataset.read(path, answer_format={"type": name})

    assert [fault.pointer for fault in caught.value.faults] == [
        f"line {number}" for number in sorted({1, 2, 3, 4, 5} - fit)
    ]


def test_an_answer_in_json_is_an_object(tmp_path: Path) -> None:
    path = _file(tmp_path, {"question": "Q", "answer": {"count": 2}})

    assert dataset.read(path, answer_format={"type": "json_object"})[0].answers == ('{"count": 2}',)
    with pytest.raises(errors.InvalidRequest):
        dataset.read(path)
    text = _file(tmp_path, {"question": "Q", "answer": "two"})
    with pytest.raises(errors.InvalidRequest, match="not a valid data set"):
        dataset.read(text, answer_format={"type": "json_schema", "schema": "any"})


def test_questions_above_the_limits_of_the_service_are_faults(tmp_path: Path) -> None:
    path = _file(
        tmp_path,
        "",
        {"images": ["a.png"] * 3, "question": "long", "answer": "1"},
        {"images": ["a.png"] * 2, "question": "Q", "answer": "1"},
    )
    items = dataset.read(path)

    with pytest.raises(errors.InvalidRequest) as caught:
        dataset.check(path, items, dataset.Limits(images=2, question_chars=3))

    assert [fault.pointer for fault in caught.value.faults] == ["line 2", "line 2"]
    dataset.check(path, items, dataset.Limits())


def test_an_error_names_every_fault_of_every_line_in_their_order(tmp_path: Path) -> None:
    path = _file(
        tmp_path,
        "{",
        "[]",
        {"image": "missing.png", "question": " ", "answer": None, "mood": "good"},
        {"id": "x", "image": "a.png", "images": ["a.png"], "question": "Q", "answer": "1"},
        {"id": "x", "image": "a.png", "question": "Q", "answer": "z", "choices": ["a", "b"]},
        {"image": "a.png", "question": "Q", "answer": "1", "choices": ["a"]},
        {"image": "a.png", "question": "Q\x00", "answer": "a", "choices": ["a", "A", "b"]},
        {"image": "a.png", "question": "The text \\u0000", "answer": "a"},
    )

    with pytest.raises(errors.InvalidRequest) as caught:
        dataset.read(path)

    pointers = [fault.pointer for fault in caught.value.faults]
    assert list(dict.fromkeys(pointers)) == [f"line {number}" for number in range(1, 8)]
    of_third = [fault.detail for fault in caught.value.faults if fault.pointer == "line 3"]
    assert len(of_third) == 4


def test_only_line_feeds_end_lines_and_a_mark_of_an_editor_is_none(tmp_path: Path) -> None:
    line = {"image": "a.png", "question": "One\u2028two\x85three?", "answer": "1"}
    path = _file(tmp_path)
    text = json.dumps(line, ensure_ascii=False)
    path.write_bytes(f"\ufeff{text}\r\n{text}\r\n".encode())

    items = dataset.read(path)

    assert [item.question for item in items] == [line["question"]] * 2


@pytest.mark.parametrize("line", ["[" * 100_000, '{"question": "\\ud800"}'])
def test_what_cannot_be_sent_is_a_fault_of_its_line(tmp_path: Path, line: str) -> None:
    path = _file(tmp_path, line)

    with pytest.raises(errors.InvalidRequest) as caught:
        dataset.read(path)

    assert [fault.pointer for fault in caught.value.faults] == ["line 1"]


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


def test_of_several_jobs_for_a_line_the_newest_that_succeeded_counts(tmp_path: Path) -> None:
    """The list has the newest first; failed lines that run again are further jobs of the run."""
    listed = [
        job(status, id=name, metadata={"eval": "r", "eval_line": line})
        for status, name, line in (
            ("queued", "job_5", "1"),
            ("succeeded", "job_4", "1"),
            ("succeeded", "job_3", "1"),
            ("failed", "job_2", "2"),
            ("failed", "job_1", "2"),
        )
    ]
    pages = [
        Canned(200, {"data": listed[:2], "has_more": True, "last_id": "job_4"}),
        Canned(200, {"data": listed[2:], "has_more": False, "last_id": "job_1"}),
    ]
    options = runs.RunOptions(None, None, None, None, None, {})
    state = runs.RunState(tmp_path / "state.json", "f", "r", "file-1", "batch_1")
    with serving({"GET /v1/jobs": pages}) as api:
        service = client.Client(api.url, key="ll_key")
        jobs = runs.Run(service, tmp_path / "set.jsonl", [], options, state).jobs()

    assert {line: one["id"] for line, one in jobs.items()} == {1: "job_4", 2: "job_2"}
    assert "q=meta.eval%3Ar" in api.seen[0].path


def test_the_data_of_an_image_in_place_of_its_path_is_a_fault_of_its_line(tmp_path: Path) -> None:
    line = {"image": "iVBORw0KGgo" * 1000, "question": "Q", "answer": 1}
    with pytest.raises(errors.InvalidRequest) as refused:
        dataset.read(_file(tmp_path, line))
    [fault] = refused.value.faults
    assert "There is no file" in fault.detail
    assert len(fault.detail) < 400


def test_an_evaluation_is_the_same_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = runs.RunOptions(None, None, None, None, None, {})
    (tmp_path / "a.png").write_bytes(b"")
    path = _file(tmp_path, {"image": "a.png", "question": "Q", "answer": 1})
    prints = {runs.fingerprint(dataset.read(path), options, "http://localhost")}
    monkeypatch.chdir(tmp_path)
    prints.add(runs.fingerprint(dataset.read(Path(path.name)), options, "http://localhost"))
    monkeypatch.chdir(tmp_path.parent)
    relative = path.relative_to(tmp_path.parent)
    prints.add(runs.fingerprint(dataset.read(relative), options, "http://localhost"))
    assert len(prints) == 1


def test_an_evaluation_is_identified_by_what_was_read() -> None:
    """A pipe cannot be read twice."""
    options = runs.RunOptions(None, None, None, None, None, {})
    prints = set()
    for answer in ("1", "1", "2"):
        reading, writing = os.pipe()
        os.write(writing, json.dumps({"question": "Q", "answer": answer}).encode())
        os.close(writing)
        with os.fdopen(reading):
            items = dataset.read(Path(f"/dev/fd/{reading}"))
            prints.add(runs.fingerprint(items, options, "http://localhost"))
    assert len(prints) == 2


def test_a_run_that_submitted_nothing_gives_way_to_other_questions(tmp_path: Path) -> None:
    first = runs.RunState.open(tmp_path, fingerprint="a")
    second = runs.RunState.open(tmp_path, fingerprint="b")
    assert first.run != second.run
    assert runs.RunState.open(tmp_path, fingerprint="b").run == second.run
    second.file_id = "file-1"
    second.save()

    with pytest.raises(errors.InvalidRequest):
        runs.RunState.open(tmp_path, fingerprint="a")


def _grade(kind: str, *, right: bool, text: str | None = "6", **job: object) -> summary.Grade:
    item = {"id": "1", "kind": kind, "question": "How many <b>?", "answers": ("6", "six")}
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


def test_a_forced_answer_is_an_answer() -> None:
    forced = {"text": "6", "rule": "boxed", "forced": True}

    total = summary.summarize(
        [_grade("count", right=True), _grade("count", right=True, answer=forced)]
    )[0]

    assert (total.answered, total.forced) == (1.0, 0.5)


@pytest.mark.parametrize("refusal", [None, "context_length_exceeded"])
def test_a_question_without_a_job_is_wrong_and_says_why(refusal: str | None) -> None:
    item = {"id": "1", "kind": "all", "question": "Q", "answers": ("6",)}

    grade = summary.grade(item, None, right=False, refusal=refusal)

    assert (grade.error, grade.text, grade.job) == (refusal or "response_deleted", None, None)


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
        outcome = grader.right(
            text, ("something else", expected), answer_format=answer_format, question="Which?"
        )
        assert outcome is right


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


def test_a_report_is_written_whatever_its_data_set_is_called(tmp_path: Path) -> None:
    grades = [_grade("count", right=True)]

    paths = report.write(
        tmp_path, grades, summary.summarize(grades), title="caf\udce9.jsonl", facts={}
    )

    assert json.loads(paths[1].read_text())["data_set"] == "caf\udce9.jsonl"


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
