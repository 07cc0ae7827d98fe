"""Numbers in words, English and Chinese. Pure."""

from __future__ import annotations

import math
import re

#: Words that multiply the number before them. Several Chinese ones may be combined: 百万 is a million.
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
#: A run of English number words.
ENGLISH = re.compile(rf"\b{_WORD}(?:(?:\s+and\s+|[\s-]+){_WORD})*\b", re.IGNORECASE)
_CHINESE = dict(zip("零〇一二两三四五六七八九", (0, 0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9), strict=True))
#: A run of Chinese numerals.
CHINESE = re.compile(r"[零〇一二两三四五六七八九十百千万亿]+")


def english(words: str) -> int | None:
    """Return the number that a run of number words means, or None if it is not a single number."""
    whole = part = 0
    lowest = math.inf
    for word in re.findall(r"[a-z]+", words.lower()):
        if word == "and":
            continue
        scale = SCALES.get(word)
        if scale is None:
            # "twenty" may be followed by a digit, "hundred" by any smaller number, and a digit by nothing.
            limit = 100 if part % 100 == 0 else 10 if part % 100 in range(20, 100, 10) else 0
            if (part or whole) and not 0 < _SMALL[word] < limit:
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


def chinese(word: str) -> int | None:
    """Return the number that a run of Chinese numerals means, or None if it is not a single number."""
    whole = part = 0
    digit: int | None = None
    # The value of a final digit without a scale.
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
    # "三百五" is ambiguous: it may mean 350, or be a mistake.
    if digit and rest != 1:
        return None
    return whole + part + (digit or 0)
