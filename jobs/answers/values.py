r"""Reads an answer's text as a value: a number, a boolean, one of several choices, or JSON of a JSON Schema. Pure.

Each function returns None unless the text has exactly one such value: it does not guess the meaning of an ambiguous
answer.
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

_MAX_TEXT = 200
#: Longest text, in characters, that a number is read from.
_MAX_NUMBER = 1000
_MAX_JSON = 100_000
_MAX_DIGITS = 30
#: LaTeX spaces become spaces. Other markup is removed, except signs of multiplication.
_SPACES = re.compile(r"\\(?:[,;: ]|q?quad(?![a-z]))")
_MARKUP = re.compile(r"\\(?:left|right|displaystyle|!)|[$`]|(?<!\d)\*|\*(?!\s*\d)|\\[()\[\]]")
_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|textbf|textit|mathit)\s*\{([^{}]*)\}")
#: Thousands separated by LaTeX or by narrow spaces.
_THOUSANDS = re.compile(
    r"(?<![\d.,])(\d{1,3})((?:(?:\{,\}|\\[,!]|[\u2009\u202f\xa0])\d{3})+)(?![\d,]*\d)", re.ASCII
)
_FRACTION = re.compile(
    r"(?P<whole>\d\s*)?\\[dt]?frac\s*"
    r"(?:\{\s*(?P<upper>-?[0-9.]+)\s*\}\s*\{\s*(?P<lower>[0-9.]+)\s*\}|(?P<small>[0-9])(?P<smaller>[0-9])(?!\d))",
    re.ASCII,
)
#: A power of ten after a number, equivalent to ``e3``.
_SCIENTIFIC = re.compile(
    r"(?<=\d)(?:\s|\\[,;:! ])*(?:\u00d7|\\times|\\cdot|[x*\u00b7])(?:\s|\\[,;:! ])*10\s*"
    r"(?:\^\s*\{?\s*(?P<power>[-+\u2212]?\d{1,2})(?!\d)\s*\}?|(?P<raised>\u207b?[⁰¹²³⁴⁵⁶⁷⁸⁹]{1,2}))"
)
#: Parts of a formula, which changes the value of a number next to it. Simple fractions are replaced before.
_FORMULA = re.compile(
    r"\\(?:[dt]?frac|sqrt|pi|tau|log|ln|exp|sin|cos|tan|pm|mp|infty|[lg]eq?|[lg]t|times|cdot|div)(?![a-z])"
    r"|[π√∞±‰<>≤≥\u00d7÷]|\d\s*\*\s*\d"
    # A number combined with a letter that is not a unit.
    r"|\d\s*[xyz]{1,2}\b|\b[a-z]\s*[-+/^]\s*\d|\d\s*[-+/]\s*[nxyz]\b",
    re.IGNORECASE | re.ASCII,
)
_POWERS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
#: A power of a unit (m², \text{cm}^2), which has no meaning here. A power of a number (10²) changes it, as a fraction
#: after it does (3½).
_UNIT_POWER = re.compile(
    r"(?:(\\(?:text|mathrm)\s*\{[^{}]*\})|(?<![^\W\d_])([^\W\d_]{2,}|[msh]))\s*"
    rf"(?:⁻?[{_POWERS}]+|\^\s*(?:-?\d|\{{\s*-?\d\s*\}})(?!\d))"
)
_POWER = re.compile(rf"(?=⁻?[{_POWERS}])(?<![⁻{_POWERS}])")
_HALF_BEHIND = re.compile(r"(?<=[\d)}])(?=[¼-¾⅐-⅞])")
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+"
#: The dollar sign of "US$5".
_DOLLAR = re.compile(r"(?<=[A-Z])\\?\$(?=[\d.])")
#: Second characters of units that start with 千.
_KILO_UNITS = tuple("米克瓦卡伏赫帕焦")
_SCALE = (
    rf"(?:(?:[百万亿]|千(?![{''.join(_KILO_UNITS)}])){{1,3}}"
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
#: Words that contain a numeral but mean no number.
_NO_NUMBER = re.compile(
    r"一(?:共|定|起|般|样)|[三四五六七八九十]+[角边]形?|十字|百分点|\btens? of\b"
    rf"|(?<![零〇一二两三四五六七八九十百千万亿])千(?=[{''.join(_KILO_UNITS)}])",
    re.IGNORECASE,
)
#: Words that turn a number in words into a fraction or negate it.
_PART = re.compile(
    r"\b(?:half|halves|thirds?|quarters?|fourths?|fifths?|sixths?|eighths?|tenths?|no|not|none)\b"
    r"|[半些没不]|分之",
    re.IGNORECASE,
)
#: The same for a number in digits, directly after it.
_PART_BEHIND = re.compile(
    r"[\s-]*(?:and\s+(?:a|one)[\s-]+)?(?:half|halves|thirds?|quarters?|fourths?|fifths?|sixths?|eighths?|tenths?"
    r"|hundredths?|thousandths?)\b|\s*.?半|\s*分之|[kKMB]\b|\s*(?:mln|bn|tn)\b",
)
#: Words that turn a number into a bound.
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
#: Characters around a word of an answer.
_AROUND = " .。!\"'“”\u2018\u2019()"
#: The introduction of a sentence before its yes, no or option.
_INTRODUCTION = re.compile(
    r"\A(?P<before>.{0,80}?)(?:\b(?:answer|option|choice)\s+is\b|\banswer\s*(?=:)|答案应?(?:[是为选]|(?=:)))\s*:?\s*",
    re.IGNORECASE,
)
#: A negation in the introduction.
_NEGATION = re.compile(r"\b(?:not|wrong|incorrect|false)\b|n't\b|[不错非]", re.IGNORECASE)
#: Starts like a yes or a no, but is neither.
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


#: A JSON value.
Value = int | float | bool | str | list[Any] | dict[str, Any] | None


def read(text: str, answer_format: Mapping[str, Any] | None) -> Value:
    """Return the value of ``text`` in the format of a job's option ``answer_format``; without that option, None."""
    match (answer_format or {}).get("type"):
        case "number":
            return number(text)
        case "boolean":
            return boolean(text)
        case "choice":
            return choice(text, (answer_format or {})["options"])
        case "json_schema":
            return structured(text, (answer_format or {})["schema"])
        case _:
            return None


