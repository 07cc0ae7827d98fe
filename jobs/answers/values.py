r"""An answer's text as a value: a number, yes or no, one of several choices, JSON of a schema. Pure.

Each function returns None when the text does not say exactly one such value: an answer that can be understood
in two ways is not guessed at.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, NoReturn

from jobs.answers import json_schema, numerals

_LONGEST = 200
#: Of a longer text no number is read, as another one might stand further on.
_LONGEST_NUMBER = 1000
_LONGEST_JSON = 100_000
_MOST_DIGITS = 30
#: Spaces part what is on their two sides; all else goes without a trace, but for a sign of multiplication.
_SPACES = re.compile(r"\\(?:[,;: ]|q?quad(?![a-z]))")
_MARKUP = re.compile(r"\\(?:left|right|displaystyle|!)|[$`]|(?<!\d)\*|\*(?!\s*\d)|\\[()\[\]]")
_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|textbf|textit|mathit)\s*\{([^{}]*)\}")
#: Thousands as LaTeX and as narrow spaces part them.
_THOUSANDS = re.compile(
    r"(?<![\d.,])(\d{1,3})((?:(?:\{,\}|\\[,!]|[\u2009\u202f\xa0])\d{3})+)(?![\d,]*\d)", re.ASCII
)
_FRACTION = re.compile(
    r"(?P<whole>\d\s*)?\\[dt]?frac\s*"
    r"(?:\{\s*(?P<upper>-?[0-9.]+)\s*\}\s*\{\s*(?P<lower>[0-9.]+)\s*\}|(?P<small>[0-9])(?P<smaller>[0-9])(?!\d))",
    re.ASCII,
)
#: A power of ten behind a number: what ``e3`` says.
_SCIENTIFIC = re.compile(
    r"(?<=\d)(?:\s|\\[,;:! ])*(?:\u00d7|\\times|\\cdot|[x*\u00b7])(?:\s|\\[,;:! ])*10\s*"
    r"(?:\^\s*\{?\s*(?P<power>[-+\u2212]?\d{1,2})(?!\d)\s*\}?|(?P<raised>\u207b?[⁰¹²³⁴⁵⁶⁷⁸⁹]{1,2}))"
)
#: What makes of a number another one, or several, so that it is none by itself. A simple fraction has been read before.
_FORMULA = re.compile(
    r"\\(?:[dt]?frac|sqrt|pi|tau|log|ln|exp|sin|cos|tan|pm|mp|infty|[lg]eq?|[lg]t|times|cdot|div)(?![a-z])"
    r"|[π√∞±‰<>≤≥\u00d7÷]|\d\s*\*\s*\d"
    # A number times or by a letter that is no unit.
    r"|\d\s*[xyz]{1,2}\b|\b[a-z]\s*[-+/^]\s*\d|\d\s*[-+/]\s*[nxyz]\b",
    re.IGNORECASE | re.ASCII,
)
_POWERS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
#: Of a unit (m², \text{cm}^2) a power says nothing; of a number (10²) it makes another one, and so does a half
#: behind it (3½).
_UNIT_POWER = re.compile(
    r"(?:(\\(?:text|mathrm)\s*\{[^{}]*\})|(?<![^\W\d_])([^\W\d_]{2,}|[msh]))\s*"
    rf"(?:⁻?[{_POWERS}]+|\^\s*(?:-?\d|\{{\s*-?\d\s*\}})(?!\d))"
)
_POWER = re.compile(rf"(?=⁻?[{_POWERS}])(?<![⁻{_POWERS}])")
_HALF_BEHIND = re.compile(r"(?<=[\d)}])(?=[¼-¾⅐-⅞])")
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+"
#: Of "US$5".
_DOLLAR = re.compile(r"(?<=[A-Z])\\?\$(?=[\d.])")
#: Units of which 千 is a part.
_THOUSANDFOLD = tuple("米克瓦卡伏赫帕焦")
_SCALE = (
    rf"(?:(?:[百万亿]|千(?![{''.join(_THOUSANDFOLD)}])){{1,3}}"
    rf"|(?:\s*(?:{'|'.join(word for word in numerals.SCALES if word.isascii())})s?\b){{1,3}})"
)
_ONE_SCALE = re.compile("|".join(numerals.SCALES), re.IGNORECASE)
_NUMBER = re.compile(
    rf"(?<![\w.])(?P<sign>[-+\u2212\u2013]?)(?P<apart>\s*)[(€£¥₩]?\s*(?P<upper>{_DIGITS})"
    rf"(?:e(?P<power>[-+]?\d{{1,2}}))?(?![\w.]*\d)"
    rf"(?:\s*/\s*(?P<lower>{_DIGITS})(?![\w.]*\d))?\s*(?P<percent>\\?%|per\s?cent\b)?"
    rf"(?P<scale>{_SCALE})?",
    re.IGNORECASE | re.ASCII,
)
_MINUS = re.compile(
    r"零下|负(?=\s*[\d零\u3007一二两三四五六七八九十百千])|\b(?:minus|negative)\b\s*(?=\S)",
    re.IGNORECASE,
)
_PERCENT = re.compile(r"百分之\s*([\d.]+|[零〇一二两三四五六七八九十百]+)", re.ASCII)
_PERCENT_WORD = re.compile(r"\s*(?:%|per\s?cent\b)", re.IGNORECASE)
#: Words with a number in them that name none.
_NO_NUMBER = re.compile(
    r"一(?:共|定|起|般|样)|[三四五六七八九十]+[角边]形?|十字|百分点|\btens? of\b"
    rf"|(?<![零〇一二两三四五六七八九十百千万亿])千(?=[{''.join(_THOUSANDFOLD)}])",
    re.IGNORECASE,
)
#: What makes of a number in words a part of it, some of it, or none.
_PART = re.compile(
    r"\b(?:half|halves|thirds?|quarters?|fourths?|fifths?|sixths?|eighths?|tenths?|no|not|none)\b"
    r"|[半些没不]|分之",
    re.IGNORECASE,
)
#: Likewise of one in digits, right behind it.
_PART_BEHIND = re.compile(
    r"[\s-]*(?:and\s+(?:a|one)[\s-]+)?(?:half|halves|thirds?|quarters?|fourths?|fifths?|sixths?|eighths?|tenths?"
    r"|hundredths?|thousandths?)\b|\s*.?半|\s*分之|[kKMB]\b|\s*(?:mln|bn|tn)\b",
)
#: More or less than it.
_BOUND = re.compile(
    r"\b(?:(?:more|less|fewer|greater) than|or (?:more|less|fewer))\b|几(?!何)|超过|[多少大小高低]于|不[到足]"
    r"|[十百千万\d]\s*(?:[多余]|来(?=[个只人岁]))|[\d十百千万个只]\s*以[上下]",
    re.IGNORECASE,
)
_YES = ("yes", "true", "是", "是的", "对", "对的", "有", "有的", "正确", "正确的")
_NO = (
    *("no", "false", "否", "不", "不是", "不是的", "没有", "没有的", "无", "不对", "不正确"),
    *("错", "错的", "错误", "错误的"),
)
#: What stands around a word of an answer.
_AROUND = " .。!\"'“”\u2018\u2019()"
#: What a sentence says before it comes to a yes, a no or an option.
_SAID = re.compile(
    r"\A(?P<before>.{0,80}?)(?:\b(?:answer|option|choice)\s+is\b|\banswer\s*(?=:)|答案应?(?:[是为选]|(?=:)))\s*:?\s*",
    re.IGNORECASE,
)
#: Before it, it is not what the sentence says.
_SAID_NOT = re.compile(r"\b(?:not|wrong|incorrect|false)\b|n't\b|[不错非]", re.IGNORECASE)
#: Begins as one of them, and says neither.
_NEITHER = re.compile(
    r"(?:yes|true|no|false)\s*(?:/|,?\s*\b(?:or|and)\b)\s*(?:yes|true|no|false)\b"
    r"|no\s+(?:\w+\s+)?(?:idea|answer|information|conclusion|way)\b"
)
_LETTER = re.compile(
    r"(?:option|choice|[应故]?选[项择]?)?\s*[(\[【]?\s*([a-z])\s*[)\]】]?(?:[.:)、,\s]|项|\Z)",
    re.IGNORECASE,
)
_EXPLAINED = re.compile(r"[*(\s]*([A-Za-z])(?:\)\s*[.:]?|\s*[.:、])\s*(?=\S)")
_LETTER_BEHIND = re.compile(r"\s*\(([a-z])\)\Z")


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
    scale (``5 million``, ``6万``, ``\times 10^3``), or be a number in English or Chinese words. A formula is none,
    ``2\pi``, ``2x`` or ``10²``, nor is a bound, ``more than 5``.
    """
    if len(text) > _LONGEST_NUMBER:
        return None
    plain = _ready(text)
    if _FORMULA.search(plain) or _BOUND.search(plain):
        return None
    found = list(_NUMBER.finditer(plain))
    if not found and any(character.isdigit() for character in plain):
        return None
    if not found:
        said = [] if _PART.search(plain) else list(_in_words(plain))
        return said[0] if len(said) == 1 else None
    value = _valued(found[0]) if len(found) == 1 else None
    if value is None or _PART_BEHIND.match(plain, found[0].end()):
        return None
    # "Six" may stand beside "6", and "one" for what is spoken of.
    rest = f"{plain[: found[0].start()]} ; {plain[found[0].end() :]}"
    return value if all(other in (value, 1) for other in _in_words(rest)) else None


