"""The spelling of search phrases and of searched texts, with which an index of words finds phrases. Pure.

Texts and phrases are spelled in the same way: compatible characters are equal (NFKC), case and the amount of white
space do not matter, spaces surround every punctuation mark, and a run of Chinese, Japanese or Korean characters, which
has no spaces, becomes its overlapping pairs: ``有6个圆形。`` becomes ``有 6 个圆 圆形 。``.

A text contains a phrase exactly if the spelling of the text contains the spelling of the phrase. The words of the
phrase's spelling, except at its ends, where they may be parts of longer words, are then words of the text's spelling.
The index of any database that splits at spaces and punctuation therefore finds all candidates, and a substring test
decides.
"""

from __future__ import annotations

import enum
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

#: Maximum number of characters of a phrase after case folding.
MAX_CHARS = 200
#: Longer texts are spelled in pieces that overlap by a phrase: PostgreSQL indexes at most 1 MB of words at once.
_PIECE_CHARS = 50_000
#: Minimum number of characters of a search word; nearly every text contains any single character.
_MIN_WORD = 2

#: Hiragana, katakana, bopomofo; Han and its extensions; Hangul; compatibility Han.
_CJK = (
    "\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
_PIECES = re.compile(rf"(?P<run>[{_CJK}]+)|(?P<word>[^\W_{_CJK}]+)|(?P<space>\s+)|.", re.DOTALL)
_ONE_CJK = re.compile(rf"[{_CJK}]")


class Part(enum.StrEnum):
    """The texts of a job that a search covers."""

    QUESTION = "question"
    ANSWER = "answer"
    TRACE = "trace"


@dataclass(frozen=True)
class Phrase:
    """A search phrase.

    Attributes:
        spelling: the spelling of the phrase. The spelling of a text that contains the phrase contains it.
        pieces: the words of the phrase, and the punctuation between them, that the text contains in this order; the
            first and the last piece are words.
        unfinished: whether the last piece may be the start of a longer word in the text.
    """

    spelling: str
    pieces: tuple[str, ...]
    unfinished: bool

    @property
    def words(self) -> tuple[str, ...]:
        """The words among the pieces, at least one."""
        return tuple(filter(_is_word, self.pieces))

    @classmethod
    def of(cls, text: str) -> Self:
        """Return the phrase for ``text``. A search finds it where it starts at the start of a word.

        Raises:
            ValueError: the phrase is too long or too short; the message is for the client.
        """
        folded = _folded(text).strip()
        if len(folded) > MAX_CHARS:
            raise ValueError(
                f"A phrase must have at most {MAX_CHARS} characters; this one has {len(folded)}."
            )
        spelling = _spelled(folded).strip()
        pieces = _trimmed(spelling.split())
        if pieces and folded.startswith(pieces[0]) and _ONE_CJK.fullmatch(pieces[0]):
            # In the text, this character may be the second one of a pair.
            pieces = _trimmed(pieces[1:])
        unfinished = bool(pieces) and folded.endswith(pieces[-1])
        if unfinished and len(pieces[-1]) < _MIN_WORD:
            # Nearly every text has a word that starts with this character.
            pieces = _trimmed(pieces[:-1])
            unfinished = False
        if all(len(word) < _MIN_WORD for word in pieces):
            raise ValueError(
                "This phrase is too short: it must contain a word of two letters or digits, or two adjacent "
                "Chinese characters."
            )
        return cls(spelling=spelling, pieces=tuple(pieces), unfinished=unfinished)


def _trimmed(pieces: list[str]) -> list[str]:
    """Return ``pieces`` from the first word to the last."""
    words = [index for index, piece in enumerate(pieces) if _is_word(piece)]
    return pieces[words[0] : words[-1] + 1] if words else []


def _is_word(piece: str) -> bool:
    return piece[0].isalnum()


def spellings(text: str) -> Iterator[str]:
    """Yield the spelling of ``text``, in pieces if it is long; nothing if the text is blank."""
    folded = _folded(text)
    for start in range(0, len(folded), _PIECE_CHARS):
        piece = _spelled(folded[start : start + _PIECE_CHARS + MAX_CHARS])
        if piece.strip():
            yield piece


def _folded(text: str) -> str:
    return " ".join(re.split(r"\s+", unicodedata.normalize("NFKC", text).casefold()))


def _spelled(folded: str) -> str:
    return _PIECES.sub(_spell, folded)


def _spell(piece: re.Match[str]) -> str:
    text = piece[0]
    match piece.lastgroup:
        case "run":
            pairs = [text[start : start + 2] for start in range(len(text) - 1)]
            return f" {' '.join(pairs or [text])} "
        case "word":
            return text
        case "space":
            return " "
        case _:
            return f" {text} "
