r"""An answer's text as a value: a number, yes or no, one of several choices, JSON of a schema. Pure.

Each function returns None when the text does not say exactly one such value: an answer that can be understood
in two ways is not guessed at.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, NoReturn

from jobs import schemas

_LONGEST = 200
_LONGEST_JSON = 100_000
_MOST_DIGITS = 30
_MARKUP = re.compile(r"\\(?:left|right|displaystyle|[,;:! ])|[$*`]|\\[()\[\]]")
_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|textbf)\s*\{([^{}]*)\}")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*([0-9.]+)\s*\}\s*\{\s*([0-9.]+)\s*\}")
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+"
_NUMBER = re.compile(
    rf"(?<![\w.])(?P<sign>[-+\u2212]?)\s*(?P<upper>{_DIGITS})(?:e(?P<power>[-+]?\d{{1,2}}))?"
    rf"(?:\s*/\s*(?P<lower>{_DIGITS}))?\s*(?P<percent>\\?%|percent\b)?",
    re.IGNORECASE | re.ASCII,
)
_WORDS = {
    word: value
    for value, words in enumerate(
        [
            "zero 零",
            "one 一",
            "two 二 两",
            "three 三",
            "four 四",
            "five 五",
            "six 六",
            "seven 七",
            "eight 八",
            "nine 九",
            "ten",
            "eleven",
            "twelve",
        ]
    )
    for word in words.split()
}
_WORD = re.compile(r"\b(?:" + "|".join(w for w in _WORDS if w.isascii()) + r")\b", re.IGNORECASE)
_CHINESE = re.compile(r"[一二三四五六七八九]?十[一二三四五六七八九]?|[零一二两三四五六七八九]")
_YES = ("yes", "true", "是", "是的", "对", "有", "正确")
_NO = ("no", "false", "否", "不", "不是", "没有", "错", "错误")
_LETTER = re.compile(
    r"(?:option|choice|选项?)?\s*\(?\s*([a-z])\s*\)?(?:[.:)、\s]|\Z)", re.IGNORECASE
)


#: What JSON can say.
Value = int | float | bool | str | list[Any] | dict[str, Any] | None


def read(text: str, wanted: Mapping[str, Any] | None) -> Value:
    """Return ``text`` as what a job's option ``answer_format`` asks for; without one the text is all there is."""
    match (wanted or {}).get("type"):
        case "number":
            return number(text)
        case "boolean":
            return boolean(text)
        case "choice":
            return choice(text, (wanted or {})["options"])
        case "json_schema":
            return structured(text, (wanted or {})["schema"])
        case _:
            return None


def number(text: str) -> int | float | None:
    r"""Return the one number in ``text``; what follows it is its unit.

    It may have thousands separators, be a fraction (``1/3``, ``\frac{1}{3}``), a percentage (50 % is 0.5), or a
    small number in English or Chinese words.
    """
    plain = _FRACTION.sub(r"\1/\2", _plain(text))
    found = list(_NUMBER.finditer(plain))
    if found:
        return _valued(found[0]) if len(found) == 1 else None
    words = [_WORDS[match[0].lower()] for match in _WORD.finditer(plain)]
    words += [_chinese(match[0]) for match in _CHINESE.finditer(plain)]
    return words[0] if len(words) == 1 else None


def boolean(text: str) -> bool | None:
    """Return whether ``text`` says yes or no, with its first word or as a whole, in English or Chinese."""
    words = re.split(r"[\s,.;:!、。]+", _plain(text).casefold().strip(" .。"), maxsplit=1)
    if words[0] in _YES:
        return True
    return False if words[0] in _NO else None


def choice(text: str, options: Sequence[str]) -> str | None:
    """Return the one of ``options`` that ``text`` is, or whose letter (A is the first) it is or begins with.

    An option's own text goes before letters; letter and text that name two options are none.
    """
    plain = _folded(text)
    named = {option for option in options if _folded(option) == plain}
    if not named:
        letter = _LETTER.match(plain)
        place = ord(letter[1]) - ord("a") if letter else len(options)
        rest = plain[letter.end() :].strip(" .:)") if letter else ""
        if place < len(options) and rest in ("", _folded(options[place])):
            named = {options[place]}
    return named.pop() if len(named) == 1 else None


def same(one: str, other: str) -> bool:
    """Whether two answers are the same, case, spaces and markup aside, or the same number."""
    if _folded(one) == _folded(other):
        return True
    value = number(one)
    return value is not None and value == number(other)


def structured(text: str, schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the JSON object that ``text`` is, if it is as ``schema`` says; see :mod:`jobs.schemas`.

    Numbers that are not the same everywhere become floats, and what no database keeps in a text is replaced.
    """
    if len(text) > _LONGEST_JSON:
        return None
    try:
        # Grammars let control characters pass that ought to be escaped.
        value = json.loads(
            text, strict=False, parse_int=_integer, parse_float=_finite, parse_constant=_refuse
        )
        value = _storable(value)
        return value if isinstance(value, dict) and schemas.holds(schema, value) else None
    except (ValueError, RecursionError):
        return None


def _integer(digits: str) -> int | float:
    number = _finite(digits)
    return int(number) if abs(number) < 2**53 else number


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _storable(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return JSON without NUL and lone surrogates."""
    if isinstance(value, str):
        return (
            value.replace("\x00", "\ufffd")
            .encode("utf-16", "surrogatepass")
            .decode("utf-16", "replace")
        )
    if isinstance(value, list):
        return [_storable(part) for part in value]
    if isinstance(value, dict):
        return {_storable(name): _storable(part) for name, part in value.items()}
    return value


def _plain(text: str) -> str:
    """Return the first characters of ``text`` without LaTeX and Markdown around them."""
    normal = unicodedata.normalize("NFKC", text[:_LONGEST])
    return _MARKUP.sub("", _TEXT.sub(r" \1", normal)).strip()


def _folded(text: str) -> str:
    return " ".join(_plain(text).casefold().split()).rstrip(" .。")


def _valued(found: re.Match[str]) -> int | float | None:
    upper, lower = found["upper"].replace(",", ""), (found["lower"] or "1").replace(",", "")
    if len(upper) + len(lower) > _MOST_DIGITS or not float(lower):
        return None
    value = Fraction(upper) / Fraction(lower) * Fraction(10) ** int(found["power"] or 0)
    if found["percent"]:
        value /= 100
    if found["sign"] not in ("", "+"):
        value = -value
    whole = value.denominator == 1 and abs(value) < 2**53
    return int(value) if whole else float(value)


def _chinese(word: str) -> int:
    tens, ten, ones = word.partition("十")
    if not ten:
        return _WORDS[word]
    return (_WORDS[tens] if tens else 1) * 10 + (_WORDS[ones] if ones else 0)
