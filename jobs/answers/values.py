r"""Typed values from the text of an answer: a number, a boolean, one of several options, JSON of a schema. Pure.

Each function returns None unless the text states exactly one such value: an ambiguous answer is not guessed.

The comments at the patterns give examples of what a pattern matches, in **bold** where it matches only a part of the
example. A line of a pattern covers one language or one notation.
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

#: Characters of a text that a comparison of words reads.
_MAX_TEXT = 200
#: A longer text is not read as a number, because it might contain another number further on.
_MAX_NUMBER_TEXT = 1000
_MAX_JSON = 100_000
_MAX_DIGITS = 30

# LaTeX and Markdown.

#: LaTeX spaces, which become spaces: ``5\,km``, ``x\quad y``.
_SPACES = re.compile(r"\\(?:[,;: ]|q?quad(?![a-z]))")
#: Markup that is dropped: ``\left``, ``$``, ``**``, ``\(``. The asterisk of a product stays: ``2 * 3``.
_MARKUP = re.compile(r"\\(?:left|right|displaystyle|!)|[$`]|(?<!\d)\*|\*(?!\s*\d)|\\[()\[\]]")
#: LaTeX commands whose argument is text: ``\text{km}``.
_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|textbf|textit|mathit)\s*\{([^{}]*)\}")

# Numbers in digits.

#: Thousands separated by LaTeX or narrow spaces: ``12{,}345``, ``12\,345``.
_THOUSANDS = re.compile(
    r"(?<![\d.,])(\d{1,3})((?:(?:\{,\}|\\[,!]|[\u2009\u202f\xa0])\d{3})+)(?![\d,]*\d)", re.ASCII
)
#: LaTeX fractions: ``\frac{1}{3}``, ``\dfrac12``; also mixed numbers: ``3\frac{1}{2}``.
_FRACTION = re.compile(
    r"(?P<whole>\d\s*)?\\[dt]?frac\s*"
    r"(?:\{\s*(?P<upper>-?[0-9.]+)\s*\}\s*\{\s*(?P<lower>[0-9.]+)\s*\}|(?P<small>[0-9])(?P<smaller>[0-9])(?!\d))",
    re.ASCII,
)
#: A power of ten after a number: 2**\times 10^{3}**, 2**x10³**. It is rewritten as ``e3``.
_SCIENTIFIC = re.compile(
    r"(?<=\d)(?:\s|\\[,;:! ])*(?:\u00d7|\\times|\\cdot|[x*\u00b7])(?:\s|\\[,;:! ])*10\s*"
    r"(?:\^\s*\{?\s*(?P<power>[-+\u2212]?\d{1,2})(?!\d)\s*\}?|(?P<raised>\u207b?[⁰¹²³⁴⁵⁶⁷⁸⁹]{1,2}))"
)
#: Signs of a formula, whose numbers are not the value. Simple fractions were rewritten before.
_FORMULA = re.compile(
    # LaTeX: \sqrt2, 2\pi, \leq 5.
    r"\\(?:[dt]?frac|sqrt|pi|tau|log|ln|exp|sin|cos|tan|pm|mp|infty|[lg]eq?|[lg]t|times|cdot|div)(?![a-z])"
    # Symbols: 2π, ≤5, 2*3.
    r"|[π√∞±‰<>≤≥\u00d7÷]|\d\s*\*\s*\d"
    # A number next to a letter that is not a unit: 2x, n-1, 3/n.
    r"|\d\s*[xyz]{1,2}\b|\b[a-z]\s*[-+/^]\s*\d|\d\s*[-+/]\s*[nxyz]\b",
    re.IGNORECASE | re.ASCII,
)
_POWERS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
#: The power of a unit, which is dropped: m², \text{cm}^2.
_UNIT_POWER = re.compile(
    r"(?:(\\(?:text|mathrm)\s*\{[^{}]*\})|(?<![^\W\d_])([^\W\d_]{2,}|[msh]))\s*"
    rf"(?:⁻?[{_POWERS}]+|\^\s*(?:-?\d|\{{\s*-?\d\s*\}})(?!\d))"
)
#: The place of any other power, which changes the number: 10².
_POWER = re.compile(rf"(?=⁻?[{_POWERS}])(?<![⁻{_POWERS}])")
#: The place of a fraction character after a number, which changes the number: 3½.
_HALF_AFTER = re.compile(r"(?<=[\d)}])(?=[¼-¾⅐-⅞])")
#: Digits: 6, 1,234.5, .5.
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+"
#: The dollar sign after a country: US**$**5.
_DOLLAR = re.compile(r"(?<=[A-Z])\\?\$(?=[\d.])")
#: Units that can begin with 千, which is also the word for a thousand: 千米 is a kilometer.
_KILO_UNITS = tuple("米克瓦卡伏赫帕焦")
#: Scales after a number in digits.
_SCALE = (
    # Chinese: 5百万, 5千, but not 5千米.
    rf"(?:(?:[百万亿]|千(?![{''.join(_KILO_UNITS)}])){{1,3}}"
    # English: 5 hundred thousand, 2 dozens.
    rf"|(?:\s*(?:{'|'.join(word for word in numerals.SCALES if word.isascii())})s?\b){{1,3}})"
)
#: A word of a scale: **million**, **万**.
_SCALE_WORD = re.compile("|".join(numerals.SCALES), re.IGNORECASE)
#: A number: -6, €1,234.50, 2e3, 1/3, 50%, 5 million. The group ``apart`` is the space after the sign: "- 5".
_NUMBER = re.compile(
    rf"(?<![\w.])(?P<sign>[-+\u2212\u2013]?)(?P<apart>\s*)[(€£¥₩]?\s*(?P<upper>{_DIGITS})"
    rf"(?:e(?P<power>[-+]?\d{{1,2}}))?(?![\w.]*\d)"
    rf"(?:\s*/\s*(?P<lower>{_DIGITS})(?![\w.]*\d))?\s*(?P<percent>\\?%|per\s?cent\b)?"
    rf"(?P<scale>{_SCALE})?",
    re.IGNORECASE | re.ASCII,
)
#: A minus in words.
_MINUS = re.compile(
    # Chinese: **零下**5度, **负**三.
    r"零下|负(?=\s*[\d零\u3007一二两三四五六七八九十百千])"
    # English: **minus** 5, **negative** three.
    r"|\b(?:minus|negative)\b\s*(?=\S)",
    re.IGNORECASE,
)
#: A percentage in Chinese: 百分之50, 百分之五十.
_PERCENT = re.compile(r"百分之\s*([\d.]+|[零〇一二两三四五六七八九十百]+)", re.ASCII)

# Numbers in words.

#: A percentage after a number in words: fifty **percent**.
_PERCENT_WORD = re.compile(r"\s*(?:%|per\s?cent\b)", re.IGNORECASE)
#: Words that contain a numeral but do not state a number.
_NO_NUMBER = re.compile(
    # Chinese: 一共, 一样, 三角形, 十字, 百分点.
    r"一(?:共|定|起|般|样)|[三四五六七八九十]+[角边]形?|十字|百分点"
    # English: tens of.
    r"|\btens? of\b"
    # Chinese: **千**米, but not 五千米.
    rf"|(?<![零〇一二两三四五六七八九十百千万亿])千(?=[{''.join(_KILO_UNITS)}])",
    re.IGNORECASE,
)
#: Words that change a number in words to a part of it, an unknown number, or none.
_PART = re.compile(
    # English: two thirds, not six.
    r"\b(?:half|halves|thirds?|quarters?|fourths?|fifths?|sixths?|eighths?|tenths?|no|not|none)\b"
    # Chinese: 两个半, 一些, 没有, 三分之一.
    r"|[半些没不]|分之",
    re.IGNORECASE,
)
#: Words with the same effect directly after a number in digits.
_PART_AFTER = re.compile(
    # English: 2 **and a half**, 2 **thirds**.
    r"[\s-]*(?:and\s+(?:a|one)[\s-]+)?(?:half|halves|thirds?|quarters?|fourths?|fifths?|sixths?|eighths?|tenths?"
    r"|hundredths?|thousandths?)\b"
    # Chinese: 2**个半**, 3**分之**1.
    r"|\s*.?半|\s*分之"
    # Abbreviated scales: 5**k**, 5 **bn**.
    r"|[kKMB]\b|\s*(?:mln|bn|tn)\b",
)
#: Words that make a number a bound or an estimate.
_BOUND = re.compile(
    # English: more than 5, 5 or fewer.
    r"\b(?:(?:more|less|fewer|greater) than|or (?:more|less|fewer))\b"
    # Chinese: 几个, 超过5, 多于5, 不到5.
    r"|几(?!何)|超过|[多少大小高低]于|不[到足]"
    # Chinese, after the number: 十多, 二十来个, 5个以上.
    r"|[十百千万\d]\s*(?:[多余]|来(?=[个只人岁]))|[\d十百千万个只]\s*以[上下]",
    re.IGNORECASE,
)

# Yes and no.

_YES = ("yes", "true", "是", "是的", "对", "对的", "有", "有的", "正确", "正确的")
_NO = (
    *("no", "false", "否", "不", "不是", "不是的", "没有", "没有的", "无", "不对", "不正确"),
    *("错", "错的", "错误", "错误的"),
)
#: Characters around a word of an answer.
_AROUND = " .。!\"'“”\u2018\u2019()"
#: The words that introduce a yes, a no or an option.
_INTRODUCTION = re.compile(
    r"\A(?P<before>.{0,80}?)(?:"
    # English: the answer is, the correct option is, answer:
    r"\b(?:answer|option|choice)\s+is\b|\banswer\s*(?=:)"
    # Chinese: 答案是, 答案应选, 答案:
    r"|答案应?(?:[是为选]|(?=:)))\s*:?\s*",
    re.IGNORECASE,
)
#: Words before the introduction that reverse its meaning: the **wrong** answer is.
_NEGATION = re.compile(r"\b(?:not|wrong|incorrect|false)\b|n't\b|[不错非]", re.IGNORECASE)
#: Text that starts with yes or no but states neither.
_NEITHER = re.compile(
    # Yes or no, yes/no.
    r"(?:yes|true|no|false)\s*(?:/|,?\s*\b(?:or|and)\b)\s*(?:yes|true|no|false)\b"
    # No idea, no clear answer.
    r"|no\s+(?:\w+\s+)?(?:idea|answer|information|conclusion|way)\b"
)

# Options.

#: The letter of an option: B, (b), option B:, 选B, 应选B项.
_LETTER = re.compile(
    r"(?:option|choice|[应故]?选[项择]?)?\s*[(\[【]?\s*([a-z])\s*[)\]】]?(?:[.:)、,\s]|项|\Z)",
    re.IGNORECASE,
)
#: The letter of an option before its text: **B.** a cat, **(B)** a cat.
_EXPLAINED = re.compile(r"[*(\s]*([A-Za-z])(?:\)\s*[.:]?|\s*[.:、])\s*(?=\S)")
#: The letter of an option after its text: a cat **(b)**.
_LETTER_AFTER = re.compile(r"\s*\(([a-z])\)\Z")


#: A JSON value.
Value = int | float | bool | str | list[Any] | dict[str, Any] | None


def read(text: str, answer_format: Mapping[str, Any] | None) -> Value:
    """Return ``text`` as a value of a job's option ``answer_format``; None without this option."""
    requested = answer_format or {}
    match requested.get("type"):
        case "number":
            return number(text)
        case "boolean":
            return boolean(text)
        case "choice":
            return choice(text, requested["options"])
        case "json_schema":
            return structured(text, requested["schema"])
        case _:
            return None


