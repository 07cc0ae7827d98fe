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
#: What makes of a number another one, so that it is none by itself. A simple fraction has been read before.
_FORMULA = re.compile(
    r"\\(?:[dt]?frac|sqrt|pi|tau|log|ln|exp|sin|cos|tan|pm|mp|infty)(?![a-z])|[π√∞±]",
    re.IGNORECASE,
)
_POWERS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
#: Of a unit (m²) it says nothing; of a number (10²) it makes another one, and so does a half behind it (3½).
_UNIT_POWER = re.compile(rf"(?<=[^\W\d_])[{_POWERS}]+")
_NUMBER_POWER = re.compile(rf"(?<=[\d)}}])(?=[{_POWERS}¼-¾⅐-⅞])")
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+"
_SCALES = {
    "dozen": 12,
    "hundred": 100,
    "百": 100,
    "thousand": 1000,
    "千": 1000,
    "万": 10**4,
    "million": 10**6,
    "亿": 10**8,
    "billion": 10**9,
}
_NUMBER = re.compile(
    rf"(?<![\w.])(?P<sign>[-+\u2212]?)\s*(?P<upper>{_DIGITS})(?:e(?P<power>[-+]?\d{{1,2}}))?(?![\w.]*\d)"
    rf"(?:\s*/\s*(?P<lower>{_DIGITS})(?![\w.]*\d))?\s*(?P<percent>\\?%|percent\b)?"
    r"(?P<scale>百|千|万|亿|(?:hundred|thousand|million|billion|dozen)\b)?",
    re.IGNORECASE | re.ASCII,
)
_SMALL = {
    word: value
    for value, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
        ]
    )
} | {
    word: value
    for value, word in zip(
        range(20, 100, 10),
        ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"],
        strict=True,
    )
}
_WORD = r"(?:" + "|".join([*_SMALL, *(word for word in _SCALES if word.isascii())]) + r")"
_WORDS = re.compile(rf"\b{_WORD}(?:(?:\s+and\s+|[\s-]+){_WORD})*\b", re.IGNORECASE)
_CHINESE = dict(zip("零〇一二两三四五六七八九", (0, 0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9), strict=True))
_CHINESE_WORDS = re.compile(r"[零〇一二两三四五六七八九十百千万亿]+")
#: Words with a number in them that name none.
_NO_NUMBER = re.compile(r"一(?:共|定|起|般|样)|\btens? of\b", re.IGNORECASE)
#: What makes of a number in words a part of it, some of it, or none.
_PART = re.compile(
    r"\b(?:half|halves|thirds?|quarters?|fourths?|fifths?|sixths?|eighths?|tenths?|no|not|none)\b"
    r"|[半几些没不]|分之",
    re.IGNORECASE,
)
_YES = ("yes", "true", "是", "是的", "对", "有", "正确")
_NO = ("no", "false", "否", "不", "不是", "没有", "错", "错误")
#: What a sentence says before it comes to a yes, a no or an option.
_SAID = re.compile(
    r"\A.{0,80}?(?:\b(?:answer|option|choice)\s+is\b|答案[是为:])\s*:?\s*", re.IGNORECASE
)
#: Begins as one of them, and says neither.
_NEITHER = re.compile(
    r"(?:yes|true|no|false)\s+(?:or|and)\s+(?:yes|true|no|false)\b|no\s+(?:idea|answer)\b"
)
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

    It may have thousands separators, be a fraction (``1/3``, ``\frac{1}{3}``), a percentage (50 % is 0.5), have a
    scale (``5 million``, ``6万``), or be a number in English or Chinese words. A formula is none, ``2\pi`` or ``10²``.
    """
    marked = _NUMBER_POWER.sub(" ", _UNIT_POWER.sub("", text[:_LONGEST]))
    plain = _FRACTION.sub(r"\1/\2", _plain(marked)).replace("\u2044", "/")
    if _FORMULA.search(plain):
        return None
    found = list(_NUMBER.finditer(plain))
    if found:
        return _valued(found[0]) if len(found) == 1 else None
    if any(character.isdigit() for character in plain) or _PART.search(plain):
        return None
    plain = _NO_NUMBER.sub(" ", plain)
    words = [_english(match[0]) for match in _WORDS.finditer(plain)]
    words += [_chinese(match[0]) for match in _CHINESE_WORDS.finditer(plain)]
    return words[0] if len(words) == 1 else None


def boolean(text: str) -> bool | None:
    """Return whether ``text`` says yes or no, with its first word or as a whole, in English or Chinese.

    "The answer is" may stand before it, as before a choice.
    """
    plain = _SAID.sub("", _plain(text)).casefold().strip(" .。")
    if _NEITHER.match(plain):
        return None
    words = re.split(r"[\s,.;:!、。]+", plain, maxsplit=1)
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
        plain = _SAID.sub("", plain)
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
    if found["scale"]:
        value *= _SCALES[found["scale"].lower()]
    if found["sign"] not in ("", "+"):
        value = -value
    whole = value.denominator == 1 and abs(value) < 2**53
    return int(value) if whole else float(value)


def _english(words: str) -> int | None:
    """Return what a run of number words says, None when they are no one number."""
    whole = part = 0
    lowest = math.inf
    for word in re.findall(r"[a-z]+", words.lower()):
        if word == "and":
            continue
        scale = _SCALES.get(word)
        if scale is None:
            # After "twenty" comes a digit, after "hundred" anything below; after a digit nothing.
            room = 100 if part % 100 == 0 else 10 if part % 100 in range(20, 100, 10) else 0
            if (part or whole) and not 0 < _SMALL[word] < room:
                return None
            part += _SMALL[word]
        elif scale < 1000:  # noqa: PLR2004 - hundred and dozen
            if part >= 100:  # noqa: PLR2004 - a hundred
                return None
            part = (part or 1) * scale
        elif scale >= lowest:
            return None
        else:
            whole, part, lowest = whole + (part or 1) * scale, 0, scale
    return whole + part


def _chinese(word: str) -> int | None:
    """Return what a run of Chinese numerals says, None when they are no one number."""
    whole = part = 0
    digit: int | None = None
    #: What the next digit counts, when nothing says so.
    rest: float = 1
    lowest = least = math.inf
    for character in word:
        scale = 10 if character == "十" else _SCALES.get(character)
        if scale is None:
            if digit:
                return None
            rest = 1 if digit == 0 else rest
            digit = _CHINESE[character]
        elif scale >= (least if scale < 10**4 else lowest):
            return None
        elif scale < 10**4:
            part += (digit or 1) * scale
            digit, rest, least = None, scale / 10, scale
        else:
            whole += (part + (digit or 0) or 1) * scale
            part, digit, rest, least, lowest = 0, None, scale / 10, math.inf, scale
    # "三百五" is 350 to some and a slip to others.
    if digit and rest != 1:
        return None
    return whole + part + (digit or 0)
