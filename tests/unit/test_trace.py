"""The steps of traces: kinds, places that are never cut, growth, marks, and time that is linear."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import trace
from jobs.trace import Parser, StepKind, TokenMark, parse

SAMPLES = Path(__file__).parents[2] / "models" / "tiny-qvq" / "samples" / "samples.json"
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
ENGLISH = (
    "So I've got this picture with pelicans. On the left there are 3 pelicans, e.g. the big one. Since 3 plus 3 is"
    " 6, that makes 6.\n\nWait, let me count again. There is one more behind the rock.\n\nThe area is:\n\n\\[\n\nA ="
    " \\frac{1}{2}. B\n\n\\]\n\nTherefore, the total is 7.\n\n**Final Answer**\n\n\\[ \\boxed{7} \\]"
)
CHINESE = (
    "我来仔细看这张图片。左边有3只鹈鹕。因为右边有2只，所以一共5只。\n\n等等，让我再数一遍。"  # noqa: RUF001 - Chinese punctuation
    "图中还有一只在后面。\n\n因此总共是6只。\n\n**最终答案**\n\n6"
)
#: What texts are made of, the awkward things among it.
PIECES = st.sampled_from(
    [
        *(
            "Wait, ",
            "so the total is 4. ",
            "There is a duck. ",
            "因为。",
            "等等，",  # noqa: RUF001 - same
            "图中有3只。",
            "e.g. ",
        ),
        *(
            "\n",
            "\n\n",
            " \n \n",
            "\\[",
            "\\]",
            "$",
            "$$",
            "\\(",
            "\\)",
            "\\$",
            "`",
            "```\n",
            "~~~",
        ),
        *(
            "- a\n",
            "1. b\n",
            "| c |\n",
            "\\begin{align}",
            "\\end{align}",
            "**Final Answer**",
            "## T\n",
        ),
        *("\\boxed{4}", "**", "...", "3.5", "?!", ":", " "),
        *("#", "Final", "Answer", "最终答案", "\u3000", "\x0c"),
    ]
)
TEXTS = st.lists(PIECES, max_size=40).map("".join)


def reported(text: str) -> list[tuple[StepKind, str]]:
    return [(step.kind, text[step.start : step.end]) for step in parse(text)]


def test_an_english_trace_is_split_into_steps() -> None:
    assert reported(ENGLISH) == [
        (
            StepKind.OBSERVATION,
            "So I've got this picture with pelicans. On the left there are 3 pelicans, e.g. the big one.",
        ),
        (StepKind.INFERENCE, "Since 3 plus 3 is 6, that makes 6."),
        (StepKind.RECHECK, "Wait, let me count again."),
        (StepKind.OBSERVATION, "There is one more behind the rock."),
        (StepKind.INFERENCE, "The area is:\n\n\\[\n\nA = \\frac{1}{2}. B\n\n\\]"),
        (StepKind.CONCLUSION, "Therefore, the total is 7."),
        (StepKind.ANSWER, "**Final Answer**\n\n\\[ \\boxed{7} \\]"),
    ]


def test_a_chinese_trace_is_split_into_steps() -> None:
    assert [kind for kind, _ in reported(CHINESE)] == [
        StepKind.OBSERVATION,
        StepKind.INFERENCE,
        StepKind.RECHECK,
        StepKind.OBSERVATION,
        StepKind.CONCLUSION,
        StepKind.ANSWER,
    ]


@pytest.mark.parametrize(
    ("sentence", "kind"),
    [
        ("Just to be extra sure, I go through the rows.", StepKind.RECHECK),
        ("But let's think about this more carefully.", StepKind.RECHECK),
        ("Let me think about the lamps again.", StepKind.RECHECK),
        ("Maybe there's something I'm missing.", StepKind.RECHECK),
        ("But I need to be careful here.", StepKind.RECHECK),
        ("However, I should make sure that the lamp is on.", StepKind.RECHECK),
        ("No, that can't be right.", StepKind.RECHECK),
        ("To confirm this, I compare the shadows.", StepKind.RECHECK),
        ("Looking at the lamps again, the left one is off.", StepKind.RECHECK),
        ("为了确认这一点，我从左边数起。", StepKind.RECHECK),  # noqa: RUF001 - Chinese punctuation
        ("可能我哪里算错了。", StepKind.RECHECK),
        ("换个角度，从右边数起。", StepKind.RECHECK),  # noqa: RUF001 - same
        ("这说明还有一条额外的线。", StepKind.INFERENCE),
        ("所以，需要计算总面积。", StepKind.INFERENCE),  # noqa: RUF001 - same
        ("所以我在看这张图。", StepKind.OBSERVATION),
        ("图中有一条红色的线。", StepKind.OBSERVATION),
        ("桌上有两个杯子。", StepKind.OBSERVATION),
        ("There are two lamps on the table.", StepKind.OBSERVATION),
    ],
)
def test_a_sentence_has_the_kind_of_its_words(sentence: str, kind: StepKind) -> None:
    assert reported(sentence) == [(kind, sentence)]


@pytest.mark.parametrize(
    "advice",
    [
        "Make sure that the lamp is off.",
        "Be careful with the bulb, it is hot.",
        "To make sure the bulb fits, compare the sockets.",
    ],
)
def test_advice_in_an_answer_is_no_doubt(advice: str) -> None:
    text = f"**Final Answer**\n\nSwitch the lamp off.\n\n{advice}"

    assert reported(text) == [(StepKind.ANSWER, text)]


def test_traces_of_tiny_qvq_start_with_an_observation_and_end_with_the_answer() -> None:
    for sample in json.loads(SAMPLES.read_text()):
        kinds = [kind for kind, _ in reported(sample["trace"])]
        assert kinds[0] is StepKind.OBSERVATION
        assert kinds[-1] is StepKind.ANSWER
        assert kinds.count(StepKind.ANSWER) == 1


@pytest.mark.parametrize(
    "whole",
    [
        "$a. B$",
        "$$a. B\n\nC. D$$",
        "\\(a. B\\)",
        "\\[a. B\n\nC\\]",
        "\\begin{align}a. B\n\nC\\end{align}",
        "`a. B`",
        "```python\na. B\n\n# C. D\n```",
        "| a. B |\n| C. D |",
    ],
)
def test_mathematics_code_and_tables_are_never_split(whole: str) -> None:
    text = f"There is a duck.\n\n{whole}\n\nWait, there is more. Therefore, it is 4."
    spans = [(step.start, step.end) for step in parse(text)]
    at = text.index(whole)
    assert any(start <= at and at + len(whole) <= end for start, end in spans)
    assert len(spans) >= 3


def test_a_list_belongs_to_the_paragraph_before_it() -> None:
    text = "I see these:\n\n- Wait. A duck.\n\n- A goose.\n\nTherefore, it is 2."
    assert [kind for kind, _ in reported(text)] == [StepKind.OBSERVATION, StepKind.CONCLUSION]


def test_prices_and_unclosed_brackets_are_ordinary_text() -> None:
    text = "There is $5 here. Wait, $6 there.\n\n\\[ oh.\n\nTherefore, it is 11."
    assert [kind for kind, _ in reported(text)][::2] == [StepKind.OBSERVATION, StepKind.CONCLUSION]


def test_a_recheck_after_the_answer_ends_it() -> None:
    text = "**Final Answer**\n\n6\n\nWait, let me look again. There are 7.\n\n**Final Answer**\n\n7"
    assert [kind for kind, _ in reported(text)] == [
        StepKind.ANSWER,
        StepKind.RECHECK,
        StepKind.OBSERVATION,
        StepKind.ANSWER,
    ]


@given(TEXTS, st.data())
def test_a_growing_text_has_the_steps_of_the_whole_text(text: str, data: st.DataObject) -> None:
    parser, at = Parser(), 0
    while at < len(text):
        size = data.draw(st.integers(1, len(text) - at))
        parser.feed(text[at : at + size])
        at += size
        assert parser.steps() == parse(text[:at])
    assert parser.steps() == parse(text)


def test_an_unclosed_code_block_leaves_its_paragraph_unsettled() -> None:
    text = "One.\n\n\\] `**Final Answer****Final Answer**"
    parser = Parser()
    parser.feed(text)
    assert parser.steps() == parse(text)

    parser.feed("`")

    assert parser.steps() == parse(text + "`")


@pytest.mark.parametrize(
    "text",
    [
        "So it is **\n\nFinal\n\nAnswer",
        "#\n\nFinal\n\nAnswer",
        "So it is **\n\n\u2028\n\n最终答案",
        "#\n\n\x0c\n\nfinal answer",
    ],
)
def test_a_heading_never_starts_in_settled_text(text: str) -> None:
    parser = Parser()
    for size, character in enumerate(text, 1):
        parser.feed(character)
        assert parser.steps() == parse(text[:size])
    assert StepKind.ANSWER not in [kind for kind, _ in reported(text)]


@given(TEXTS)
def test_only_white_space_is_outside_of_steps(text: str) -> None:
    at, outside = 0, ""
    for step in parse(text):
        assert at <= step.start < step.end
        outside += text[at : step.start]
        at = step.end
    assert not (outside + text[at:]).strip()


def test_times_and_tokens_are_as_precise_as_the_marks() -> None:
    text = "There is a duck.\n\nTherefore, it is 1."
    marks = [
        TokenMark(10, NOON, 3),
        TokenMark(20, NOON + timedelta(seconds=1), 6),
        TokenMark(len(text), NOON + timedelta(seconds=2), 11),
    ]
    first, second = parse(text, marks)
    assert (first.start_token, first.end_token) == (0, 6)
    assert (first.started_at, first.ended_at) == (NOON, NOON + timedelta(seconds=1))
    assert (second.start_token, second.end_token) == (3, 11)
    assert second.started_at == NOON + timedelta(seconds=1)
    assert second.ended_at == NOON + timedelta(seconds=2)


def test_without_marks_steps_have_no_times() -> None:
    step = parse("There is a duck.")[0]
    assert (step.started_at, step.ended_at, step.start_token, step.end_token) == (None,) * 4
    assert trace.VERSION >= 1


@pytest.mark.parametrize(
    "piece",
    [
        *("\\[", "\\[\n\n", "$", "```a\n", ". ", ".", "\n", " ", "- a\n\n", "a:\n\n- b\n\n", "** "),
        *(
            "# a\n\n",
            "\\begin{a}",
            "`",
            "` ",
            "**Final Answer**\n",
            "let me ",
            "again ",
            "。",
            "图",
            "|\n",
        ),
    ],
)
def test_hostile_texts_take_linear_time(piece: str) -> None:
    text = piece * (50_000 // len(piece))
    begun = time.process_time()
    steps = parse(text)
    assert time.process_time() - begun < 10
    assert len(steps) <= len(text)