def number(text: str) -> int | float | None:
    r"""Return the only number in ``text``, without the unit that may follow it.

    The number may have thousands separators, be a fraction (``1/3``, ``\frac{1}{3}``) or a percentage (50 % is 0.5),
    have a scale (``5 million``, ``6万``, ``\times 10^3``), or be written in English or Chinese words. A formula, such
    as ``2\pi``, ``2x`` or ``10²``, is not a number, and neither is a bound, such as ``more than 5``.
    """
    if len(text) > _MAX_NUMBER_TEXT:
        return None
    plain = _normalized(text)
    if _FORMULA.search(plain) or _BOUND.search(plain):
        return None
    matches = list(_NUMBER.finditer(plain))
    if not matches and any(character.isdigit() for character in plain):
        return None
    if not matches:
        worded = [] if _PART.search(plain) else list(_in_words(plain))
        return worded[0] if len(worded) == 1 else None
    value = _value_of(matches[0]) if len(matches) == 1 else None
    if value is None or _PART_AFTER.match(plain, matches[0].end()):
        return None
    # The text may repeat the number in words ("6 (six)") and use "one" as a pronoun.
    rest = f"{plain[: matches[0].start()]} ; {plain[matches[0].end() :]}"
    return value if all(word in (value, 1) for word in _in_words(rest)) else None


