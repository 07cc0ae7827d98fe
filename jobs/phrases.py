"""Phrases and the texts they are looked for in, spelled so that an index of words finds them. Pure.

Texts and phrases are spelled alike: compatible characters are the same (NFKC), case and the width of white space
do not matter, every mark of punctuation stands alone, and a run of Chinese, Japanese or Korean characters is
spelled by its overlapping pairs, for such writing has no spaces: ``有6个圆形。`` becomes ``有 6 个圆 圆形 。``.

Then a phrase is in a text exactly if its spelling is in the text's, and the words of its spelling (but for those
at its ends, which may be parts of longer ones) are among the words of the text's. So the index of any database
that splits at spaces and punctuation finds all candidates, and a test for the substring decides.
"""

from __future__ import annotations

import enum
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

#: A phrase has no more characters, once it is folded.
MAX_CHARS = 200
#: A longer text is spelled in pieces that overlap by a phrase: PostgreSQL indexes no more than 1 MB of words at once.
_PIECE_CHARS = 50_000
#: A word that is searched for has at least so many characters; nearly every text has each single one.
_LEAST = 2

#: Hiragana, katakana, bopomofo; Han and its extensions; Hangul; compatible Han.
_CJK = (
    "\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
_PIECES = re.compile(rf"(?P<run>[{_CJK}]+)|(?P<word>[^\W_{_CJK}]+)|(?P<space>\s+)|.", re.DOTALL)
_ONE_CJK = re.compile(rf"[{_CJK}]")


class Part(enum.StrEnum):
    """What of a job is searched."""

    QUESTION = "question"
    ANSWER = "answer"
    TRACE = "trace"


@dataclass(frozen=True)
class Phrase:
    """What is looked for.

    Attributes:
        spelling: a text that holds the phrase has this in its own spelling.
        pieces: those of its words, and the marks between them, that the text has as well, one after the other; the
            first and the last of them are words.
        unfinished: whether the text may have a longer word in the place of the last of them.
    """

    spelling: str
    pieces: tuple[str, ...]
    unfinished: bool

    @property
    def words(self) -> tuple[str, ...]:
        """The words among the pieces; at least one."""
        return tuple(filter(_is_word, self.pieces))

    @classmethod
    def of(cls, text: str) -> Self:
        """Return the phrase in ``text``. It is found where it begins at the beginning of a word.

        Raises:
            ValueError: it is too long or too short; the text says why.
        """
        folded = _folded(text).strip()
        if len(folded) > MAX_CHARS:
            raise ValueError(f"A phrase has at most {MAX_CHARS} characters.")
        spelling = _spelled(folded).strip()
        pieces = _trimmed(spelling.split())
        if pieces and folded.startswith(pieces[0]) and _ONE_CJK.fullmatch(pieces[0]):
            # In the text it may be the second of a pair.
            pieces = _trimmed(pieces[1:])
        unfinished = bool(pieces) and folded.endswith(pieces[-1])
        if unfinished and len(pieces[-1]) < _LEAST:
            # As the beginning of a word it would be found nearly everywhere.
            pieces = _trimmed(pieces[:-1])
            unfinished = False
        if all(len(word) < _LEAST for word in pieces):
            raise ValueError(
                "This is too short to be searched for: it takes a word of two letters or digits, or two "
                "Chinese characters in a row."
            )
        return cls(spelling=spelling, pieces=tuple(pieces), unfinished=unfinished)


def _trimmed(pieces: list[str]) -> list[str]:
    """Return ``pieces`` from the first word to the last."""
    words = [at for at, piece in enumerate(pieces) if _is_word(piece)]
    return pieces[words[0] : words[-1] + 1] if words else []


def _is_word(piece: str) -> bool:
    return piece[0].isalnum()


def spellings(text: str) -> Iterator[str]:
    """Yield the spelling of ``text``, in pieces when it is long; none when there is nothing in it."""
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
    found = piece[0]
    match piece.lastgroup:
        case "run":
            pairs = [found[at : at + 2] for at in range(len(found) - 1)]
            return f" {' '.join(pairs or [found])} "
        case "word":
            return found
        case "space":
            return " "
        case _:
            return f" {found} "