def number(text: str) -> int | float | None:
    r"""Return the only number in ``text``; a unit may follow it.

    It may have thousands separators, be a fraction (``1/3``, ``\frac{1}{3}``) or a percentage (50 % is 0.5), have a
    scale (``5 million``, ``6万``, ``\times 10^3``), or be in English or Chinese words. A formula (``2\pi``, ``2x``,
    ``10²``) or a bound (``more than 5``) is not a number.
    """
    if len(text) > _MAX_NUMBER:
        return None
    plain = _normalized(text)
    if _FORMULA.search(plain) or _BOUND.search(plain):
        return None
    matches = list(_NUMBER.finditer(plain))
    if not matches and any(character.isdigit() for character in plain):
        return None
    if not matches:
        in_words = [] if _PART.search(plain) else list(_in_words(plain))
        return in_words[0] if len(in_words) == 1 else None
    value = _value(matches[0]) if len(matches) == 1 else None
    if value is None or _PART_BEHIND.match(plain, matches[0].end()):
        return None
    # "Six" may occur next to "6", and "one" as a pronoun.
    rest = f"{plain[: matches[0].start()]} ; {plain[matches[0].end() :]}"
    return value if all(other in (value, 1) for other in _in_words(rest)) else None


def boolean(text: str) -> bool | None:
    """Return whether ``text`` means yes or no, by its first word or as a whole, in English or Chinese.

    It may start with "the answer is", as a choice may.
    """
    plain = _after_introduction(_plain(text[:_MAX_TEXT])).casefold().strip(_AROUND)
    if _NEITHER.match(plain):
        return None
    words = re.split(r"[\s,.;:!、。(\u2013\u2014\"”]+", plain, maxsplit=1)
    if words[0] in _YES:
        return True
    return False if words[0] in _NO else None


def choice(text: str, options: Sequence[str]) -> str | None:
    """Return the option that ``text`` equals, or whose letter (A is the first) it equals or starts with.

    The text of an option takes precedence over letters; if letter and text refer to different options, the result is
    None. Options that are letters may be followed by their text in the question (``C. a cat``).
    """
    plain = _folded(text)
    matches = _matching(plain, options)
    if not matches:
        plain = _after_introduction(plain)
        matches = _matching(plain, options)
    if not matches:
        letter = _LETTER.match(plain)
        rest = plain[letter.end() :].strip(" .:),-\u2013\u2014") if letter else ""
        if letter is None and (letter := _LETTER_BEHIND.search(plain)):
            rest = plain[: letter.start()]
        place = ord(letter[1]) - ord("a") if letter else len(options)
        if place < len(options) and rest in ("", _folded(options[place])):
            matches = {options[place]}
    if not matches:
        matches = _explained(_after_introduction(_plain(text[:_MAX_TEXT])), options)
    return matches.pop() if len(matches) == 1 else None


def same(first: str, second: str) -> bool:
    """Whether two answers are equal apart from case, spaces and markup, or are the same number."""
    if (
        _folded(first) == _folded(second)
        and first[_MAX_TEXT:].split() == second[_MAX_TEXT:].split()
    ):
        return True
    value = number(first)
    return value is not None and value == number(second)