def boolean(text: str) -> bool | None:
    """Return whether ``text`` says yes or no, by its first word or as a whole, in English or Chinese.

    "The answer is" may precede the word, as it may precede a choice.
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

    The text of an option takes precedence over letters. A letter and a text that name different options are not a
    choice. If the options are single letters, the text that the question gives for them may follow (``C. a cat``).
    """
    plain = _folded(text)
    named = _named(plain, options)
    if not named:
        plain = _after_introduction(plain)
        named = _named(plain, options)
    if not named:
        letter = _LETTER.match(plain)
        rest = plain[letter.end() :].strip(" .:),-\u2013\u2014") if letter else ""
        if letter is None and (letter := _LETTER_AFTER.search(plain)):
            rest = plain[: letter.start()]
        index = ord(letter[1]) - ord("a") if letter else len(options)
        if index < len(options) and rest in ("", _folded(options[index])):
            named = {options[index]}
    if not named:
        named = _lettered(_after_introduction(_plain(text[:_MAX_TEXT])), options)
    return named.pop() if len(named) == 1 else None


def same(first: str, second: str) -> bool:
    """Whether two answers are equal, apart from case, spaces and markup, or are the same number."""
    if (
        _folded(first) == _folded(second)
        and first[_MAX_TEXT:].split() == second[_MAX_TEXT:].split()
    ):
        return True
    value = number(first)
    return value is not None and value == number(second)


