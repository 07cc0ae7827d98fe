"""Typesetting: what a person reads where a model writes LaTeX and Markdown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.answers.typesetting import plain


@pytest.mark.parametrize(
    ("tex", "text"),
    [
        ("\\text{A red lamp}", "A red lamp"),
        ("\\text{the \\textbf{left} one}", "the left one"),
        ("\\mathrm{km}", "km"),
        ("\\operatorname{red}", "red"),
        ("\\texttt{red}", "red"),
        ("{\\bf red}", "red"),
        ("\\mbox{No}", "No"),
        ("$$\\boxed{\\text{No}}$$", "No"),
        ("\\[\n\\text{Yes}\n\\]", "Yes"),
        ("$\\text{Yes}$.", "Yes."),
        ("``oak''", "oak"),
        ("\\text{``oak''}", "oak"),
        ("It says ``stop'' there", "It says “stop” there"),
        ("\\text{方块5}", "方块5"),
        ("6\\text{ lamps}", "6 lamps"),
        ("6\\text{lamps}", "6 lamps"),
        ("3\\text{rd}", "3rd"),
        ("3^{\\text{rd}}", "3rd"),
        ("B4\\text{ab}", "B4ab"),
        ("80\\ \\text{kg/h}", "80 kg/h"),
        ("5~km", "5 km"),
        ("5~10个", "5~10个"),
        ("~5 km", "~5 km"),
        ("50\\%", "50%"),
        ("\\$12.50", "$12.50"),
        ("\\text{file\\_2.txt}", "file_2.txt"),
        # Unicode for the simple.
        ("90^\\circ", "90°"),
        ("90^{\\circ}\\text{C}", "90°C"),
        ("m^2", "m²"),
        ("12\\ \\text{cm}^2", "12 cm²"),
        ("9.8\\,\\text{m/s}^{2}", "9.8 m/s²"),
        ("10^{-3}", "10⁻³"),
        ("x^2+1", "x²+1"),
        ("H_2O", "H₂O"),
        ("\\mathrm{C}_6\\mathrm{H}_{12}\\mathrm{O}_6", "C₆H₁₂O₆"),
        ("\\text{Ca(OH)}_2", "Ca(OH)₂"),
        ("SO_4^{2-}", "SO₄²⁻"),
        ("\\text{NO}_3^-\\text{K}^+", "NO₃⁻K⁺"),
        ("x_1", "x₁"),
        ("CH$_3$(CH$_2$)$_{11}$OSO$_3^-$Na$^+$ is soap", "CH₃(CH₂)₁₁OSO₃⁻Na⁺ is soap"),
        ("x_12", "x_12"),
        ("`**a` and `b*`", "`**a` and `b*`"),
        ("`snake_case` is a name", "snake_case is a name"),
        ("7\\pi", "7π"),
        ("\\infty", "∞"),
        ("3 \\times 4", "3 \u00d7 4"),
        ("x \\leq 5", "x ≤ 5"),
        ("\\left(3, 4\\right)", "(3, 4)"),
        ("1{,}234", "1,234"),
        ("m<sup>2</sup>", "m²"),
        ("<b>red</b>", "red"),
        # Mathematics stays LaTeX.
        ("\\frac{1}{2}", "\\frac{1}{2}"),
        ("\\(\\sqrt{x^2+1}\\)", "\\sqrt{x^2+1}"),
        ("\\frac{\\text{way}}{\\text{time}}", "\\frac{\\text{way}}{\\text{time}}"),
        ("\\frac{1}{2}\\ \\text{kg}", "\\frac{1}{2} kg"),
        ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}"),
        ("10^{10^{10}}", "10^{10^{10}}"),
        ("2^n", "2^n"),
        # Markdown.
        ("**6**", "6"),
        ("***6***", "6"),
        ("_six_", "six"),
        ("**The answer is $6$.**", "The answer is 6."),
        ("1. **Red** lamp\n2. *Blue* lamp", "1. Red lamp\n2. Blue lamp"),
        ("`**x**`", "**x**"),
        ("```\na * b * c\n```", "```\na * b * c\n```"),
        # Formulas in prose.
        (
            "There are \\(\\boxed{9}\\) hens and \\(\\boxed{5}\\) ducks.",
            "There are 9 hens and 5 ducks.",
        ),
        (
            "The area is $\\frac{1}{2}$ and the angle $90^\\circ$.",
            "The area is $\\frac{1}{2}$ and the angle 90°.",
        ),
        ("$5 and $6", "$5 and $6"),
        ("$5-$10", "$5-$10"),
        # What only resembles markup.
        ("5*3*2", "5*3*2"),
        ("2 * 3 * 4", "2 * 3 * 4"),
        ("snake_case_name", "snake_case_name"),
        ("IMG_2024.jpg", "IMG_2024.jpg"),
        ("C:\\text\\files", "C:\\text\\files"),
        ("- 6", "- 6"),
        ('{"a": 1}', '{"a": 1}'),
        ("\\text{without an end", "\\text{without an end"),
        ("", ""),
    ],
)
def test_typesetting_is_removed_and_mathematics_stays(tex: str, text: str) -> None:
    assert plain(tex) == text


def test_a_minus_at_the_start_of_a_formula_is_no_bullet() -> None:
    assert plain("- 6", formula=True) == "-6"
    assert plain("\\[ - 6 \\]") == "-6"


_PIECES = [
    *("\\text{", "\\textbf{", "\\frac", "{", "}", "\\boxed{", "\\\\", "\\", "\\(", "\\)", "\\["),
    *("$", "$$", "`", "```", "*", "**", "_", "^", "^2", "_2", "^{", "\\circ", "\\,", "\\%", "~"),
    *("``", "''", "\n", "\n\n", " ", "6", "a", "H", "km", "水", "<b>", "<sup>2</sup>", "\ufdd0"),
]
TEX = st.text(max_size=200) | st.lists(st.sampled_from(_PIECES), max_size=60).map("".join)


@given(TEX)
def test_no_text_makes_it_fail_and_no_letter_and_no_digit_is_lost(tex: str) -> None:
    for formula in (False, True):
        text = plain(tex, formula=formula)
        assert sum(character in "6⁶" for character in text) == tex.count("6")
        assert text.count("水") == tex.count("水")


@given(st.lists(st.sampled_from([piece for piece in _PIECES if "`" not in piece]), max_size=4))
def test_words_survive_their_markup(around: list[str]) -> None:
    markup = "".join(around)
    assert "lamp" in plain(f"{markup} lamp {markup}")


@pytest.mark.parametrize(
    "unit",
    [
        "H_2",
        "\\text{",
        "}",
        "$a",
        "\\(",
        "*a ",
        "_a",
        "``a",
        "^{",
        " ",
        "\\ ",
        "{,}",
        "(",
        "\\frac",
        "`",
        "<b>",
    ],
)
def test_a_long_run_of_markup_is_read_once(unit: str) -> None:
    text = unit * 20_000
    assert len(plain(text)) <= len(text)
    assert len(plain(text + "x")) <= len(text) + 1