def structured(text: str, schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the JSON object in ``text`` if it is valid for ``schema``; see :mod:`jobs.answers.json_schema`.

    Integers that are not interoperable become floats, and characters that databases cannot store are replaced.
    """
    if len(text) > _MAX_JSON:
        return None
    try:
        # Grammars allow control characters that JSON requires to be escaped.
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
    raise ValueError(f"{constant} is not valid JSON")


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
    """Return ``text`` without LaTeX and Markdown markup."""
    normal = unicodedata.normalize("NFKC", text)
    return _MARKUP.sub("", _SPACES.sub(" ", _TEXT.sub(r" \1", normal))).strip()


def _matching(plain: str, options: Sequence[str]) -> set[str]:
    """Return the options that ``plain`` equals, exactly or apart from quotes, brackets and spaces (``5cm``)."""
    exact = {option for option in options if _folded(option) == plain}
    return exact or {option for option in options if _bare(_folded(option)) == _bare(plain)}


def _bare(folded: str) -> str:
    return "".join(folded.strip(_AROUND).split())


def _explained(plain: str, options: Sequence[str]) -> set[str]:
    """Return the option that ``plain`` starts with and explains, if options are letters and it contains no other."""
    letters = {option.strip(_AROUND).upper(): option for option in options}
    match = _EXPLAINED.match(plain)
    if match is None or len(letters) < len(options) or any(len(letter) != 1 for letter in letters):
        return set()
    present = {match[1].upper(), *re.findall(r"\b[A-Z]\b", plain[match.end() :])}
    return {letters[letter] for letter in present if letter in letters}


def _after_introduction(plain: str) -> str:
    """Return the rest of a sentence after "the answer is", or all of it if the introduction is negated."""
    match = _INTRODUCTION.match(plain)
    if match is None or _NEGATION.search(match["before"]):
        return plain
    return plain[match.end() :]


def _folded(text: str) -> str:
    """Return the start of ``text`` without markup, case, extra spaces and final periods."""
    return " ".join(_plain(text[:_MAX_TEXT]).casefold().split()).rstrip(" .。")


def _normalized(text: str) -> str:
    """Return ``text`` with its numbers in the form that :data:`_NUMBER` matches."""
    text = _SCIENTIFIC.sub(_exponent, _THOUSANDS.sub(_joined, text))
    text = _POWER.sub("^", _HALF_BEHIND.sub(" ", _UNIT_POWER.sub(r"\1\2", text)))
    text = _plain(_FRACTION.sub(_quotient, _DOLLAR.sub(" ", text))).replace("\u2044", "/")
    return _MINUS.sub("-", _PERCENT.sub(r"\1%", text))


def _joined(match: re.Match[str]) -> str:
    return match[1] + re.sub(r"\D", "", match[2])


def _exponent(match: re.Match[str]) -> str:
    power = match["power"] or unicodedata.normalize("NFKC", match["raised"])
    return "e" + power.replace("\u2212", "-")


def _quotient(match: re.Match[str]) -> str:
    """Return a fraction in the form ``1/3``; a mixed number stays unchanged and counts as a formula."""
    if match["whole"]:
        return match[0]
    return f"{match['upper'] or match['small']}/{match['lower'] or match['smaller']}"


def _in_words(plain: str) -> Iterator[int | float | None]:
    """Yield the numbers in words, or None for words that are not a single number."""
    plain = _NO_NUMBER.sub(" ", plain)
    languages = ((numerals.ENGLISH, numerals.english), (numerals.CHINESE, numerals.chinese))
    for pattern, parse in languages:
        for match in pattern.finditer(plain):
            before, after = plain[: match.start()], plain[match.end() :]
            value: int | float | None = parse(match[0])
            # Ambiguous: "five kilograms" and "five thousand grams" are the same characters.
            if value is None or (match[0].endswith("千") and after.startswith(_KILO_UNITS)):
                yield None
                continue
            if before.endswith("-") and not before[-2:-1].isalnum():
                value = -value
            yield value / 100 if _PERCENT_WORD.match(after) else value


def _value(match: re.Match[str]) -> int | float | None:
    upper, lower = match["upper"].replace(",", ""), (match["lower"] or "1").replace(",", "")
    if len(upper) + len(lower) > _MAX_DIGITS or not float(lower):
        return None
    value = Fraction(upper) / Fraction(lower) * Fraction(10) ** int(match["power"] or 0)
    if match["percent"]:
        value /= 100
    for scale in _ONE_SCALE.findall(match["scale"] or ""):
        value *= numerals.SCALES[scale.lower()]
    if match["sign"] not in ("", "+"):
        if match["apart"] and match.string[: match.start()].strip(" =("):
            # "Total - 5" is not a negative number, and "x - 5" is not a number.
            return None
        value = -value
    whole = value.denominator == 1 and abs(value) < 2**53
    return int(value) if whole else float(value)
