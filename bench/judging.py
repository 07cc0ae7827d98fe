r"""Is an extracted answer the right one? A part of ``answers.py``, independent of what it measures.

Two texts are the same answer if they have the same letters, digits, and operators once markup is gone: LaTeX, Markdown,
punctuation, spaces. That is too generous for votes; here the answers to compare come from one text.
"""

# ruff: noqa: RUF001 - signs of mathematics, full-width punctuation

from __future__ import annotations

import enum
import re
import unicodedata
from collections.abc import Mapping
from types import MappingProxyType

#: The expected "answer" of a text in which the model declines.
REFUSAL = "refusal"


class Grade(enum.StrEnum):
    """The grade of one extracted answer."""

    RIGHT = "right"
    #: Right, but with LaTeX that only sets type.
    MARKUP = "markup left"
    #: No answer, although there is one.
    NONE = "none"
    WRONG = "wrong"


#: Commands that set the words in their argument.
_SETTING = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|math(?:rm|bf|it|sf|tt)|operatorname\*?|mbox|emph|underline)(?![A-Za-z])\s*\{"
)
_BOX = re.compile(r"\\f?box(?:ed)?(?![A-Za-z])")
#: Spaces, escaped percent signs, and quotation marks as TeX writes them.
_TYPED = re.compile(r"\\(?:[ ,;:!%&#]|q?quad(?![A-Za-z]))|``|(?<=\w)''")
#: A formula in a text, with its delimiters.
_FORMULA = re.compile(
    r"\$\$[^$]++\$\$|\$[^$\n]++\$|\\\((?:[^\\]|\\(?!\)))*+\\\)|\\\[(?:[^\\]|\\(?!\]))*+\\\]"
)
_FRACTION = re.compile(r"\\[dt]?frac(?![A-Za-z])\s*(?:\{([^{}]*)\}\s*\{([^{}]*)\}|(\d)\s*(\d))")
#: Commands whose sign an answer may have instead.
_SIGNS: Mapping[str, str] = MappingProxyType(
    {
        "times": "×", "cdot": "·", "div": "÷", "pm": "±", "circ": "°", "degree": "°", "infty": "∞", "sqrt": "√",
        "le": "≤", "leq": "≤", "ge": "≥", "geq": "≥", "ne": "≠", "neq": "≠", "approx": "≈", "to": "→",
        "rightarrow": "→", "lfloor": "⌊", "rfloor": "⌋", "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ",
        "Delta": "Δ", "epsilon": "ε", "theta": "θ", "lambda": "λ", "mu": "μ", "nu": "ν", "pi": "π", "rho": "ρ",
        "sigma": "σ", "tau": "τ", "phi": "φ", "omega": "ω", "Omega": "Ω",
    }
)  # fmt: skip
#: Commands that leave nothing: sizes, spaces, fonts, whose arguments stay.
_COMMAND = re.compile(r"\\([A-Za-z]+)\*?|\\(.)", re.DOTALL)
_UNSEEN = frozenset(
    {"left", "right", "displaystyle", "quad", "qquad", "boxed", "fbox", "emph", "underline", "mbox", "operatorname"}
    | {f"text{font}" for font in ("", "bf", "it", "rm", "sf", "tt", "normal")}
    | {f"math{font}" for font in ("rm", "bf", "it", "sf", "tt")}
)  # fmt: skip
_BULLET = re.compile(r"^[ \t]*[-*+•>][ \t]+", re.MULTILINE)
#: Punctuation that is no part of a number, brackets, quotation marks, markup.
_PUNCTUATION = re.compile(
    r"(?<!\d)[.,:]|[.,:](?!\d)|[\s;!?，。；：！？、()\[\]{}（）【】$^_*#`'\"“”‘’|~&%]+"
)
_DASHES = re.compile(r"[\u2010-\u2015\u2212]")
_LETTER = re.compile(r"[(\s]*([A-Za-z])(?:[).:,]|\s*\Z)")


def grade(
    answer: str | None, expected: str | None, *, choice: bool, refused: bool = False
) -> Grade:
    """Return the grade of ``answer``.

    Args:
        answer: what an extractor found; None: nothing.
        expected: the right answer; None: no answer is right; :data:`REFUSAL`: the text declines to answer.
        choice: whether the answer is one of several options, so that its letter decides.
        refused: whether the extractor reports a refusal.
    """
    if expected == REFUSAL:
        if refused:
            return Grade.RIGHT
        return Grade.NONE if answer is None else Grade.WRONG
    if expected is None:
        return Grade.RIGHT if answer is None else Grade.WRONG
    if answer is None:
        return Grade.NONE
    if not _same(answer, expected, choice=choice):
        return Grade.WRONG
    return Grade.MARKUP if marked_up(answer) else Grade.RIGHT


def marked_up(answer: str) -> bool:
    r"""Return whether ``answer`` has LaTeX that only sets type: ``\text{Yes}``, ``5\ \text{km}``, ``\[ 6 \]``.

    A formula stays as it is, also between its delimiters in a sentence.
    """
    if _BOX.search(answer) or _FORMULA.fullmatch(answer.strip()):
        return True
    outside = _FORMULA.sub(" ", answer)
    return bool(_TYPED.search(outside)) or any(
        _depth(outside, setting.start()) == 0 for setting in _SETTING.finditer(outside)
    )


def _depth(text: str, end: int) -> int:
    return text.count("{", 0, end) - text.count("}", 0, end)


def _same(answer: str, expected: str, *, choice: bool) -> bool:
    if choice and len(expected) == 1 and (letter := _letter(answer)):
        return letter == expected.upper()
    return plain(answer) == plain(expected)


def _letter(answer: str) -> str | None:
    r"""Return the letter of the option with which ``answer`` begins: ``B``, ``(B) 30°``, ``\text{B}``."""
    match = _LETTER.match(_SETTING.sub("", answer).replace("*", "").replace("}", " "))
    return match[1].upper() if match else None


def plain(text: str) -> str:
    """Return ``text`` without markup, punctuation, and spaces, in lower case."""
    text = _BULLET.sub("", text)
    text = _FRACTION.sub(lambda match: "/".join(part for part in match.groups() if part), text)
    text = _COMMAND.sub(_sign, text)
    text = _DASHES.sub("-", unicodedata.normalize("NFKC", text))
    return _PUNCTUATION.sub("", text).casefold()


def _sign(command: re.Match[str]) -> str:
    name, character = command.groups()
    if name is None:
        return character if character in "%&#$" else " "
    return "" if name in _UNSEEN else _SIGNS.get(name, name)