def boolean(text: str) -> bool | None:
    """Return whether ``text`` says yes or no, with its first word or as a whole, in English or Chinese.

    "The answer is" may stand before it, as before a choice.
    """
    plain = _after_said(_plain(text[:_LONGEST])).casefold().strip(_AROUND)
    if _NEITHER.match(plain):
        return None
    words = re.split(r"[\s,.;:!、。(\u2013\u2014\"”]+", plain, maxsplit=1)
    if words[0] in _YES:
        return True
    return False if words[0] in _NO else None


def choice(text: str, options: Sequence[str]) -> str | None:
    """Return the one of ``options`` that ``text`` is, or whose letter (A is the first) it is or begins with.

    An option's own text goes before letters; letter and text that name two options are none. Options that are letters
    themselves may be followed by what the question says of them (``C. a cat``).
    """
    plain = _folded(text)
    named = _named(plain, options)
    if not named:
        plain = _after_said(plain)
        named = _named(plain, options)
    if not named:
        letter = _LETTER.match(plain)
        rest = plain[letter.end() :].strip(" .:),-\u2013\u2014") if letter else ""
        if letter is None and (letter := _LETTER_BEHIND.search(plain)):
            rest = plain[: letter.start()]
        place = ord(letter[1]) - ord("a") if letter else len(options)
        if place < len(options) and rest in ("", _folded(options[place])):
            named = {options[place]}
    if not named:
        named = _lettered(_after_said(_plain(text[:_LONGEST])), options)
    return named.pop() if len(named) == 1 else None


