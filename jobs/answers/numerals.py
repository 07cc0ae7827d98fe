"""Numbers in words: ``two hundred and five``, ``twenty-one``, ``三百五十``, ``一万零五``. Pure."""

from __future__ import annotations

import math
import re
from fractions import Fraction

#: Words that multiply the number before them. Several Chinese ones may follow each other: 百万 is a million.
SCALES = {
    "dozen": 12,
    "hundred": 100,
    "thousand": 1000,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "百": 100,
    "千": 1000,
    "万": 10**4,
    "亿": 10**8,
}
#: English words below a hundred.
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
_WORD = r"(?:" + "|".join([*_SMALL, *(word for word in SCALES if word.isascii())]) + r")"
#: A run of English number words: ``one thousand and six``, ``twenty-one``.
ENGLISH = re.compile(rf"\b{_WORD}(?:(?:\s+and\s+|[\s-]+){_WORD})*\b", re.IGNORECASE)
#: Chinese digits. 两 is the form of 二 before a measure word.
_CHINESE = dict(zip("零〇一二两三四五六七八九", (0, 0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9), strict=True))
#: A run of Chinese numerals: ``三百五十``.
CHINESE = re.compile(r"[零〇一二两三四五六七八九十百千万亿]+")


def english(words: str) -> int | None:
    """Return the number that a run of English number words states, or None if it is not one number.

    ``two hundred and five`` is 205; ``two three`` gives None.
    """
    whole = part = 0
    lowest = math.inf
    for word in re.findall(r"[a-z]+", words.lower()):
        if word == "and":
            continue
        scale = SCALES.get(word)
        if scale is None:
            # "Twenty" can be followed by a digit, "hundred" by any number below it, a digit by nothing.
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


#: The names of parts. A quarter may be a coin, and so it is not among them.
_PARTS = {
    name: parts
    for parts, names in {
        2: "half halves",
        3: "third thirds",
        4: "fourth fourths",
        5: "fifth fifths",
        6: "sixth sixths",
        7: "seventh sevenths",
        8: "eighth eighths",
        9: "ninth ninths",
        10: "tenth tenths",
    }.items()
    for name in names.split()
}
#: A fraction in words: **one half**, **two-thirds**, **half**, **a half**. "Third" alone is an ordinal number.
_FRACTION = re.compile(
    rf"\W*(?P<minus>-?)\s?(?:(?P<upper>{'|'.join(_SMALL)})[\s-](?P<part>{'|'.join(_PARTS)})|(?:a\s)?half)\W*",
    re.IGNORECASE,
)


def fraction(words: str) -> Fraction | None:
    """Return the fraction that English words state, or None if they state more, or no fraction.

    ``two thirds`` is 2/3; the singular needs ``one``, because ``two third`` is not a fraction.
    """
    match = _FRACTION.fullmatch(words)
    if match is None:
        return None
    if match["part"] is None:
        value = Fraction(1, 2)
    else:
        upper, part = _SMALL[match["upper"].lower()], match["part"].lower()
        if (upper == 1) == part.endswith("s"):
            return None
        value = Fraction(upper, _PARTS[part])
    return -value if match["minus"] else value


def chinese(word: str) -> int | None:
    """Return the number that a run of Chinese numerals states, or None if it is not one number.

    ``三百五十`` is 350 and ``一万零五`` is 10005; ``五六`` gives None.
    """
    whole = part = 0
    digit: int | None = None
    #: The scale of a digit that no scale follows.
    rest: float = 1
    lowest = least = math.inf
    for character in word:
        scale = 10 if character == "十" else SCALES.get(character)
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
    # 三百五 is ambiguous: colloquially it is 350.
    if digit and rest != 1:
        return None
    return whole + part + (digit or 0)
