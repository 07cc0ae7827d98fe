"""In which scripts a text is written: how much of its words is Chinese, Japanese or Korean. Pure.

Mathematics and code belong to no language, nor do digits and punctuation.
"""

from __future__ import annotations

import re

_NEUTRAL = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*+`|\$\$.*?\$\$|\$[^$\n]*+\$|\\[A-Za-z]++", re.DOTALL
)
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]")
_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f]")
#: A character of CJK says about as much as three letters.
_LETTERS_PER_CJK = 3


def cjk_share(text: str) -> float | None:
    """Return how much of the words in ``text`` is Chinese, Japanese or Korean, from 0 to 1; None without any words."""
    words = _NEUTRAL.sub(" ", text)
    cjk = _LETTERS_PER_CJK * len(_CJK.findall(words))
    letters = len(_LATIN.findall(words))
    return round(cjk / (cjk + letters), 3) if cjk + letters else None


def length(text: str) -> int:
    """Return how long ``text`` is in letters, of which a character of CJK is as good as three."""
    return len(text) + (_LETTERS_PER_CJK - 1) * len(_CJK.findall(text))