def same(one: str, other: str) -> bool:
    """Whether two answers are the same, case, spaces and markup aside, or the same number."""
    if _folded(one) == _folded(other) and one[_LONGEST:].split() == other[_LONGEST:].split():
        return True
    value = number(one)
    return value is not None and value == number(other)


def structured(text: str, schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the JSON object that ``text`` is, if it is as ``schema`` says; see :mod:`jobs.answers.json_schema`.

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
        return value if isinstance(value, dict) and json_schema.holds(schema, value) else None
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
    """Return ``text`` without LaTeX and Markdown around it."""
    normal = unicodedata.normalize("NFKC", text)
    return _MARKUP.sub("", _SPACES.sub(" ", _TEXT.sub(r" \1", normal))).strip()


def _named(plain: str, options: Sequence[str]) -> set[str]:
    """Return the options that ``plain`` is word for word, or but for quotes, brackets and spaces: ``5cm``."""
    exactly = {option for option in options if _folded(option) == plain}
    return exactly or {option for option in options if _bare(_folded(option)) == _bare(plain)}


def _bare(folded: str) -> str:
    return "".join(folded.strip(_AROUND).split())


def _lettered(plain: str, options: Sequence[str]) -> set[str]:
    """Return the option that ``plain`` begins with and explains, if options are letters and it names no other one."""
    letters = {option.strip(_AROUND).upper(): option for option in options}
    found = _EXPLAINED.match(plain)
    if found is None or len(letters) < len(options) or any(len(letter) != 1 for letter in letters):
        return set()
    said = {found[1].upper(), *re.findall(r"\b[A-Z]\b", plain[found.end() :])}
    return {letters[letter] for letter in said if letter in letters}


def _after_said(plain: str) -> str:
    """Return what a sentence says behind "the answer is"; all of it when it says what the answer is not."""
    found = _SAID.match(plain)
    if found is None or _SAID_NOT.search(found["before"]):
        return plain
    return plain[found.end() :]


def _folded(text: str) -> str:
    """Return the first characters of ``text`` without what makes no difference to its meaning."""
    return " ".join(_plain(text[:_LONGEST]).casefold().split()).rstrip(" .。")


def _ready(text: str) -> str:
    """Return ``text`` with its numbers as :data:`_NUMBER` reads them."""
    text = _SCIENTIFIC.sub(_exponent, _THOUSANDS.sub(_joined, text))
    text = _POWER.sub("^", _HALF_BEHIND.sub(" ", _UNIT_POWER.sub(r"\1\2", text)))
    text = _plain(_FRACTION.sub(_quotient, _DOLLAR.sub(" ", text))).replace("\u2044", "/")
    return _MINUS.sub("-", _PERCENT.sub(r"\1%", text))


def _joined(found: re.Match[str]) -> str:
    return found[1] + re.sub(r"\D", "", found[2])


def _exponent(found: re.Match[str]) -> str:
    power = found["power"] or unicodedata.normalize("NFKC", found["raised"])
    return "e" + power.replace("\u2212", "-")


def _quotient(found: re.Match[str]) -> str:
    """Return a fraction in one line; behind a whole number it is a mixed one, which is left for a formula."""
    if found["whole"]:
        return found[0]
    return f"{found['upper'] or found['small']}/{found['lower'] or found['smaller']}"


def _in_words(plain: str) -> Iterator[int | float | None]:
    """Yield the numbers in words, None for what is no one number."""
    plain = _NO_NUMBER.sub(" ", plain)
    languages = ((numerals.ENGLISH, numerals.english), (numerals.CHINESE, numerals.chinese))
    for pattern, said_by in languages:
        for found in pattern.finditer(plain):
            before, behind = plain[: found.start()], plain[found.end() :]
            value: int | float | None = said_by(found[0])
            # Two ways to count by the thousand: five kilograms, or five thousand grams.
            if value is None or (found[0].endswith("千") and behind.startswith(_THOUSANDFOLD)):
                yield None
                continue
            if before.endswith("-") and not before[-2:-1].isalnum():
                value = -value
            yield value / 100 if _PERCENT_WORD.match(behind) else value


def _valued(found: re.Match[str]) -> int | float | None:
    upper, lower = found["upper"].replace(",", ""), (found["lower"] or "1").replace(",", "")
    if len(upper) + len(lower) > _MOST_DIGITS or not float(lower):
        return None
    value = Fraction(upper) / Fraction(lower) * Fraction(10) ** int(found["power"] or 0)
    if found["percent"]:
        value /= 100
    for scale in _ONE_SCALE.findall(found["scale"] or ""):
        value *= numerals.SCALES[scale.lower()]
    if found["sign"] not in ("", "+"):
        if found["apart"] and found.string[: found.start()].strip(" =("):
            # "Total - 5" is no number below zero, and "x - 5" no number.
            return None
        value = -value
    whole = value.denominator == 1 and abs(value) < 2**53
    return int(value) if whole else float(value)
