"""The one notion of the same answer: what a text says, whatever its typesetting and spelling."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from jobs.answers import equality, folding
from jobs.answers.equality import Sameness


def compared(
    left: str, right: str, *, answer_format: dict[str, Any] | None = None, question: str = ""
) -> Sameness:
    first = equality.read(left, answer_format, question)
    second = equality.read(right, answer_format, question)
    sameness = equality.compare(first, second)
    assert equality.compare(second, first) is sameness
    return sameness


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("\\text{Yes}", "Yes"),
        ("A", "\\text{A}"),
        ("A", "(A)"),
        ("A", "A."),
        ("\\text{red}", "red"),
        ("\\text{方块5}", "方块5"),
        ("6", "six"),
        ("6", "\\text{six}"),
        ("6 pelicans", "six pelicans"),
        ("90^\\circ", "90°"),
        ("90°", "90 degrees"),
        ("10 km/h", "10 \\text{ km/h}"),
        ("375\\ \\text{kg/h}", "375 kg/h"),
        ("5 m", "5 meters"),
        ("5 m", "5 metres"),
        ("5m", "5 m"),
        ("H_2O", "H2O"),
        ("H_2O", "H₂O"),
        ("\\mathrm{H_2O}", "H₂O"),
        ("\\infty", "∞"),
        ("1000", "1e3"),
        ("5e-3", "0.005"),
        ("1 million", "1000000"),
        ("7\\pi", "7π"),
        ("1/2", "2/4"),
        ("\\frac{1}{2}", "0.5"),
        ("50\\%", "0.5"),
        ("50%", "50 percent"),
        ("6", "6.0"),
        ("x=3", "3"),
        ("\uff13", "3"),
        ("1,000", "1000"),
        ("1 000", "1000"),
        ("$5", "5 dollars"),
        ("\\$5", "$5"),
        ("**6**", "6"),
        ("Yes.", "yes"),
        ('"Stop"', "Stop"),
        ("Stop!", "STOP"),
        ("3\u20131", "3-1"),
        ("(1, 2)", "(1,2)"),
        ("\\{1,2\\}", "\\{2,1\\}"),
        ("5 m²", "5\\ \\text{m}^2"),
        ("5 m²", "5 square meters"),
        ("20 °C", "20^\\circ\\text{C}"),
        ("20°C", "20 degrees Celsius"),
        ("-6", "minus six"),
        ("六只", "6只"),
        ("1\\frac12", "1.5"),
        ("1½", "3/2"),
        ("5 km", "5\\,\\mathrm{km}"),
        ("12 cm", "12~\\text{cm}"),
        ("It\u2019s red", "It's red"),
        ("x = 3.5\\text{ cm}", "3.5 cm"),
        ("2 x", "2x"),
        ("x^2", "x²"),
        ("6 red lamps", "6\\text{ red lamps}"),
        ("3/4", "\\frac{3}{4}"),
        ("100,000 km", "100{,}000\\ \\text{km}"),
        ("4.5 m/s", "4.5 meters per second"),
        ("y=2x+1", "2x+1"),
        ("٦", "6"),
        ("2 \u00d7 10^3", "2000"),
        ("B)", "b"),
        ("Twelve", "12"),
        ("A, B", "A,B"),
        ("3 - 1", "3-1"),
        ("10 : 30", "10:30"),
        ("\\angle ABC", "∠ABC"),
        ("Fe_2O_3", "Fe₂O₃"),
        ("ten kilograms", "10 kg"),
        ("90 min", "90 minutes"),
        ("3 / 4", "3/4"),
        ("one half", "0.5"),
        ("two-thirds", "2/3"),
        ("百分之五十", "50%"),
        ("£5", "5 GBP"),
        ("$5", "5 USD"),
        ("5 MW", "5 megawatts"),
        ("(\\frac{1}{2}, 3)", "(0.5, 3)"),
        ("(B) red", "B. red"),
        ("B: red", "B) red"),
        ("2\\pi", "2 π"),
        ("\\pm 2", "±2"),
        ("x >= 3", "x \\geq 3"),
        ("1'234'567", "1,234,567"),
        ("12,34,567", "1234567"),
        ("\\begin{pmatrix}1&2\\end{pmatrix}", "\\begin{pmatrix} 1 & 2 \\end{pmatrix}"),
        ("CH$_3$OH", "CH₃OH"),
    ],
)
def test_typesetting_case_and_spelling_make_no_difference(left: str, right: str) -> None:
    assert compared(left, right) is Sameness.SAME


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("ABC123", "BAC123"),
        ("KL7AB12", "AB12KL7"),
        ("A1B2", "A2B1"),
        ("B4", "4B"),
        ("2024-03-05", "2024-05-03"),
        ("2024-01-02", "2024-02-01"),
        ("10/20/2024", "1/2/2024"),
        ("3-1", "2-0"),
        ("3-1", "2"),
        ("12-31", "31-50"),
        ("CO2", "C2O"),
        ("C2H6", "C6H2"),
        ("N2O4", "N4O2"),
        ("O2", "2O"),
        ("CO_2", "C_2O"),
        ("\\text{C}_2\\text{H}_6", "\\text{C}_6\\text{H}_2"),
        ("192.168.0.1", "192.168.0.2"),
        ("1.2.3", "3.2.1"),
        ("10:30", "30:10"),
        ("12:30", "30:12"),
        ("3:1", "6:2"),
        ("6 red", "6 blue"),
        ("5 km", "5 m"),
        ("007", "7"),
        ("5%", "5"),
        ("H2O", "HO2"),
        ("2x", "x2"),
        ("O=C=O", "C=O=O"),
        ("A+", "A"),
        ("A-1", "1-A"),
        ("GMT+8", "MGT+8"),
        ("Na+", "aN+"),
        ("+1-555-1234", "+1-1234-555"),
        ("12 Main St", "21 Main St"),
        ("flight AB 12", "flight BA 12"),
        ("5 m²", "5 m³"),
        ("20°C", "20°F"),
        ("$5", "€5"),
        ("6 pelicans", "6 ducks"),
        ("6 pelicans", "6"),
        ("Room 12", "Room 21"),
        ("v1.2", "v2.1"),
        ("1-0", "0-1"),
        ("1/2-1/2", "1-1"),
        ("x=3", "x=4"),
        ("y=3", "x=3"),
        ("red", "blue"),
        ("三角形", "3"),
        ("(1,2)", "(2,1)"),
        ("(0,1)", "[0,1]"),
        ("E4", "4E"),
        ("abc", "cab"),
        ("ab12", "ba12"),
        ("2H2O", "H4O2"),
        ("1e3", "e13"),
        ("ab", "ba"),
        ("4x6", "6x4"),
        ("4\u00d74", "16 m"),
        ("M&M", "MM"),
        ("AC/DC", "DC/AC"),
        ("24/7", "7/24"),
        ("B-52", "52-B"),
        ("C++", "C"),
        ("No. 5", "No 6"),
        ("a b", "ab"),
        ("SO₄²⁻", "SO₄"),
        ("Fe2O3", "Fe3O2"),
        ("12th", "21th"),
        ("R2D2", "D2R2"),
        ("A4=4A", "4A=A4"),
        ("5 MW", "5 mW"),
        ("5 MV", "5 mV"),
        ("5 kB", "5 kb"),
        ("5 MB/s", "5 Mb/s"),
        ("1,000.5 MB/s", "1,000.5 Mb/s"),
        (".5MW", ".5mW"),
        ("1.5e3 MW", "1.5e3 mW"),
        ("1e3kb", "1e3kB"),
        ("3x5 MW", "3x5 mW"),
        ("x5 MW", "x5 mW"),
        ("约5MW", "约5mW"),
        ("1 + 1 = 2", "1 + 1 = 3"),
        ("2 + 4 = 6", "3 + 3 = 6"),
        ("£5", "¥5"),
        ("a dog", "dog"),
        ("1. 6", "6"),
        ("a third", "1/3"),
        ("three quarters", "3"),
        ("(B) red", "(C) red"),
    ],
)
def test_codes_dates_scores_and_substances_are_texts(left: str, right: str) -> None:
    assert compared(left, right) is Sameness.DIFFERENT


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("x+y", "y+x"),
        ("\\sqrt{8}", "2\\sqrt{2}"),
        ("x^2+1", "1+x^2"),
        ("e^2", "\\exp(2)"),
        ("\\pi", "3.14"),
        ("10^{10^{10}}", "7"),
        ("2x", "x+x"),
        ("\\frac{x}{2}", "x/2"),
        ("x > 5", "5 < x"),
        ("2\\sqrt{3}\\text{ cm}", "\\sqrt{12} cm"),
        ("2*3", "6"),
        ("\\frac{\\pi}{2}", "0.5\\pi"),
        ("x=y+1", "y+1=x"),
        ("E=mc^2", "mc^2=E"),
        ("\\sin x + 1", "1+\\sin(x)"),
        ("\\frac{2\\pi}{3}", "\\frac{4\\pi}{6}"),
        ("2^{10}", "1024"),
        ("10²", "100"),
        ("(x+1)(x-1)", "x^2-1"),
        ("x \\leq 5", "5 \\geq x"),
        ("3\u00d74", "12"),
        ("6!", "720"),
        ("10²", "102"),
        ("2 x", "x+x"),
        ("cos x", "\\cos x"),
    ],
)
def test_only_algebra_can_compare_expressions(left: str, right: str) -> None:
    assert compared(left, right) is Sameness.ALGEBRA


@pytest.mark.parametrize(
    ("question", "left", "right", "sameness"),
    [
        ("How many pelicans are there?", "6", "6 pelicans", Sameness.SAME),
        ("How many pelicans are there?", "6", "6 ducks", Sameness.DIFFERENT),
        ("How many dogs and cats are there?", "6 dogs", "6 cats", Sameness.DIFFERENT),
        ("How many of the red lamps are lit?", "6", "six red lamps", Sameness.SAME),
        ("图中有几只鹈鹕？", "6", "六只", Sameness.SAME),  # noqa: RUF001 - Chinese as written
        ("图中有几只鹈鹕？", "6", "六只鹈鹕", Sameness.SAME),  # noqa: RUF001 - same
        ("How long is it in km?", "5", "5 km", Sameness.SAME),
        ("How long is it in km?", "5", "5 m", Sameness.DIFFERENT),
        ("Convert 5 km (in m) to miles, in mi.", "5 m", "5 mi", Sameness.DIFFERENT),
        ("What is the speed (in m/s)?", "5", "5 m/s", Sameness.SAME),
        ("Find y.", "y = 3", "3", Sameness.SAME),
        ("Find x and y.", "y = 3", "3", Sameness.DIFFERENT),
        ("Wie viel wiegt es auf dem Bild?", "3,5 kg", "3.5 kg", Sameness.SAME),
        ("How heavy is it?", "3,5 kg", "3.5 kg", Sameness.DIFFERENT),
    ],
)
def test_the_question_says_what_goes_without_saying(
    question: str, left: str, right: str, sameness: Sameness
) -> None:
    assert compared(left, right, question=question) is sameness


@pytest.mark.parametrize(
    ("answer_format", "left", "right", "sameness"),
    [
        ({"type": "number"}, "six circles", "6", Sameness.SAME),
        ({"type": "number"}, "5%", "5", Sameness.DIFFERENT),
        ({"type": "number"}, "ABC123", "BAC123", Sameness.DIFFERENT),
        ({"type": "number"}, "2024-03-05", "2024-05-03", Sameness.DIFFERENT),
        ({"type": "number"}, "6", "2 \\cdot 3", Sameness.ALGEBRA),
        ({"type": "number"}, "- 6", "6", Sameness.SAME),
        ({"type": "boolean"}, "Yes, it is.", "是的", Sameness.SAME),
        ({"type": "boolean"}, "true", "1", Sameness.DIFFERENT),
        ({"type": "choice", "options": ["red", "green"]}, "A", "the red one", Sameness.SAME),
        ({"type": "choice", "options": ["red", "green"]}, "A", "B", Sameness.DIFFERENT),
        ({"type": "json_schema", "schema": {}}, '{"a": true}', '{"a": 1}', Sameness.DIFFERENT),
        ({"type": "json_schema", "schema": {}}, '{"a": [1]}', '{"a": [1.0]}', Sameness.SAME),
        ({"type": "json_object"}, '{"a": 1, "b": {}}', '{"b":{},"a":1.0}', Sameness.SAME),
        ({"type": "json_object"}, '{"a": []}', '{"a": {}}', Sameness.DIFFERENT),
    ],
)
def test_with_a_format_the_values_are_compared(
    answer_format: dict[str, Any], left: str, right: str, sameness: Sameness
) -> None:
    assert compared(left, right, answer_format=answer_format) is sameness


_PIECES = [
    *("A", "b", "x", "km", "m", "red", "lamp", "of", "one", "six", "twelve", "Yes", "CO", "H"),
    *("0", "1", "2", "7", "12", "007", "2024", "1.5", ".", ",", ":", "-", "/", "+", "=", "*", "^2"),
    *(" ", " ", "%", "°", "$", "(", ")", "{", "}", "\\text{", "\\frac12", "\\pi", "\\,", "**"),
    *("六", "只", "²", "₂", "½", "e3", "!", "?", "'", '"', "\n- "),
]
ANSWERS = st.lists(st.sampled_from(_PIECES), max_size=7).map("".join) | st.text(max_size=12)


def _tokens(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", folding.folded(text))


@given(ANSWERS)
def test_each_answer_is_the_same_as_itself_with_more_typesetting(text: str) -> None:
    assert compared(text, text) is Sameness.SAME
    assert compared(f"  {text} ", text) is Sameness.SAME


@given(ANSWERS, ANSWERS, st.sampled_from(["", "How many lamps are there?", "Find x."]))
def test_texts_with_different_tokens_are_merged_as_numbers_quantities_or_expressions_only(
    left: str, right: str, question: str
) -> None:
    sameness = compared(left, right, question=question)
    if sameness is not Sameness.DIFFERENT and _tokens(left) != _tokens(right):
        for text in (left, right):
            meaning = equality.read(text, None, question)
            assert isinstance(meaning.key, tuple)
            # Of a text that may be a formula, such as `3b`, only algebra can say next to a formula.
            may_be_formula = sameness is Sameness.ALGEBRA and meaning.formula is not None
            assert meaning.key[0] != "text" or may_be_formula


LETTERS, DIGITS = (
    st.text("ABCHNOKL", min_size=1, max_size=3),
    st.text("0123456789", min_size=1, max_size=4),
)
CODES = (
    st.tuples(LETTERS, DIGITS, st.just("") | LETTERS | st.tuples(LETTERS, DIGITS).map("".join)).map(
        "".join
    )
    | st.tuples(st.sampled_from("-:./"), DIGITS, DIGITS, DIGITS).map(
        lambda parts: parts[0].join(parts[1:])
    )
    | st.tuples(st.sampled_from("-:"), DIGITS, DIGITS).map(lambda parts: parts[0].join(parts[1:]))
    | st.tuples(LETTERS, st.sampled_from("-/ "), DIGITS).map("".join)
)


@given(CODES, CODES)
# It ends as an amount of bytes does.
@example("A0KB", "A0MB")
def test_no_two_codes_are_merged(left: str, right: str) -> None:
    assume(left != right)
    assert compared(left, right) is Sameness.DIFFERENT
    assert compared(f"\\text{{{left}}}", left) is Sameness.SAME
    assert compared(left.lower(), f"**{left}**") is Sameness.SAME
