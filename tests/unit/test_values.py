"""Answers as values: what is understood, and what is not guessed at."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.answers import numbers, values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("6", 6),
        ("6.0", 6),
        ("-3.5 cm", -3.5),
        ("1,234,567 people", 1234567),
        ("\\frac{1}{4}", 0.25),
        ("$-\\dfrac{1}{2}$", -0.5),
        ("3/4", 0.75),
        ("50\\%", 0.5),
        ("12.5 percent", 0.125),
        ("1e3", 1000),
        ("7\\text{ pelicans}", 7),
        ("\uff16", 6),
        ("five ducks", 5),
        ("三只", 3),
        ("十二", 12),
        ("二十三", 23),
        ("3 or 4", None),
        ("1/0", None),
        ("many", None),
        ("", None),
        ("9" * 50, None),
        # With a scale, and in words.
        ("5 million people", 5_000_000),
        ("6万", 60_000),
        ("two dozen", 24),
        ("a hundred and five", 105),
        ("twenty-one", 21),
        ("two thousand three hundred", 2300),
        ("二百", 200),
        ("一百零五", 105),
        ("两万三千人", 23_000),
        ("一共五个", 5),
        ("½", 0.5),
        ("5 m²", 5),
        # Parts of what is said are not it.
        ("10²", None),
        ("3½", 3.5),
        ("2\\pi", None),
        ("\\sqrt{2}", None),
        ("\\frac{2\\pi}{3}", None),
        ("1.234.567", None),
        ("0x10", None),
        ("1e400", None),
        ("one half", 0.5),
        ("at least 5", None),
        ("up to 5", None),
        ("over 5", None),
        ("5+", None),
        ("not 6", None),
        ("x \\neq 3", None),
        ("至少5个", None),
        ("3,5 Millionen", None),
        ("2 milliards", None),
        ("5 тыс.", None),
        ("1'234.50", 1234.5),
        ("1,23,456", 123456),
        ("two thirds", 2 / 3),
        ("一半", None),
        ("三分之一", None),
        ("十几", None),
        ("一个也没有", None),
        ("三百五", None),
        ("one two", None),
        # As models write them.
        ("12\\ \\text{cm}^2", 12),
        ("9.8 \\, \\text{m/s}^2", 9.8),
        ("12 cm^{2}", 12),
        ("1.5 \\times 10^3", 1500),
        ("3.0\\times10^{-8}\\ \\text{m}", 3e-8),
        ("1.5 \u00d7 10⁵", 150_000),
        ("\\frac34", 0.75),
        ("\\frac{-3}{4}", -0.75),
        ("1{,}234", 1234),
        ("1\\,000\\,000", 1_000_000),
        ("1\u202f234\u202f567", 1_234_567),
        ("x = -3", -3),
        ("\\$12.50", 12.5),
        ("US$5", 5),
        ("-€5", -5),
        ("-(3)", -3),
        ("\u22125", -5),
        ("\u20135", -5),
        ("minus five", -5),
        ("零下5度", -5),
        ("负三", -3),
        ("ten per cent", 0.1),
        ("百分之二十五", 0.25),
        ("百分之25", 0.25),
        ("3百万", 3_000_000),
        ("2千万", 20_000_000),
        ("5 hundred thousand", 500_000),
        ("5 trillion", 5 * 10**12),
        ("5 millions", 5_000_000),
        ("5千克", 5),
        ("6 (six)", 6),
        ("the bigger one has 5 dots", 5),
        ("有五个三角形", 5),
        # Two numbers, or one of which only a part could be read.
        ("1\\ 2", None),
        ("1\\frac{1}{2}", 1.5),
        ("5*3", None),
        ("3 hundred and five", None),
        ("6万五千", None),
        ("3 dogs and two cats", None),
        ("3 and a half", None),
        ("3个半", None),
        ("3 quarters", None),
        ("5k", None),
        ("5bn", None),
        ("6‰", None),
        ("2x", None),
        ("x/2", None),
        ("x - 5", None),
        ("Total - 5", None),
        ("x² = 9", None),
        ("3:1", None),
        ("2024-01-02", None),
        # A bound is no number, and no more is "ten or so".
        (">5", None),
        ("more than 5", None),
        ("不到6个", None),
        ("20多个", None),
        ("十几个", None),
    ],
)
def test_a_number_is_read_in_every_notation(text: str, value: float | None) -> None:
    assert numbers.read(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # The mark of a list or a quotation is no minus and no bound.
        ("- 6", 6),
        ("* 6", 6),
        ("• 6", 6),
        ("\u2013 6", 6),
        ("> 6", 6),
        ("> - **6**", 6),
        ("- six lamps", 6),
        ("Six of them:\n- 6", 6),
        ("- 6\n- 7", None),
        ("-6", -6),
        ("$- 6$", -6),
        ("\\[ - 6 \\]", -6),
        ("= - 6", -6),
        # Mixed numbers.
        ("1\\frac12", 1.5),
        ("12\\frac{1}{2}", 12.5),
        ("1 1/2", 1.5),
        ("-2 3/4 cups", -2.75),
        ("1 3/2", None),
        # Digits of other scripts, and thousands with spaces.
        ("٦", 6),
        ("٣٫٥", 3.5),  # noqa: RUF001 - digits as written
        ("१२", 12),
        ("1 234", 1234),
        ("12 345 678 people", 12_345_678),
        ("Team 1 300", None),
        ("1 23", None),
        # Markup around a number.
        ("**6**", 6),
        ("`6`", 6),
        ("6.", 6),
        ("\\boxed{6}", 6),
        ("\\operatorname{six}", 6),
        # No number of things.
        ("9 and 5", None),
        ("错误的，让我再数一遍", None),  # noqa: RUF001 - Chinese as written
        ("wrong, let me count one more time", None),
    ],
)
def test_a_number_is_read_with_the_markup_around_it(text: str, value: float | None) -> None:
    assert numbers.read(text) == value


@pytest.mark.parametrize(
    ("question", "text", "value"),
    [
        ("Wie viel wiegt das Auto auf dem Bild?", "3,5", 3.5),
        ("Wie viel wiegt das Auto auf dem Bild?", "1.234,5 kg", 1234.5),
        ("Wie viel wiegt das Auto auf dem Bild?", "1.234.567", 1_234_567),
        ("Wie viel wiegt das Auto auf dem Bild?", "3.5", 3.5),
        # Thousands or decimals.
        ("Wie viel wiegt das Auto auf dem Bild?", "1.234", None),
        ("Wie viel wiegt das Auto auf dem Bild?", "1,234", None),
        ("Combien mesure la tour sur l'image ?", "3,5 m", 3.5),
        ("Combien mesure la tour sur l'image ?", "1 234,5", 1234.5),
        ("¿Cuánto pesa el coche?", "0,25", 0.25),
        ("Сколько весит машина?", "2,5 кг", 2.5),
        ("How heavy is the car?", "3,5", None),
        ("How heavy is the car?", "1,234", 1234),
        ("Who painted it, van Gogh or el Greco?", "3,5", None),
        ("", "3,5", None),
        # LaTeX says which.
        ("How heavy is the car?", "3{,}5", 3.5),
        ("How heavy is the car?", "1{,}234", 1234),
    ],
)
def test_a_decimal_comma_is_read_where_the_question_has_one(
    question: str, text: str, value: float | None
) -> None:
    assert values.read(text, {"type": "number"}, question) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Yes.", True),
        ("\\text{no}", False),
        ("**True**", True),
        ("是的", True),
        ("否", False),
        ("Yes, there are.", True),
        ("maybe", None),
        ("nobody", None),
        ("yes or no", None),
        ("True and false", None),
        ("No idea", None),
        ("The answer is yes.", True),
        ("答案是：没有", False),  # noqa: RUF001 - Chinese as written
        ("The answer is not yes", None),
        ("No circles", False),
        ("No information is given", None),
        ("True/False", None),
        ('"Yes"', True),
        ("(No)", False),
        ("是的，有三个", True),  # noqa: RUF001 - Chinese as written
        ("不对", False),
        ("不知道", None),
        ("没有足够的信息", None),
        ("It is not true that the answer is yes", None),
    ],
)
def test_yes_and_no_are_read_in_two_languages(text: str, value: bool | None) -> None:  # noqa: FBT001 - a table's column
    assert values.boolean(text) is value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("red", "Red"),
        ("B", "Green"),
        ("(b)", "Green"),
        ("C. blue", "Blue"),
        ("\\text{A}", "Red"),
        ("The correct answer is B.", "Green"),
        ("So the answer is **green**", "Green"),
        ("答案是C", "Blue"),
        ("The answer is not B", None),
        ("A. blue", None),
        ("D", None),
        ("red or green", None),
        ("beautiful", None),
        ('"Green"', "Green"),
        ("B, green", "Green"),
        ("Green (B)", "Green"),
        ("Red (B)", None),
        ("Answer: B", "Green"),
        ("故选B。", "Green"),
        ("B项", "Green"),
        ("选择B", "Green"),
        ("【B】", "Green"),
        ("Green!", "Green"),
        ("A, B", None),
        ("The wrong answer is B", None),
        ("It is not true that the answer is B", None),
        ("\\texttt{red}", "Red"),
        ("\\operatorname{red}", "Red"),
        ("the red one", "Red"),
        ("答案是B，因为灯是绿色的。", "Green"),  # noqa: RUF001 - Chinese as written
        ("B，因为灯是绿色的", "Green"),  # noqa: RUF001 - same
        ("The answer is B, because red is on the left", "Green"),
        ("The answer is B, red", None),
    ],
)
def test_a_choice_is_read_by_its_text_or_its_letter(text: str, value: str | None) -> None:
    assert values.choice(text, ["Red", "Green", "Blue"]) == value


def test_a_long_text_is_read_completely() -> None:
    begun = "There are many things to be seen here. " * 8
    assert numbers.read(f"{begun}5 dogs.") == 5
    assert numbers.read(f"5 dogs. {begun}3 cats.") is None
    assert numbers.read("5 dogs. " + begun * 20) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("C", "C"),
        ("C. a cat", "C"),
        ("(C) cat", "C"),
        ("\\text{C. Cat}", "C"),
        ("The answer is **C: a cat**", "C"),
        ("C、猫", "C"),
        ("A. is wrong; B", None),
        ("A) and B)", None),
        ("A cat", None),
        ("E. eel", None),
    ],
)
def test_an_option_that_is_a_letter_may_be_explained(text: str, value: str | None) -> None:
    assert values.choice(text, ["A", "B", "C", "D"]) == value


def test_spaces_and_brackets_do_not_change_an_option() -> None:
    assert values.choice("(15\\text{ cm})", ["12 cm", "15cm"]) == "15cm"
    assert values.choice("a b", ["ab", "a b"]) == "a b"
    assert values.choice("(ab)", ["ab", "a b"]) is None
    assert values.choice("()", ["(", ")"]) is None


def test_an_ambiguous_option_is_none() -> None:
    assert values.choice("red", ["red", "RED"]) is None


_PIECES = [
    *(
        "1",
        "23",
        "000",
        ",",
        ".",
        "-",
        "+",
        "/",
        " ",
        "%",
        "e9",
        "^{2}",
        "²",
        "½",
        "\u2044",
        "ﷺ",
        "\ud800",
    ),
    *(
        "\\,",
        "{,}",
        "\\frac{1}{2}",
        "\\frac{0}{.}",
        "\\frac12",
        "\\times 10^{99}",
        "\\text{",
        "}",
        "*",
        "$",
    ),
    *(
        "十",
        "百万亿",
        "千",
        "零",
        "百分之",
        "负",
        "million",
        "two",
        "per cent",
        "minus ",
        "yes",
        "B)",
        "选",
    ),
]


@given(st.text(max_size=300) | st.lists(st.sampled_from(_PIECES), max_size=80).map("".join))
def test_no_text_makes_the_parser_fail(text: str) -> None:
    assert numbers.read(text) is None or isinstance(numbers.read(text), int | float)
    assert values.boolean(text) in (True, False, None)
    assert values.choice(text, ["a", "b"]) in ("a", "b", None)


@pytest.mark.parametrize(
    "text",
    [
        "(B) 30°",
        "(B) $30^\\circ$",
        "\\text{(B) }30^{\\circ}",
        "B. 30 degrees",
        "30",
        "30°",
        "thirty degrees",
    ],
)
def test_a_choice_is_compared_as_answers_are(text: str) -> None:
    assert values.choice(text, ["20°", "30°", "40°"]) == "30°"


def test_powers_are_not_digits() -> None:
    assert values.choice("10^2", ["10²", "102"]) == "10²"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("- No", False),
        ("> Yes", True),
        ("没错", True),
        ("Yes, no lamp is lit.", True),
        ("No, yes", None),
        ("Yes. No.", None),
        ("No doubt, yes", None),
        ("No one", None),
        ("No. 5", None),
    ],
)
def test_a_yes_or_no_that_is_not_one_answer_is_not_read(text: str, *, value: bool | None) -> None:
    assert values.boolean(text) is value


def test_the_mark_of_a_list_may_precede_an_option() -> None:
    assert values.choice("- B", ["cat", "dog"]) == "dog"
    assert values.choice("- 1", ["- 1", "1"]) == "- 1"
