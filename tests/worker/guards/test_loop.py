"""What repeats itself, verbatim or in other words, is a loop; what repeats by nature is not."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from jobs.answers import extraction
from jobs.findings import FindingKind
from tests.worker.guarded import feed, feed_chunks, make_guards
from worker.guards.chain import GuardChain

ALL = dict.fromkeys(("loop", "budget", "language"), True)
OPENING = "Let me look at the picture, where five red circles are near the left edge. "


def make_watch(question: str = "How many circles?", *, tokens: int = 4096) -> GuardChain:
    return make_guards(ALL, question=question, budget=tokens)


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
        OPENING + "MILK 1L      1.19 EUR\n" * 20 + "TOTAL 23.80\n",
        OPENING + "- A grey gull on the rail\n" * 35,
        OPENING + "```\n" + "forward(10)\nleft(90)\n" * 12 + "```\n",
        OPENING + (". " * 39 + ".\n") * 40,
    ],
    ids=[
        *("table", "rule", "zeros", "three times", "enumeration", "matrix", "rows"),
        *("receipt", "bullets", "code", "empty grid"),
    ],
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


@pytest.mark.parametrize("marks", [" - - -", ". . . ", "|", "\n", "=" * 80])
def test_a_rule_that_never_ends_is_a_loop(marks: str) -> None:
    verdict, seen = feed(make_watch(), OPENING + marks * (12_000 // len(marks)))

    assert verdict is not None
    assert verdict.finding.kind is FindingKind.LOOP
    assert seen < (4300 if "\n" in marks else 1800)


@pytest.mark.parametrize(
    "line",
    ["| circle | red | small |\n", "MILK 1L      1.19 EUR\n", "- A grey gull on the rail\n"],
)
def test_rows_and_lines_that_never_end_are_a_loop(line: str) -> None:
    verdict, seen = feed(make_watch(), OPENING + line * 500)

    assert verdict is not None
    assert verdict.finding.kind is FindingKind.LOOP
    assert seen < 2500


BOX = "\n\n**Final Answer**\n\n\\[ \\boxed{6} \\]\n\n"
RECHECK = "The lamp stands in front. Let me count once more.\n\n"


def random_text(length: int, seed: int = 1) -> str:
    dice = random.Random(seed)
    return "".join(dice.choice("abcdefgh ijklmnopq rstuvw xyz ") for _ in range(length))


@pytest.mark.parametrize("period", [250, 600, 1797, 2099, 2702, 4000, 5990])
@pytest.mark.parametrize("size", [4, 17])
def test_a_long_loop_is_seen_in_its_third_copy(period: int, size: int) -> None:
    text = OPENING + random_text(period) * 8

    verdict, seen = feed_chunks(make_watch(), text, size)

    assert verdict is not None
    assert verdict.finding.evidence["period"] == period
    assert seen < len(OPENING) + (3 if period > 1000 else 3.7) * period + 400
    assert abs(verdict.stored - len(OPENING) - period) < 100


@pytest.mark.parametrize(("period", "copies"), [(2000, 2), (600, 3)])
def test_a_thought_that_comes_back_and_goes_on_is_no_loop(period: int, copies: int) -> None:
    text = OPENING + random_text(period) * copies + random_text(3000, 2)

    assert feed(make_watch(), text) == (None, len(text))


@pytest.mark.parametrize("ahead", ["", RECHECK, random_text(3000, 2)])
@pytest.mark.parametrize("size", [1, 4, 17])
def test_a_boxed_answer_that_is_given_again_is_a_loop_at_once(ahead: str, size: int) -> None:
    unit = random_text(1300) + BOX + random_text(1250, 3)

    verdict, seen = feed_chunks(make_watch(), ahead + unit * 5, size)

    assert verdict is not None
    assert (verdict.finding.kind, verdict.inserted) == (FindingKind.LOOP, "")
    assert seen < len(ahead) + 2 * len(unit)
    stored = (ahead + unit)[: verdict.stored]
    assert extraction.extract(stored, ended=True) == extraction.Answer("6", "heading+boxed")
    assert stored.endswith("\\boxed{6} \\]")


def test_an_answer_of_prose_that_is_given_again_is_cut_after_the_first() -> None:
    answer = "**Final Answer**\n\nTo change the bulb, do this:\n\n1. " + random_text(1400) + "\n\n"

    verdict, seen = feed(make_watch(), RECHECK + answer * 6)

    assert verdict is not None
    assert verdict.inserted == ""
    assert verdict.stored == len((RECHECK + answer).rstrip())
    assert seen < len(RECHECK) + 2 * len(answer) + 200


def test_an_answer_in_a_loop_stands_whole() -> None:
    # The first copy starts in the answer, so that its end would cut the answer in two.
    unit = (
        "There are six lamps: "
        + random_text(300)
        + "\n\nWait, I look again. "
        + random_text(900, 2)
    )
    text = OPENING + "\n\n**Final Answer**\n\n" + unit + ("\n\n**Final Answer**\n\n" + unit) * 5

    verdict, _ = feed(make_watch(), text)

    assert verdict is not None
    assert verdict.inserted == ""
    assert text[: verdict.stored].endswith(random_text(300).rstrip())


@pytest.mark.parametrize(
    "text",
    [
        RECHECK + BOX + "Wait, let me count the lamps at the back once more. They are dark." + BOX.rstrip(),
        "".join(f"**Question {n}**\n\n{random_text(300, n)}" + BOX for n in range(1, 5)),
        RECHECK + BOX + RECHECK + BOX.replace("6", "7") + "I am sure now. " * 3,
    ],
    ids=["confirmed at the end", "several questions", "corrected"],
)  # fmt: skip
def test_a_second_final_answer_can_be_honest(text: str) -> None:
    assert feed(make_watch(), text) == (None, len(text))


def letters(number: int) -> str:
    """Return A to Z, AA, AB and so on."""
    text = ""
    while number:
        number, rest = divmod(number - 1, 26)
        text = chr(65 + rest) + text
    return text


_ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
_TENS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
    "twelve": "twelfth",
}  # fmt: skip


def words(number: int) -> str:
    """Return a number below a thousand in words."""
    if number < 20:
        return _ONES[number]
    if number < 100:
        return _TENS[number // 10] + (f"-{_ONES[number % 10]}" if number % 10 else "")
    rest = f" and {words(number % 100)}" if number % 100 else ""
    return f"{_ONES[number // 100]} hundred{rest}"


def ordinal(number: int) -> str:
    """Return the ordinal of a number below a thousand, with hyphens."""
    head, hyphen, last = words(number).replace(" and ", "-").replace(" ", "-").rpartition("-")
    if last in _ORDINALS:
        return head + hyphen + _ORDINALS[last]
    return head + hyphen + (last[:-1] + "ieth" if last.endswith("y") else last + "th")


def chinese(number: int) -> str:
    """Return a number below a thousand in Chinese numerals."""
    digits = "零一二三四五六七八九"
    hundreds, tens, ones = number // 100, number // 10 % 10, number % 10
    text = f"{digits[hundreds]}百" if hundreds else ""
    if tens:
        text += ("" if tens == 1 and not hundreds else digits[tens]) + "十"
    elif hundreds and ones:
        text += "零"
    return text + (digits[ones] if ones else "")


COUNTS = {
    "words": lambda n: f"There is one more lamp, number {words(n)}. ",
    "ordinals": lambda n: f"The {ordinal(n)} row is also blank. ",
    "ordinals of digits": lambda n: f"The {n}th row is also blank. ",
    "letters": lambda n: f"Point {letters(n)} is joined to point {letters(n + 1)}. ",
    "arrows": lambda n: f"{letters(n)}->{letters(n + 1)}, ",
    "bare": lambda n: f"{n}, ",
    "lines": lambda n: f"{n}\n",
    "bare words": lambda n: f"{words(n)}, ",
    "JSON": lambda n: f'{{"id": {n}, "name": "lamp", "color": "red"}}, ',
    "names": lambda n: f'{{"name": "lamp_{n}", "x": {n * 7919 % 500}}}, ',
    "Chinese": lambda n: f"第{chinese(n % 1000)}行是空白的。",
    "gulls": lambda n: f"Gull {n}: grey, on the rail, facing the sea.\n",
    "list": lambda n: f"{letters(n).lower()}) a red lamp\n",
    "downwards": lambda n: f"There are {5000 - n} lamps left. ",
    "sevens": lambda n: f"{7 * n}, ",
    "grid": lambda n: f"Row {n // 10}, column {n % 10}: empty.\n",
    "rows compared": lambda n: f"The {n}th row is the same as the {n - 1}th row. ",
    "pairs": lambda n: f"Compare dot {n // 24 + 1} and dot {n % 24 + 1}: equal.\n",
    "bytes": lambda n: f"{n * 16:08x}  {'00 ' * 16}\n",
}  # fmt: skip


@pytest.mark.parametrize("item", COUNTS.values(), ids=COUNTS)
@pytest.mark.parametrize("size", [4, 40])
def test_a_count_without_end_is_a_loop_and_its_first_items_stand(
    item: Callable[[int], str], size: int
) -> None:
    text, number = RECHECK, 0
    while len(text) < 40_000 and (number := number + 1) < (
        1000 if "one" in item(1) or "first" in item(1) else 5000
    ):
        text += item(number)

    verdict, seen = feed_chunks(make_watch(tokens=50_000), text, size)

    assert verdict is not None
    assert verdict.finding.kind is FindingKind.PARAPHRASE_LOOP
    # Without items it is too long a text that is all alike.
    assert verdict.finding.evidence.get("items", 101) > 100
    assert seen < 0.75 * len(text)
    assert len(RECHECK) + 250 < verdict.stored < len(RECHECK) + 7000
    assert verdict.inserted


def test_an_answer_before_a_count_without_end_stands() -> None:
    text = RECHECK + BOX + "".join(map(COUNTS["gulls"], range(1, 900)))

    verdict, _ = feed(make_watch(tokens=50_000), text)

    assert verdict is not None
    assert verdict.inserted == ""
    answer = extraction.extract(text[: verdict.stored], ended=True)
    assert answer is not None
    assert answer.text == "6"


def test_an_answer_of_prose_before_a_loop_stands() -> None:
    answer = RECHECK + "**Final Answer**\n\nThere are six lamps.\n\n"
    loop = "Wait, let me see. " + "So I count them again. " * 60

    verdict, _ = feed(make_watch(), answer + loop)

    assert verdict is not None
    assert verdict.inserted == ""
    assert verdict.stored == len(answer.rstrip())


HONEST = {
    "gulls": "".join(map(COUNTS["gulls"], range(1, 121))),
    "ordinals": "".join(map(COUNTS["ordinals"], range(1, 151))),
    "Chinese": "".join(f"第{chinese(n)}只海鸥：灰色，在栏杆上，面向大海。\n" for n in range(1, 151)),  # noqa: RUF001 - Chinese punctuation
    "several sentences": "".join(
        f"Gull {n}: it is grey. It stands on the rail. It faces the sea.\n" for n in range(1, 121)
    ),
    "various": "".join(
        f"Gull {n}: {('grey', 'white', 'black')[n * 7 % 3]}, on the {('rail', 'post')[n * 5 % 2]}.\n"
        for n in range(1, 151)
    ),
    "table": "| n | color | kind |\n|---|---|---|\n"
    + "".join(f"| {n} | grey | gull |\n" for n in range(1, 201)),
    "CSV": "n,color,kind\n" + "".join(f"{n},grey,gull\n" for n in range(1, 201)),
    "two tables": "".join(f"| {n % 200} | grey | gull |\n" for n in range(400)),
    "numbers": "".join(map(COUNTS["bare"], range(1, 251))),
    "JSON": "".join(map(COUNTS["JSON"], range(1, 101))),
    "seats": "".join(
        f"Seat {row}{seat}: empty, blue cover, no label.\n" for row in range(1, 21) for seat in "ABCDEF"
    ),
    "downwards": "".join(map(COUNTS["gulls"], range(120, 0, -1))),
    "numbered": "".join(f"{n}. A grey gull on the rail. It faces the sea.\n" for n in range(1, 121)),
    "YAML": "".join(f"- id: {n}\n  kind: grey gull\n  place: rail\n" for n in range(1, 121)),
    "titles": "".join(f"### Gull {n}\n\nA grey gull on the rail.\n\n" for n in range(1, 121)),
    "words": "".join(
        f"The {ordinal(n)} gull: grey. It is on the rail. It faces the sea.\n" for n in range(1, 101)
    ),
    "lower-case letters": "".join(
        f"{letters(n).lower()}) A grey gull on the rail.\n" for n in range(1, 101)
    ),
    "song": "".join(
        f"{n} cups are on the shelf, {n} cups are there. Take one down, pass it around: {n - 1} cups are there.\n"
        for n in range(99, 0, -1)
    ),
    "dump": "".join(f"{n * 16:08x}  {'00 ' * 16}\n" for n in range(100)),
    "boxes": "".join(
        f'  {{"box": [{n * 37 % 900}, {n * 91 % 900}, {n * 53 % 900}, {n * 71 % 900}], "label": "cup"}},\n'
        for n in range(120)
    ),
    "pairs": "".join(
        f"Compare dot {one} and dot {other}: they differ.\n"
        for one in range(1, 13)
        for other in range(one + 1, 13)
    ),
    "cells": "".join(f"({row},{column}): empty\n" for row in range(15) for column in range(15)),
    "sums": "".join(f"Total so far: {7 * n} + 7 = {7 * n + 7}\n" for n in range(1, 120)),
    "products": "".join(f"{a} x {b} = {a * b}\n" for a in range(1, 13) for b in range(1, 13)),
    "moves": " ".join(f"{n}. Nf3 Nf6 {n + 1}. Ng1 Ng8" for n in range(1, 30, 2)),
    "repeats": "CAG" * 40 + "ACGTTGACCA" + "GATTACA" * 20,
    "lines of music": ("C E G E " * 24) + "\nThen the second part begins.\n",
    "German ordinals": "".join(f"Der {n}. Vogel ist grau und sitzt am Wasser.\n" for n in range(1, 121)),
    "times": "".join(
        f"{hour:02d}:{minute:02d} Line 4 to the harbor\n" for hour in range(5, 24) for minute in (5, 20, 35, 50)
    ),
}  # fmt: skip


@pytest.mark.parametrize("text", HONEST.values(), ids=HONEST)
@pytest.mark.parametrize("size", [3, 17])
def test_a_count_of_what_an_image_can_have_is_no_loop(text: str, size: int) -> None:
    text = RECHECK + text + BOX.rstrip()
    guards = make_watch(tokens=50_000)

    assert feed_chunks(guards, text, size) == (None, len(text))
    assert guards.reasoning.end(text, "stop") is None


def test_a_count_that_goes_around_is_a_loop_like_any_other() -> None:
    text = "".join(
        f"Lamp {n % 12 + 1}: I see a lamp on the left, {'abc'[n * n % 3]}. " for n in range(400)
    )

    verdict, seen = feed(make_watch(), RECHECK + text)

    assert verdict is not None
    assert seen < 6000


@pytest.mark.parametrize(
    "sentences",
    [
        ["The lamps on the left side are all of the older kind", "The lamps on the right side are all new"],
        ["Compare the lamp with the one before it, note its color, its shape, its place, and its size" * 2],
    ],
    ids=["in turn", "long"],
)  # fmt: skip
def test_a_numbered_list_of_the_same_thoughts_is_a_loop(sentences: list[str]) -> None:
    text = "".join(f"{n}. {sentences[n % len(sentences)]}.\n\n" for n in range(1, 150))

    verdict, seen = feed(make_watch(), RECHECK + text)

    assert verdict is not None
    assert verdict.finding.kind is FindingKind.PARAPHRASE_LOOP
    assert seen < 7000


def test_in_chunks_of_ten_tokens_a_paraphrase_is_seen_as_early() -> None:
    dice = random.Random(1)
    said = (
        "Wait, let me re-check the left edge, {}. ",
        "Hmm, alternatively there may be {} lamps. ",
    )
    text = OPENING + "".join(dice.choice(said).format(dice.randint(1, 99)) for _ in range(400))

    verdict, seen = feed_chunks(make_watch(), text, 40)

    assert verdict is not None
    assert verdict.finding.kind is FindingKind.PARAPHRASE_LOOP
    assert seen < 5000


def test_the_engines_count_decides_how_many_tokens_there_are() -> None:
    guards = make_watch()
    tokens = 0
    verdict = None
    for _ in range(80):
        tokens += 10
        if verdict := guards.reasoning.see("So I count them again. ", tokens):
            break

    assert verdict is not None
    assert verdict.finding.tokens_saved == guards.trace.limit - tokens


def test_a_line_of_words_that_is_said_again_is_a_loop_long_before_a_list_is() -> None:
    verdict, seen = feed(make_watch(), "I see the lamps.\n" + "Let me look\n" * 200)

    assert verdict is not None
    assert verdict.finding.kind is FindingKind.LOOP
    assert seen < 500
