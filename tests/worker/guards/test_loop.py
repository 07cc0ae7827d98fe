"""What repeats itself, verbatim or in other words, is a loop; what repeats by nature is not."""

from __future__ import annotations

import random

import pytest

from jobs.findings import FindingKind
from tests.worker.guarded import feed, make_guards
from worker.guards.chain import GuardChain

ALL = dict.fromkeys(("loop", "budget", "language"), True)
OPENING = "Let me look at the picture, where five red circles are near the left edge. "


def make_watch(question: str = "How many circles?", **switched: bool) -> GuardChain:
    return make_guards(ALL | switched, question=question)


@pytest.mark.parametrize(
    "unit",
    ["a", "So I count again. ", "等等，让我再看一下。", "Then there is x. " * 20 + "But no. ", "1 2 3 4 "],  # noqa: RUF001 - Chinese as written
    ids=["letter", "sentence", "Chinese", "long", "numbers"],
)  # fmt: skip
def test_four_copies_of_anything_long_enough_are_a_loop_cut_after_the_first(unit: str) -> None:
    verdict, _ = feed(make_watch(), OPENING + unit * 1200)

    assert verdict is not None
    assert verdict.finding.kind is FindingKind.LOOP
    assert verdict.finding.evidence["copies"] >= 4
    assert len(OPENING) - 2 <= verdict.finding.start <= len(OPENING)
    assert (
        len(OPENING) - 2 <= verdict.stored <= len(OPENING) + 2 * verdict.finding.evidence["period"]
    )


@pytest.mark.parametrize("period", [1, 7, 70, 300, 1999])
def test_a_loop_is_seen_within_six_copies_or_five_hundred_characters(period: int) -> None:
    dice = random.Random(period)
    unit = "".join(dice.choice("abcdefgh ijklm") for _ in range(period))

    verdict, seen = feed(make_watch(), OPENING + unit * 2000)

    assert verdict is not None
    assert seen <= len(OPENING) + max(6 * period, 500)


@pytest.mark.parametrize(
    "text",
    [
        OPENING + "|---|---|---|\n" * 12,
        OPENING + "-" * 1000,
        OPENING + "0" * 200,
        OPENING + ("So I count again. " * 3),
        "".join(f"{n}. There is a circle, number {n}.\n" for n in range(300)),
        "\\begin{pmatrix}\n" + ("0 & " * 19 + "0 \\\\\n") * 20 + "\\end{pmatrix}",
        OPENING + "| circle | red | small |\n" * 40,
    ],
    ids=["table", "rule", "zeros", "three times", "enumeration", "matrix", "rows"],
)
def test_text_that_repeats_by_nature_is_no_loop(text: str) -> None:
    verdict, seen = feed(make_watch(), text)
    assert verdict is None
    assert seen == len(text)


def test_the_same_in_other_words_is_a_loop_after_a_thousand_tokens() -> None:
    dice = random.Random(1)
    said = (
        "Wait, let me re-check the left edge, number {}. ",
        "Hmm, alternatively there may be {} circles. ",
        "Wait, let me recount them, {} of them. ",
    )
    text = OPENING + "".join(dice.choice(said).format(dice.randint(1, 99)) for _ in range(400))

    verdict, _ = feed(make_watch(), text)

    assert verdict is not None
    assert verdict.finding.kind is FindingKind.PARAPHRASE_LOOP
    assert verdict.finding.tokens_saved <= 4096 - 1000


@pytest.mark.parametrize(
    "said",
    [
        ["左边三只。", "右边两只。", "一共五只。", "中间一只。", "上面没有。", "下面四只。"],
        [f"第{number}次数，左边有三只。" for number in "一二三四五六七八九十"],  # noqa: RUF001 - Chinese as written
        [f"Count {number}: I see a circle on the left. " for number in range(90)],
    ],
    ids=["short sentences", "Chinese numerals", "numbers"],
)
def test_a_loop_without_a_doubt_is_one_by_its_sentences_in_chinese_too(said: list[str]) -> None:
    dice = random.Random(1)
    text = OPENING + "".join(dice.choice(said) for _ in range(1000))

    verdict, _ = feed(make_watch(), text)

    assert verdict is not None
    assert verdict.finding.kind is FindingKind.PARAPHRASE_LOOP


def test_rows_of_a_table_that_never_ends_are_a_loop() -> None:
    verdict, seen = feed(make_watch(), OPENING + "| circle | red | small |\n" * 500)

    assert verdict is not None
    assert verdict.finding.kind is FindingKind.LOOP
    assert seen < 2500
