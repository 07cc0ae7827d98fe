"""Escapes of control and invisible characters in output to a terminal or a pipe."""

from __future__ import annotations

import json
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import escapes

#: Invisible and reserved invisible characters of Unicode, in addition to the categories below.
INVISIBLE = {*map(chr, range(0xE0000, 0xE1000))} | {
    *"\u034f\u115f\u1160\u17b4\u180b\u180f\u3164\ufe00\ufe0f\uffa0"
}
UNSAFE = [
    char
    for char in map(chr, range(sys.maxunicode + 1))
    if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} or char in INVISIBLE
]


@pytest.mark.parametrize("lines", [True, False])
def test_no_unsafe_character_is_shown(*, lines: bool) -> None:
    unchanged = {char for char in UNSAFE if escapes.visible(char, lines=lines) == char}

    assert unchanged == ({"\n", "\t"} if lines else set())


def test_json_contains_no_unsafe_character_and_keeps_its_value() -> None:
    text = " ".join(UNSAFE)

    document = escapes.in_json(json.dumps({text: [text]}, ensure_ascii=False))

    assert set(document) & set(UNSAFE) == set()
    assert json.loads(document) == {text: [text]}


@given(st.text())
def test_visible_characters_stay_unchanged(text: str) -> None:
    safe = "".join(char for char in text if char not in UNSAFE)

    assert escapes.visible(safe) == safe
    assert set(escapes.visible(text)) & set(UNSAFE) <= {*"\n\t\u200c\u200d\ufe0e\ufe0f"}


@given(
    st.recursive(
        st.none() | st.text(), lambda some: st.lists(some) | st.dictionaries(st.text(), some)
    )
)
def test_any_json_keeps_its_value(value: object) -> None:
    document = json.dumps(value, ensure_ascii=False, indent=2)

    assert json.loads(escapes.in_json(document)) == value


@pytest.mark.parametrize(
    "text",
    [
        "👩‍👩‍👧 ❤️‍🔥 👁️‍🗨️ 👩🏽‍🚀",
        "می‌خواهم",
        "क्‍ष क्‌ष",
        "1️⃣ ☎︎",
        "sechs Möwen, 六只",
        "a\n\tb",
    ],
)
def test_scripts_and_emoji_keep_their_joiners(text: str) -> None:
    assert escapes.visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2Jsix\x9b5n\r\a", r"\x1b[2Jsix\x9b5n\r\x07"),
        ("a\r\nb", "a\nb"),
        ("invoice\u202efdp.exe", r"invoice\u202efdp.exe"),
        ("pay\u200dpal", r"pay\u200dpal"),
        ("pay\u200cpal\u200b\ufeff", r"pay\u200cpal\u200b\ufeff"),
        ("👩\u200d\u200d👩", r"👩\u200d\u200d👩"),
        ("x\ufe0f\ufe01\ufe0f", "x\ufe0f" + r"\ufe01\ufe0f"),
        ("🏴\U000e0067\U000e007f", r"🏴\U000e0067\U000e007f"),
        ("\ufe0f\u200d", r"\ufe0f\u200d"),
        ("a\u2028b\u2029c\x85d\ud800", r"a\u2028b\u2029c\x85d\ud800"),
    ],
)
def test_other_characters_are_shown_as_escapes(text: str, shown: str) -> None:
    assert escapes.visible(text) == shown


def test_on_one_line_line_feeds_are_escapes_too() -> None:
    assert escapes.visible("x\nstatus\tfailed\r\n", lines=False) == r"x\nstatus\tfailed\r\n"
