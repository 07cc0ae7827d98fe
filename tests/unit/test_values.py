"""Answers as values: what is understood, and what is not guessed at."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import values


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
        ("3½", None),
        ("2\\pi", None),
        ("\\sqrt{2}", None),
        ("\\frac{2\\pi}{3}", None),
        ("1.234.567", None),
        ("0x10", None),
        ("1e400", None),
        ("one half", None),
        ("two thirds", None),
        ("一半", None),
        ("三分之一", None),
        ("十几", None),
        ("一个也没有", None),
        ("三百五", None),
        ("one two", None),
    ],
)
def test_a_number_is_read_as_it_is_written(text: str, value: float | None) -> None:
    assert values.number(text) == value


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
    ],
)
def test_a_choice_is_named_by_its_text_or_its_letter(text: str, value: str | None) -> None:
    assert values.choice(text, ["Red", "Green", "Blue"]) == value


def test_two_options_that_read_the_same_are_none() -> None:
    assert values.choice("red", ["red", "RED"]) is None


@given(st.text(max_size=300))
def test_no_text_makes_the_reading_fail(text: str) -> None:
    assert values.number(text) is None or isinstance(values.number(text), int | float)
    assert values.boolean(text) in (True, False, None)
    assert values.choice(text, ["a", "b"]) in ("a", "b", None)
