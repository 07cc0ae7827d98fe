"""The benchmark of answers: its grades, the rules of the other extractors, and the tables of a small folder."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from bench import answers, extractors
from bench.judging import REFUSAL, Grade, grade

LAMPS = "The lamp stands in front.\n\n**Final Answer**\n\n\\[ \\boxed{6} \\]"
LOOP = "The lamp stands in front of the red chair, so it is closer. "


def write(folder: Path, name: str, *outputs: dict[str, Any]) -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(output) + "\n" for output in outputs), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("answer", "expected", "choice", "result"),
    [
        ("6", "6", False, Grade.RIGHT),
        ("6.", "6", False, Grade.RIGHT),
        ("\\text{A red lamp}", "A red lamp", False, Grade.MARKUP),
        ("5\\ \\text{km}", "5 km", False, Grade.MARKUP),
        ("\\[ x^2 \\]", "x^2", False, Grade.MARKUP),
        ("F_{\\text{max}} = 5", "F_{\\text{max}} = 5", False, Grade.RIGHT),
        ("It is $5\\,\\text{km}$ long.", "It is $5\\,\\text{km}$ long.", False, Grade.RIGHT),
        ("\\dfrac{n(n+1)}{2}", "\\frac{n(n + 1)}{2}", False, Grade.RIGHT),
        ("m²", "m^2", False, Grade.RIGHT),
        ("1. Left\n2. Right", "**1.** Left\n\n**2.** Right", False, Grade.RIGHT),
        ("16", "6", False, Grade.WRONG),
        ("1.6", "16", False, Grade.WRONG),
        ("x+y", "x-y", False, Grade.WRONG),
        ("(B) lamp", "B", True, Grade.RIGHT),
        ("\\text{B}", "B", True, Grade.MARKUP),
        ("A", "B", True, Grade.WRONG),
        ("A lamp", "A", True, Grade.WRONG),
        ("A", "A, B", True, Grade.WRONG),
        ("B lamps", "B", False, Grade.WRONG),
        (None, "B", True, Grade.NONE),
        (None, None, True, Grade.RIGHT),
        ("6", None, False, Grade.WRONG),
        (None, REFUSAL, False, Grade.NONE),
        ("I cannot say.", REFUSAL, False, Grade.WRONG),
    ],
)
def test_an_answer_gets_its_grade(
    answer: str | None, expected: str | None, *, choice: bool, result: Grade
) -> None:
    assert grade(answer, expected, choice=choice) is result


def test_a_reported_refusal_is_right() -> None:
    assert grade(None, REFUSAL, choice=False, refused=True) is Grade.RIGHT


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("math verify", "So \\boxed{6} lamps", "6"),
        ("Qwen QwQ", "\\boxed{\\text{six}} or \\boxed{7", "7"),
        ("Qwen QwQ", "The answer is 6", "6"),
        ("Qwen QwQ", "I see 6 lamps and 7 chairs.", "7"),
        ("Qwen QwQ", "I see lamps.", None),
        ("VLMEval post", "\\boxed{1} \\boxed{\\text{six}} left", "\\text{six}"),
        ("VLMEval post", "I see lamps.", "I see lamps."),
        ("lmms reason", "\\boxed{ 1 } \\boxed{2}", "1"),
        ("lmms reason", "<answer> 6 </answer> \\boxed{2}", "6"),
        ("lmms reason", "I see lamps.", "I see lamps."),
        ("lmms tag", "\\boxed{1} \\boxed{2", "1"),
        ("lmms tag", "There are 5.\nI see lamps.", "5"),
        ("lmms tag", "I see lamps.", None),
        ("first box", "\\boxed{1} \\boxed{2}", "1"),
        ("first box", "x_{1} is \\boxed{1}", None),
    ],
)
def test_an_extractor_follows_the_rule_of_its_project(
    name: str, text: str, found: str | None
) -> None:
    assert extractors.EXTRACTORS[name](text) == found


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("VLMEval MCQ", "I take this: (B)", "B"),
        ("VLMEval MCQ", "A or B", None),
        ("VLMEval MCQ", "B it is, as the lamp is in front of the chair", None),
        ("lmms MMMU", "(A) is behind (B), not in front of it", "B"),
        ("lmms MMMU", "I take B.", "B"),
    ],
)
def test_an_extractor_of_letters_follows_the_rule_of_its_project(
    name: str, text: str, found: str | None
) -> None:
    assert extractors.CHOICES[name](text, "AB") == found


@pytest.fixture
def outputs(tmp_path: Path) -> list[answers.Output]:
    write(
        tmp_path,
        "cut.jsonl",
        {"text": "The lamp stands in", "expected": None, "finish": "length", "format": "choice"},
        {"text": LOOP * 60, "finish": "length"},
    )
    write(
        tmp_path,
        "whole.jsonl",
        {"set": "lamps", "text": LAMPS, "expected": "6", "finish": "stop"},
        {"set": "lamps", "text": LAMPS, "expected": "7", "finish": "stop"},
        {"set": "lamps", "text": LAMPS.replace("6", "\\text{six}"), "expected": "six"},
    )
    return list(answers.read([tmp_path]))


def test_the_answers_of_a_folder_are_counted(outputs: list[answers.Output]) -> None:
    tally = answers.Tally.of([output for output in outputs if output.known])

    assert tally.rules == {
        ("cut", "length", "none"): {Grade.RIGHT: 1},
        ("lamps", "stop", "heading+boxed"): {Grade.RIGHT: 2, Grade.WRONG: 1},
    }
    assert tally.shares["lamps"]["VLMEval post"] == {
        Grade.RIGHT: 1, Grade.WRONG: 1, Grade.MARKUP: 1
    }  # fmt: skip
    assert tally.shares["cut"]["VLMEval post"] == {Grade.WRONG: 1}
    assert "lmms MMMU" in tally.shares["cut"]
    assert "lmms MMMU" not in tally.shares["lamps"]
    assert tally.missed == [("whole.jsonl:2", Grade.WRONG, "heading+boxed", "7", "6")]


def test_a_refusal_that_the_product_reports_is_right(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "refused.jsonl",
        {"text": "I'm sorry, but I can't help with that.", "expected": REFUSAL},
        {"text": "The lamp is red.", "expected": REFUSAL},
    )

    tally = answers.Tally.of(list(answers.read([path])))

    assert tally.rules["refused", "stop", "refusal"] == {Grade.RIGHT: 1}
    assert tally.shares["refused"]["Longlook"] == {Grade.RIGHT: 1, Grade.WRONG: 1}


def test_the_alarms_of_a_folder_are_counted(outputs: list[answers.Output]) -> None:
    alarms = answers.Alarms.of(outputs, chunk=4)

    cut, lamps = alarms.groups["cut"], alarms.groups["lamps"]
    assert (cut.outputs, lamps.outputs) == (2, 3)
    assert cut.kinds == {"budget": 1, "loop": 1}
    assert lamps.kinds == {}
    assert cut.tokens == 5 + len(LOOP) * 60 // 4
    assert 0 < cut.saved < cut.tokens
    assert lamps.saved == 0
    assert [place[:3] for place in alarms.places] == [
        (0, "cut.jsonl:1", "budget"),
        (0, "cut.jsonl:2", "loop"),
    ]


def test_a_finding_before_new_text_is_doubtful(tmp_path: Path) -> None:
    text = LOOP * 60 + "Nobody has said a word about the green door in the hall so far."
    path = write(tmp_path, "doubtful.jsonl", {"text": text}, {"text": LOOP * 60})

    alarms = answers.Alarms.of(list(answers.read([path])), chunk=4)

    found = alarms.groups["doubtful"]
    assert (found.kinds, found.doubtful) == ({"loop": 2}, 1)


def test_a_loop_that_is_read_to_its_end_is_missed(tmp_path: Path) -> None:
    dice = random.Random(1)
    thought = "".join(dice.choice("abcdefghij ") for _ in range(9000))
    path = write(tmp_path, "long.jsonl", {"text": thought * 3}, {"text": thought})

    found = answers.Alarms.of(list(answers.read([path])), chunk=4).groups["long"]

    assert found.missed == 1
    assert "loop" not in found.kinds


def test_it_prints_its_tables(
    outputs: list[answers.Output], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers.main([str(tmp_path), "--most", "2", "--list", "9"])

    printed = capsys.readouterr().out
    assert len(outputs) == 5
    assert "lamps, 2" in printed
    assert "50/50/0" in printed
    assert "cut.jsonl:2" in printed


def test_a_sample_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "many.jsonl",
        *({"text": str(number), "expected": str(number)} for number in range(50)),
    )

    def drawn(seed: int) -> list[str]:
        return [out.text for out in answers.sampled(answers.read([path]), most=5, seed=seed)]

    assert len(drawn(1)) == 5
    assert drawn(1) == drawn(1) != drawn(2)
    assert drawn(1) == sorted(drawn(1), key=int)
    assert len(list(answers.sampled(answers.read([tmp_path]), most=None, seed=1))) == 50


def test_without_outputs_it_says_where_they_come_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers.main([str(tmp_path / "missing")])

    assert "bench/README.md" in capsys.readouterr().out
