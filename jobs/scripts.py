"""Measures the share of Chinese, Japanese and Korean script in a text. Pure.

Mathematics, code, digits and punctuation do not count.
"""

import re

_NEUTRAL = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*+`|\$\$.*?\$\$|\$[^$\n]*+\$|\\[A-Za-z]++", re.DOTALL
)
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]")
_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f]")
#: One CJK character carries about as much information as three letters.
_LETTERS_PER_CJK = 3


def cjk_share(text: str) -> float | None:
    """Return the share of CJK characters in the words of ``text``, from 0 to 1, or None without words."""
    words = _NEUTRAL.sub(" ", text)
    cjk = _LETTERS_PER_CJK * len(_CJK.findall(words))
    letters = len(_LATIN.findall(words))
    return round(cjk / (cjk + letters), 3) if cjk + letters else None


def length(text: str) -> int:
    """Return the length of ``text`` in letters; a CJK character counts as three."""
    return len(text) + (_LETTERS_PER_CJK - 1) * len(_CJK.findall(text))
