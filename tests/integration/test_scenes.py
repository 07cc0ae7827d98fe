"""The data of the small model: scenes, questions with true answers, the exam, and the shipped samples."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import scenes as bench
from models.training import exam, forced, foreign, questions, scenes

TINY = Path(__file__).resolve().parents[2] / "models" / "tiny-qvq"

seeds = st.integers(0, 2**32)


@given(seeds)
def test_shapes_do_not_overlap_and_are_in_their_stated_cell(seed: int) -> None:
    rng = random.Random(seed)
    scene = scenes.sample(rng)

    cells = [(thing.row, thing.column) for thing in scene.things]
    assert cells == sorted(set(cells))
    for thing in scene.things:
        assert (thing.row, thing.column) == (int(thing.y) + 1, int(thing.x) + 1)
        assert 1 <= thing.row <= scene.rows
        assert 1 <= thing.column <= scene.columns


@given(seeds, st.sampled_from(questions.KINDS))
def test_a_trace_lists_every_shape_and_boxes_the_true_answer(seed: int, kind: str) -> None:
    rng = random.Random(seed)
    scene = scenes.sample(rng)
    question = questions.ask(rng, scene, kind)

    trace, truth = questions.reason(rng, scene, question)

    assert exam.boxed(trace) == truth == questions.answer(scene, question)
    assert exam.listing(trace) == [
        (str(thing.row), str(thing.column), thing.colour, thing.shape) for thing in scene.things
    ]


@given(st.integers(150, 900), st.floats(1, 1.8))
def test_grids_are_within_the_processors_limits(longer: int, ratio: float) -> None:
    rows, columns = scenes.grid_of(longer, round(longer / ratio))

    assert scenes.MIN_PIXELS <= rows * columns * scenes.TOKEN**2 <= scenes.MAX_PIXELS


def test_the_same_seed_creates_the_same_exam_to_the_pixel() -> None:
    first, second = ([*exam.sheets(12, seed=7)] for _ in range(2))

    assert [(s.question, s.answer, s.image.tobytes()) for s in first] == [
        (s.question, s.answer, s.image.tobytes()) for s in second
    ]


def test_another_seed_creates_another_exam() -> None:
    first, second = ([*exam.sheets(12, seed=seed)] for seed in (7, 8))

    assert all(a.image.tobytes() != b.image.tobytes() for a, b in zip(first, second, strict=True))


def test_an_exam_has_all_numbers_of_shapes_and_all_kinds_of_questions() -> None:
    sheets = [*exam.sheets(120)]

    assert {sheet.things for sheet in sheets} == set(range(9))
    assert {sheet.kind for sheet in sheets} == set(questions.KINDS)
    assert all(150 <= max(sheet.image.size) <= 900 for sheet in sheets)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("\\boxed{3}", "3"),
        ("\\boxed{1} no, \\boxed{ yes }", "yes"),
        ("\\boxed{", None),
        ("3", None),
    ],
)
def test_the_last_box_counts(text: str, answer: str | None) -> None:
    assert exam.boxed(text) == answer


def test_the_exam_does_not_need_the_engines_environment() -> None:
    code = "import sys, models.training.exam; print({'numpy', 'torch', 'transformers'} & {*sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=TINY.parents[1],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.strip() == "set()"


def test_every_sample_has_its_image_and_every_image_its_sample() -> None:
    samples = json.loads((TINY / "samples" / "samples.json").read_text())

    assert {sample["file"] for sample in samples} == {
        path.name for path in (TINY / "samples").glob("*.png")
    }
    assert all(exam.boxed(sample["trace"]) == sample["truth"] for sample in samples)


def test_the_model_card_states_consistent_results_for_every_kind() -> None:
    marks = bench.card()

    assert set(marks) == set(questions.KINDS)
    correct, total = (
        sum(getattr(mark, name) for mark in marks.values()) for name in ("right", "requested")
    )
    assert f"({correct})" in bench.CARD.read_text()
    assert total == 1300


@given(seeds, st.sampled_from(questions.KINDS))
def test_a_truncated_trace_continues_to_the_same_answer(seed: int, kind: str) -> None:
    rng = random.Random(seed)
    scene = scenes.sample(rng)
    trace, truth = questions.reason(rng, scene, questions.ask(rng, scene, kind))

    cut = forced.cut(rng, trace, truth)

    start, heading, _ = cut.said.partition("\n\n**Final Answer**")
    assert trace.startswith(start)
    assert heading
    assert exam.boxed(cut.said) is None
    assert exam.boxed(cut.said + cut.rest) == truth


@given(seeds)
def test_an_unknown_question_is_filled_in_and_not_part_of_the_exam(seed: int) -> None:
    question = foreign.ask(random.Random(seed))

    assert "{" not in question
    assert question not in foreign.UNSEEN
    assert not any(shape in question for shape in scenes.SHAPES)


@given(seeds)
def test_an_honest_trace_says_that_it_cannot_answer(seed: int) -> None:
    trace, answer = foreign.reason(random.Random(seed))

    assert exam.boxed(trace) == answer == foreign.ANSWER
    assert exam.listing(trace) == []