def structured(text: str, schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the JSON object in ``text`` if it is an instance of ``schema``; see :mod:`jobs.answers.json_schema`.

    Integers that not every JSON parser represents exactly become floats. Characters that a database cannot store are
    replaced.
    """
    if len(text) > _MAX_JSON:
        return None
    try:
        # Grammars admit unescaped control characters.
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
        raise ValueError("the number is too large")
    return number


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _storable(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return the JSON value without NUL and lone surrogates."""
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


def _named(plain: str, options: Sequence[str]) -> set[str]:
    """Return the options that equal ``plain``; if none does, those that equal it without quotes and spaces."""
    exact = {option for option in options if _folded(option) == plain}
    return exact or {option for option in options if _bare(_folded(option)) == _bare(plain)}


def _bare(folded: str) -> str:
    return "".join(folded.strip(_AROUND).split())


def _lettered(plain: str, options: Sequence[str]) -> set[str]:
    """Return the options that ``plain`` starts with or mentions, if it explains one and all options are letters."""
    letters = {option.strip(_AROUND).upper(): option for option in options}
    explained = _EXPLAINED.match(plain)
    if (
        explained is None
        or len(letters) < len(options)
        or any(len(letter) != 1 for letter in letters)
    ):
        return set()
    mentioned = {explained[1].upper(), *re.findall(r"\b[A-Z]\b", plain[explained.end() :])}
    return {letters[letter] for letter in mentioned if letter in letters}


def _after_introduction(plain: str) -> str:
    """Return the text after "the answer is"; all of it if it says what the answer is not."""
    introduction = _INTRODUCTION.match(plain)
    if introduction is None or _NEGATION.search(introduction["before"]):
        return plain
    return plain[introduction.end() :]


def _folded(text: str) -> str:
    """Return the start of ``text`` without differences in case, spaces, markup and final periods."""
    return " ".join(_plain(text[:_MAX_TEXT]).casefold().split()).rstrip(" .。")


def _normalized(text: str) -> str:
    """Return ``text`` with its numbers in the notation that :data:`_NUMBER` matches."""
    text = _SCIENTIFIC.sub(_exponent, _THOUSANDS.sub(_joined, text))
    text = _POWER.sub("^", _HALF_AFTER.sub(" ", _UNIT_POWER.sub(r"\1\2", text)))
    text = _plain(_FRACTION.sub(_quotient, _DOLLAR.sub(" ", text))).replace("\u2044", "/")
    return _MINUS.sub("-", _PERCENT.sub(r"\1%", text))


def _joined(thousands: re.Match[str]) -> str:
    return thousands[1] + re.sub(r"\D", "", thousands[2])


def _exponent(match: re.Match[str]) -> str:
    power = match["power"] or unicodedata.normalize("NFKC", match["raised"])
    return "e" + power.replace("\u2212", "-")


def _quotient(fraction: re.Match[str]) -> str:
    """Return a fraction in one line. A mixed number stays as it is, and the text counts as a formula."""
    if fraction["whole"]:
        return fraction[0]
    return f"{fraction['upper'] or fraction['small']}/{fraction['lower'] or fraction['smaller']}"


def _in_words(plain: str) -> Iterator[int | float | None]:
    """Yield the numbers in words; None for a run of number words that is not one number."""
    plain = _NO_NUMBER.sub(" ", plain)
    languages = ((numerals.ENGLISH, numerals.english), (numerals.CHINESE, numerals.chinese))
    for pattern, parse in languages:
        for run in pattern.finditer(plain):
            before, after = plain[: run.start()], plain[run.end() :]
            value: int | float | None = parse(run[0])
            # Ambiguous: 五千克 is five kilograms or five thousand grams.
            if value is None or (run[0].endswith("千") and after.startswith(_KILO_UNITS)):
                yield None
                continue
            if before.endswith("-") and not before[-2:-1].isalnum():
                value = -value
            yield value / 100 if _PERCENT_WORD.match(after) else value


def _value_of(match: re.Match[str]) -> int | float | None:
    """Return the value of a match of :data:`_NUMBER`, or None if it is too long, divides by 0 or is a difference."""
    upper, lower = match["upper"].replace(",", ""), (match["lower"] or "1").replace(",", "")
    if len(upper) + len(lower) > _MAX_DIGITS or not float(lower):
        return None
    value = Fraction(upper) / Fraction(lower) * Fraction(10) ** int(match["power"] or 0)
    if match["percent"]:
        value /= 100
    for scale in _SCALE_WORD.findall(match["scale"] or ""):
        value *= numerals.SCALES[scale.lower()]
    if match["sign"] not in ("", "+"):
        if match["apart"] and match.string[: match.start()].strip(" =("):
            # "Total - 5" does not state a negative number, and "x - 5" does not state a number.
            return None
        value = -value
    integral = value.denominator == 1 and abs(value) < 2**53
    return int(value) if integral else float(value)
