"""Normalizes phrases and searched texts so that a word index finds phrases. Pure.

Texts and phrases are normalized in the same way: compatible characters are equal (NFKC), case and the amount of white
space do not matter, each punctuation mark is a word, and a run of Chinese, Japanese or Korean characters becomes its
overlapping pairs, because these scripts do not separate words: ``有6个圆形。`` becomes ``有 6 个圆 圆形 。``.

A text contains a phrase exactly if the spelling of the phrase is a substring of the spelling of the text. Then the
text also contains the words of the phrase (except the first and last, which may be parts of longer words). So the
index of any database that splits at spaces and punctuation finds all candidates, and a substring test decides.
"""

import enum
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

#: The version of these rules: texts that are normalized by another one have to be normalized again.
PIPELINE = "1"
#: Maximum length of a folded phrase, in characters.
MAX_CHARS = 200
#: A longer text is split into parts that overlap by the length of a phrase: PostgreSQL indexes at most 1 MB at once.
_PIECE_CHARS = 50_000
#: Minimum length of a searched word: single characters occur in nearly every text.
_MIN_WORD = 2

#: Hiragana, katakana, bopomofo; Han and its extensions; Hangul; compatible Han.
_CJK = (
    "\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
_PIECES = re.compile(rf"(?P<run>[{_CJK}]+)|(?P<word>[^\W_{_CJK}]+)|(?P<space>\s+)|.", re.DOTALL)
_ONE_CJK = re.compile(rf"[{_CJK}]")


class Part(enum.StrEnum):
    """The searched parts of a job."""

    QUESTION = "question"
    ANSWER = "answer"
    TRACE = "trace"


@dataclass(frozen=True)
class Phrase:
    """A normalized phrase.

    Attributes:
        spelling: a substring of the spelling of every text that contains the phrase.
        pieces: consecutive words and punctuation marks that the text must contain; the first and the last are words.
        unfinished: whether the last piece may be the beginning of a longer word in the text.
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
        """Return the phrase in ``text``. It matches only at the beginning of a word.

        Raises:
            ValueError: it is too long or too short; the message is for the client.
        """
        folded = _folded(text).strip()
        if len(folded) > MAX_CHARS:
            raise ValueError(f"A phrase must have at most {MAX_CHARS} characters.")
        spelling = _spelled(folded).strip()
        pieces = _trimmed(spelling.split())
        if pieces and folded.startswith(pieces[0]) and _ONE_CJK.fullmatch(pieces[0]):
            # In the text it may be the second character of a pair.
            pieces = _trimmed(pieces[1:])
        unfinished = bool(pieces) and folded.endswith(pieces[-1])
        if unfinished and len(pieces[-1]) < _MIN_WORD:
            # Such a short beginning of a word occurs in nearly every text.
            pieces = _trimmed(pieces[:-1])
            unfinished = False
        if all(len(word) < _MIN_WORD for word in pieces):
            raise ValueError(
                "The phrase is too short: it must contain a word of two letters or digits, or two "
                "Chinese characters in a row."
            )
        return cls(spelling=spelling, pieces=tuple(pieces), unfinished=unfinished)


def _trimmed(pieces: list[str]) -> list[str]:
    """Return ``pieces`` from the first word to the last word."""
    words = [at for at, piece in enumerate(pieces) if _is_word(piece)]
    return pieces[words[0] : words[-1] + 1] if words else []


def _is_word(piece: str) -> bool:
    return piece[0].isalnum()


def spellings(text: str) -> Iterator[str]:
    """Yield the spelling of ``text``, in several parts if it is long, and nothing if it is blank."""
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
            pairs = [text[at : at + 2] for at in range(len(text) - 1)]
            return f" {' '.join(pairs or [text])} "
        case "word":
            return text
        case "space":
            return " "
        case _:
            return f" {text} "
