"""Numbers in the text of an answer: in digits of any notation, and in English and Chinese words. Pure.

The comments at the patterns give examples of what a pattern matches, in **bold** where it matches only a part of the
example. A line of a pattern covers one language or one notation.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from fractions import Fraction

from jobs.answers import folding, languages, numerals, remarks, typesetting
from jobs.answers.statements import Remark
from jobs.document import markup

#: A longer text is not read, because it might contain another number further on.
_MAX_TEXT = 1000
_MAX_DIGITS = 30
#: Digits between two separators of thousands.
_GROUP = 3


# Numbers in digits.

#: Thousands separated by LaTeX or narrow spaces: ``12{,}345``, ``12\,345``.
_THOUSANDS = re.compile(
    r"(?<![\d.,])(\d{1,3})((?:(?:\{,\}|\\[,!]|[\u2009\u202f\xa0])\d{3})+)(?![\d,]*\d)", re.ASCII
)
#: Thousands with apostrophes, as in Switzerland, and in the groups of India: 1'234, 12,34,567.
_OTHER_GROUPS = re.compile(
    r"(?<![\w.,'])(?:\d{1,3}(?:['\u2019]\d{3})++|\d{1,2}(?:,\d{2}){1,5},\d{3})(?![\d,'\u2019])",
    re.ASCII,
)
#: A decimal comma of LaTeX: 3**{,}**5.
_LATEX_COMMA = re.compile(r"(?<=\d)\{,\}(?=\d{1,2}(?!\d))")
#: Thousands separated by spaces. A word before them may be what the first digits count: Team 1 300.
_SPACED = re.compile(
    r"(?<![\w.,:/)] )(?<![\w.,:/-])[1-9]\d{0,2}(?: \d{3})+(?!\w|[ ,/:-]\d)", re.ASCII
)
#: A number as languages with a decimal comma write it: 1.234,5.
_COMMA_NUMBER = re.compile(
    r"(?<![\w.,])(?P<whole>(?P<groups>\d{1,3}(?:[. ]\d{3})++)|\d++)(?:,(?P<part>\d++))?(?![\w.,]*\d)",
    re.ASCII,
)
#: The mark of an item or of a quotation at the start of a line: **-** 6, **>** 6. A minus has no space after it.
BULLET = re.compile(
    r"^[^\S\n]{0,12}+(?:(?:>[^\S\n]{1,4}+){1,4}+(?:[-*+•‣◦·\u2013\u2014][^\S\n]++)?+|[-*+•‣◦·\u2013\u2014][^\S\n]++)(?=\S)",
    re.MULTILINE,
)
#: LaTeX fractions: ``\frac{1}{3}``, ``\dfrac12``; also mixed numbers: ``3\frac{1}{2}``.
_FRACTION = re.compile(
    r"(?P<whole>\d\s{0,4})?\\[dtc]?frac\s*+"
    r"(?:\{\s*(?P<upper>-?[0-9.]+)\s*\}\s*\{\s*(?P<lower>[0-9.]+)\s*\}|(?P<small>[0-9])(?P<smaller>[0-9])(?!\d))",
    re.ASCII,
)
#: A power of ten after a number: 2**\times 10^{3}**, 2**x10³**. It is rewritten as ``e3``.
_SCIENTIFIC = re.compile(
    r"(?<=\d)\s{0,4}(?:\u00d7|\\times|\\cdot|[x*\u00b7])\s{0,4}10\s{0,4}"
    r"(?:\^\s*\{?\s*(?P<power>[-+\u2212]?\d{1,2})(?!\d)\s*\}?|(?P<raised>\u207b?[⁰¹²³⁴⁵⁶⁷⁸⁹]{1,2}))"
)
#: Signs of a formula, whose numbers are not the value. Simple fractions were rewritten before.
_FORMULA = re.compile(
    # LaTeX: \sqrt2, 2\pi, \leq 5.
    r"\\(?:[dt]?frac|sqrt|pi|tau|log|ln|exp|sin|cos|tan|pm|mp|infty|[lgn]eq?|[lg]t|times|cdot|div)(?![a-z])"
    # Symbols: 2π, ≤5, 2*3.
    r"|[π√∞±‰<>≤≥≠\u00d7÷]|\d\s*\*\s*\d"
    # A power that belongs to no unit: 10².
    r"|[\^⁰¹²³⁴⁵⁶⁷⁸⁹]"
    # A number next to a letter that is not a unit: 2x, n-1, 3/n.
    r"|\d\s*[xyz]{1,2}\b|\b[a-z]\s*[-+/^]\s*\d|\d\s*[-+/]\s*[nxyz]\b",
    re.IGNORECASE | re.ASCII,
)
_POWERS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
#: The power of a unit, which is dropped: m², cm^2.
_UNIT_POWER = re.compile(
    r"(?<![^\W\d_])([^\W\d_⁰¹²³⁴⁵⁶⁷⁸⁹]{2,40}+|[msh])\s{0,4}"
    rf"(?:⁻?[{_POWERS}]+|\^\s*(?:-?\d|\{{\s*-?\d\s*\}})(?!\d))"
)
#: The place of any other power, which changes the number: 10².
_POWER = re.compile(rf"(?=⁻?[{_POWERS}])(?<![⁻{_POWERS}])")
#: The place of a fraction character after a number, which changes the number: 3½.
_HALF_AFTER = re.compile(r"(?<=[\d)}])(?=[¼-¾⅐-⅞])")
#: A mixed number: 1 1/2.
_MIXED = re.compile(
    r"(?<![\w./,])(\d{1,9})\s{1,4}(\d{1,4})\s?/\s?(\d{1,4})(?![\w.]*\d|\s?/)", re.ASCII
)
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

#: Fractions that are one character.
_VULGAR = re.compile("[¼-¾⅐-⅞]")
#: A number with a zero before it.
_CODE = re.compile(r"0\d")
#: Chinese measure words and units, one of which follows a number.
_MEASURE = re.compile(
    "[个只条张盏辆件本位名棵朵头匹支枝把块片双对次天年月日点小分秒米厘公斤克度元岁人层座栋台架艘颗粒根杯瓶碗盘间种道题节匹面颜步页场周升吨瓦伏平立千毫]"
)

# Numbers in words.

#: A percentage after a number in words: fifty **percent**.
_PERCENT_WORD = re.compile(r"\s*(?:%|per\s?cent\b)", re.IGNORECASE)
#: Words that contain a numeral but do not state a number.
_NO_NUMBER = re.compile(
    # Chinese: 一共, 一样, 再数一遍, 三角形, 十字, 百分点.
    r"一(?:共|定|起|般|样|遍|下|些|点|直|旦|边)|[三四五六七八九十]+[角边]形?|十字|百分点"
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
    r"|[kKMB]\b|\s*(?:mln|bn|tn)\b"
    # Scales of other languages: 3,5 **Millionen**, 2 **milliards**.
    r"|\s*(?i:mio|mrd|mld|tsd|tys|tausend|mille?"
    r"|mil(?:li?[oó]n|lion|jon|jard|hão|hões|ión|iones|lones|hares|ioni|ioane)\w*|mill?iard\w*"
    r"|тыс\w*|млн|млрд|миллион\w*|миллиард\w*)\b",
)
#: Words that make a number a bound or an estimate.
_BOUND = re.compile(
    # English: more than 5, 5 or fewer, at least 5, over 5, 5+, not 5.
    r"\b(?:(?:more|less|fewer|greater) than|or (?:more|less|fewer)|at (?:least|most))\b"
    r"|\b(?:over|under|above|below|exceeds|up to|not)\s+[$€£]?(?=\d)|\d\+(?!\s*\d)"
    # Chinese: 几个, 超过5, 多于5, 不到5.
    r"|几(?!何)|至[少多]|最多|超过|[多少大小高低]于|不[到足]"
    # Chinese, after the number: 十多, 二十来个, 5个以上.
    r"|[十百千万\d]\s*(?:[多余]|来(?=[个只人岁]))|[\d十百千万个只]\s*以[上下]",
    re.IGNORECASE,
)


def read(text: str, question: str = "") -> int | float | None:
    r"""Return the only number in ``text``, without the unit that may follow it.

    The number may have thousands separators, be a fraction (``1/3``, ``\frac{1}{3}``), a mixed number (``1 1/2``) or
    a percentage (50 % is 0.5), have a scale (``5 million``, ``6万``, ``\times 10^3``), or be written in English or
    Chinese words. A formula, such as ``2\pi``, ``2x`` or ``10²``, is not a number, and neither is a bound, such as
    ``more than 5``. The mark of a list before it, ``- 6``, is not a minus.

    Args:
        text: the text of an answer.
        question: its language decides whether ``3,5`` is a number.
    """
    if len(text) > _MAX_TEXT:
        return None
    plain = _normalized(text, question)
    if _FORMULA.search(plain) or _BOUND.search(plain):
        return None
    matches = list(_NUMBER.finditer(plain))
    if not matches and any(character.isdigit() for character in plain):
        return None
    if not matches:
        return _worded(plain)
    value = _value_of(matches[0]) if len(matches) == 1 else None
    if value is None or _PART_AFTER.match(plain, matches[0].end()):
        return None
    # The text may repeat the number in words ("6 (six)") and use "one" as a pronoun.
    rest = f"{plain[: matches[0].start()]} ; {plain[matches[0].end() :]}"
    return value if all(word in (value, 1) for word in _in_words(rest)) else None


def _worded(plain: str) -> int | float | None:
    """Return the only number in a text without digits."""
    if (part := numerals.fraction(plain)) is not None:
        return float(part)
    # "Wrong, let me count one more time" does not count one thing.
    if _PART.search(plain) or remarks.remark(plain) is Remark.DENIES:
        return None
    worded = list(_in_words(plain))
    return worded[0] if len(worded) == 1 else None


def leading(text: str, question: str = "") -> tuple[Fraction, str] | None:
    """Return the exact number with which a text begins, and the text after it; None if it begins with none.

    Whole numbers with a zero before them, such as 007, are codes.

    Args:
        text: a text as :func:`jobs.answers.folding.folded` returns it.
        question: its language decides whether ``3,5`` is a number.
    """
    plain = _SCIENTIFIC.sub(_exponent, _HALF_AFTER.sub(" ", BULLET.sub("", text)))
    plain = _FRACTION.sub(_quotient, _OTHER_GROUPS.sub(_digits, plain)).replace("\\%", "%")
    plain = _VULGAR.sub(lambda match: unicodedata.normalize("NFKC", match[0]), plain)
    plain = plain.replace("\u2044", "/")
    if languages.decimal_comma(question):
        plain = _COMMA_NUMBER.sub(_with_point, plain)
    plain = _MIXED.sub(_improper, _SPACED.sub(lambda match: match[0].replace(" ", ""), plain))
    plain = _MINUS.sub("-", _PERCENT.sub(r"\1%", plain))
    match = _NUMBER.match(plain)
    if match is None:
        return _leading_words(plain)
    value = None if _CODE.match(match["upper"]) else _fraction(match)
    return None if value is None else (value, plain[len(match[0].rstrip()) :])


def with_slashes(text: str) -> str:
    r"""Return ``text`` with the fractions of LaTeX in one line: ``\frac{1}{2}`` as ``1/2``."""
    return _FRACTION.sub(_quotient, text)


def _leading_words(plain: str) -> tuple[Fraction, str] | None:
    """Return the number in words with which a text begins."""
    if (part := numerals.fraction(plain)) is not None:
        return part, ""
    negative = plain.startswith("-")
    words = plain[negative:]
    run = numerals.ENGLISH.match(words)
    value = numerals.english(run[0]) if run else None
    if run is None and (run := numerals.CHINESE.match(words)) is not None:
        # A counted thing follows, or nothing: 三角形 is a shape, and 百合 is a flower.
        counts = words[run.end() :][:1] in ("", "%") or _MEASURE.match(words, run.end())
        value = numerals.chinese(run[0]) if counts and run[0][0] not in "百千万亿" else None
    if run is None or value is None:
        return None
    rest = words[run.end() :]
    number = Fraction(-value if negative else value)
    if percent := _PERCENT_WORD.match(rest):
        return number / 100, rest[percent.end() :]
    return number, rest


def _normalized(text: str, question: str) -> str:
    """Return ``text`` with its numbers in the notation that :data:`_NUMBER` matches."""
    text = _LATEX_COMMA.sub(".", _THOUSANDS.sub(_joined, BULLET.sub("", text)))
    text = _OTHER_GROUPS.sub(_digits, typesetting.plain(_DOLLAR.sub(" ", text)))
    text = _SCIENTIFIC.sub(_exponent, markup.DEGREE.sub("°", text))
    text = _POWER.sub("^", _HALF_AFTER.sub(" ", _UNIT_POWER.sub(r"\1", text)))
    text = folding.unmarked(_FRACTION.sub(_quotient, text)).replace("\u2044", "/")
    if languages.decimal_comma(question):
        text = _COMMA_NUMBER.sub(_with_point, text)
    text = _MIXED.sub(_improper, _SPACED.sub(lambda match: match[0].replace(" ", ""), text))
    return _MINUS.sub("-", _PERCENT.sub(r"\1%", text))


def _with_point(match: re.Match[str]) -> str:
    """Return a number with a decimal comma in the notation with a point; two numbers if it is ambiguous."""
    whole, part = re.sub(r"\D", "", match["whole"]), match["part"]
    groups = (match["groups"] or "").replace(".", " ").count(" ")
    if part is not None:
        # 1,234 has a comma that an English speaker would use for thousands.
        unclear = not groups and len(part) == _GROUP and len(whole) <= _GROUP and whole[0] != "0"
        return f"{whole} ; {part}" if unclear else f"{whole}.{part}"
    if groups == 1 and "." in match["whole"]:
        return match["whole"].replace(".", " ; ")
    return whole


def _improper(mixed: re.Match[str]) -> str:
    """Return a mixed number as one fraction; what follows a whole number and is not below one stays."""
    whole, upper, lower = (int(mixed[group]) for group in (1, 2, 3))
    return f"{whole * lower + upper}/{lower}" if 0 < upper < lower else mixed[0]


def _joined(thousands: re.Match[str]) -> str:
    return thousands[1] + re.sub(r"\D", "", thousands[2])


def _digits(match: re.Match[str]) -> str:
    return re.sub(r"\D", "", match[0])


def _exponent(match: re.Match[str]) -> str:
    power = match["power"] or unicodedata.normalize("NFKC", match["raised"])
    return "e" + power.replace("\u2212", "-")


def _quotient(fraction: re.Match[str]) -> str:
    """Return a fraction in one line, after a space if a whole number precedes it."""
    whole = f"{fraction['whole'].strip()} " if fraction["whole"] else ""
    return f"{whole}{fraction['upper'] or fraction['small']}/{fraction['lower'] or fraction['smaller']}"


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
    """Return the value of a match of :data:`_NUMBER`, or None if :func:`_fraction` has none."""
    value = _fraction(match)
    if value is None:
        return None
    integral = value.denominator == 1 and abs(value) < 2**53
    return int(value) if integral else float(value)


def _fraction(match: re.Match[str]) -> Fraction | None:
    """Return the exact value of a match, or None if it is too long, divides by 0 or is a difference."""
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
    return value
