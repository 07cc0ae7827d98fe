r"""Escapes characters that change how a terminal shows the text around them.

Control characters move the cursor and send commands, bidirectional ones reorder the text next to them, invisible
ones hide. Questions, traces, and messages of receivers may hold any of them. Output for people shows them as escapes
(``\x1b``, ``\u202e``, ``\U000e0041``); JSON output writes them as escapes, which a parser reads as the same value.
"""

import re
import unicodedata
from typing import Final

#: The categories Cc, Cf, Cs, Zl and Zp, and other invisible characters: Default_Ignorable_Code_Point.
#: Source: Unicode 16.0, UnicodeData.txt and DerivedCoreProperties.txt. Ranges, because a look at every character takes
#: longer than a command.
_UNSAFE_RANGES: Final = (
    (0x00, 0x1F),
    (0x7F, 0x9F),
    (0xAD, 0xAD),
    (0x34F, 0x34F),
    (0x600, 0x605),
    (0x61C, 0x61C),
    (0x6DD, 0x6DD),
    (0x70F, 0x70F),
    (0x890, 0x891),
    (0x8E2, 0x8E2),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x2028, 0x202E),
    (0x2060, 0x206F),
    (0x3164, 0x3164),
    (0xD800, 0xDFFF),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFFB),
    (0x110BD, 0x110BD),
    (0x110CD, 0x110CD),
    (0x13430, 0x1343F),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
)
_CLASS: Final = "".join(f"{chr(first)}-{chr(last)}" for first, last in _UNSAFE_RANGES)
_UNSAFE: Final = re.compile(f"[{_CLASS}]")
#: JSON has its own layout, and its strings hold no raw control character of the first 32.
_UNSAFE_IN_JSON: Final = re.compile(f"(?![\n\r\t])[{_CLASS}]")
_NAMED: Final = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
#: Unicode's line ends in UTF-8, which no part of another character equals, and their escapes in JSON.
_LINE_ENDS: Final = tuple(
    (char.encode(), f"\\u{ord(char):04x}".encode()) for char in ("\x85", "\u2028", "\u2029")
)
_BYTE: Final = 0xFF
_BASIC_PLANE: Final = 0xFFFF
_NON_JOINER: Final = "\u200c"
_JOINER: Final = "\u200d"
#: Characters that are shown or escaped depending on the next one: a stream holds them back until that one has come.
UNDECIDED: Final = ("\r", _NON_JOINER, _JOINER)
_VARIATIONS: Final = ("\ufe0e", "\ufe0f")
_VIRAMA: Final = 9


def visible(text: str, *, lines: bool = True, before: str = "") -> str:
    r"""Return ``text`` for a person, with escapes in place of unsafe characters.

    Two kinds of invisible characters stay, where a script needs them: the joiners between letters of Arabic and Indic
    scripts and between emoji, and one variation selector after a visible character.

    Args:
        text: from an untrusted author.
        lines: whether line feeds and tabs stay; otherwise they are escaped. ``\r\n`` is a line feed.
        before: the character that was shown last, when ``text`` continues it.
    """
    own = text.replace("\r\n", "\n") if lines else text

    def shown(match: re.Match[str]) -> str:
        char, start = match.group(), match.start()
        if lines and char in "\n\t":
            return char
        previous = own[start - 1] if start else before
        return char if _belongs(char, previous, own[start + 1 : start + 2]) else _escaped(char)

    return _UNSAFE.sub(shown, own)


def in_json(document: str) -> str:
    r"""Return a JSON document with ``\u`` escapes in place of unsafe characters. Its value stays the same."""
    return _UNSAFE_IN_JSON.sub(_escaped_in_json, document)


def in_one_line(document: bytes) -> bytes:
    r"""Return a JSON document of one line with ``\u`` escapes in place of Unicode's line ends.

    Its value stays the same. JSON may contain U+0085, U+2028 and U+2029, but Python's ``splitlines``, and clients that
    use it, end a line there.
    """
    for char, escape in _LINE_ENDS:
        # Hardly any document has one, and a search costs less than a copy.
        if char in document:
            document = document.replace(char, escape)
    return document


def _belongs(char: str, previous: str, following: str) -> bool:
    """Whether an invisible character has a purpose between its neighbors."""
    if not previous:
        return False
    if char in _VARIATIONS:
        return not previous.isspace() and not _UNSAFE.match(previous)
    if char not in {_JOINER, _NON_JOINER} or not following:
        return False
    # By the rules for names in the DNS (RFC 5892, A.1 and A.2), and between emoji.
    if unicodedata.combining(previous) == _VIRAMA:
        return True
    if char == _JOINER and _is_emoji(previous):
        return _is_emoji(following)
    marked = _is_arabic(previous) or unicodedata.category(previous) == "Mn"
    return marked and _is_arabic(following)


def _is_arabic(char: str) -> bool:
    return unicodedata.bidirectional(char) == "AL"


def _is_emoji(char: str) -> bool:
    return char in _VARIATIONS or unicodedata.category(char) in {"So", "Sk"}


def _escaped(char: str) -> str:
    code = ord(char)
    if char in _NAMED:
        return _NAMED[char]
    if code <= _BYTE:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= _BASIC_PLANE else f"\\U{code:08x}"


def _escaped_in_json(match: re.Match[str]) -> str:
    units = match.group().encode("utf-16-be", "surrogatepass")
    return "".join(
        f"\\u{high:02x}{low:02x}" for high, low in zip(units[::2], units[1::2], strict=True)
    )
