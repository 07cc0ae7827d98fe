"""What remains of a text without the differences that change no meaning: typesetting, case, width, spaces. Pure."""

from __future__ import annotations

import re
import unicodedata

from jobs.answers import typesetting

#: What typesetting leaves of Markdown and LaTeX with an end missing. The asterisk of a product stays: ``2 * 3``.
_REMAINS = re.compile(
    r"\\(?:left|right|displaystyle|!)(?![a-z])|[$`]|(?<!\d)\*(?!\s*\d)|\\[()\[\]]"
)
#: Everything but powers: ten squared is not 102.
_NOT_RAISED = re.compile("[^⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+")
_QUOTES = str.maketrans("“”„«»\u2018\u2019\u201a\u2032`", '"""""\'\'\'\'\u0027')
_DASHES = str.maketrans("\u2010\u2011\u2012\u2013\u2014\u2212", "------")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
#: Signs around a text, and those after it.
_ENDS = " .。;\uff1b,\uff0c"
_SHOUT = re.compile(r"(?<=[^\W\d_])[!\uff01]+\Z")


def unmarked(text: str) -> str:
    """Return ``text`` without LaTeX, Markdown, and variants of characters; powers stay."""
    plain = _NOT_RAISED.sub(
        lambda match: unicodedata.normalize("NFKC", match[0]), typesetting.plain(text)
    )
    return _REMAINS.sub("", digits(plain)).strip()


def digits(text: str) -> str:
    """Return ``text`` with the digits 0 to 9 for those of other scripts, and their decimal point as a point."""
    if text.isascii():
        return text
    text = text.replace("\u066b", ".").replace("\u066c", ",").replace("\u066a", "%")
    return "".join(
        str(unicodedata.decimal(character)) if character.isdecimal() else character
        for character in text
    )


def folded(text: str) -> str:
    """Return ``text`` without differences in typesetting, case, width, quotes, dashes, spaces and the last period."""
    narrow = "".join(
        unicodedata.normalize("NFKC", character) if _wide(character) else character
        for character in unicodedata.normalize("NFC", typesetting.plain(text))
    )
    narrow = digits(narrow).translate(_QUOTES).translate(_DASHES).translate(_LOWERED)
    plain = " ".join(narrow.casefold().split())
    while plain != (shorter := _SHOUT.sub("", _unquoted(plain.rstrip(_ENDS)))):
        plain = shorter
    return plain


def _unquoted(text: str) -> str:
    """Return ``text`` without quotation marks around all of it."""
    quote = text[:1]
    inner = text[1:-1].strip()
    around = len(text) > 1 and quote in ('"', "'") and text.endswith(quote)
    return inner if around and inner and quote not in inner else text


def _wide(character: str) -> bool:
    """Return whether ``character`` is a wide form of another one, or a symbol of one: ℃."""
    return unicodedata.east_asian_width(character) in "FH" or character in "℃℉\u2009\u202f\xa0"
