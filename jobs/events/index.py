"""The marks in a growing text: what became known under which number and when. Pure.

A text is told in pieces, each under a number that stays for ever. The text itself is kept in one; beside it
lies a compact index with one :class:`IndexEntry` for each piece, so that it can be told again from any number.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson


@dataclass(frozen=True)
class IndexEntry:
    """One event of a stream: the next ``length`` characters of its text, or a finding, which has none.

    Attributes:
        number: of the event.
        length: in characters (code points).
        at: milliseconds since 1970, by the database's clock.
        finding: what was found at this place, as JSON, or None.
        tokens: in how many chunks of the engine these characters came, which is in how many tokens, or a few less
            (some characters take several); None when that is not known.
    """

    number: int
    length: int
    at: int
    finding: dict[str, Any] | None = field(default=None, repr=False)
    tokens: int | None = None


class SequenceBlock:
    """The numbers that a holder may use for its job's events: a block that was reserved in SQL before.

    Not for several threads at once.

    Args:
        last: the last number in use, that of the claim itself.
        end: the last number of the block.
    """

    #: How many a holder has at hand after a refill: half of them last for a second of 16 streams.
    BLOCK = 1024

    def __init__(self, last: int = 0, end: int = 0) -> None:
        self.last = last
        self._end = end

    def take(self) -> int | None:
        """Return the next number, None when the block is used up."""
        if self.last >= self._end:
            return None
        self.last += 1
        return self.last

    def wanted(self) -> int | None:
        """Return up to which number to reserve now, None while there are enough.

        It is the same until :meth:`extend` is called: a reservation whose answer was lost is made again, not twice.
        """
        return None if self._end - self.last >= self.BLOCK // 2 else self._end + self.BLOCK // 2

    def pass_by(self, number: int) -> None:
        """Use no number up to ``number`` any more: somebody else took it, beyond the block."""
        self.last = max(self.last, number)
        self._end = max(self._end, self.last)

    def extend(self, end: int) -> None:
        """Use numbers up to ``end``, which have been reserved."""
        self._end = max(self._end, end)


def pack(marks: Iterable[IndexEntry]) -> bytes:
    """Return ``marks``, in order, as an index: some four bytes for each."""
    rows: list[list[Any]] = []
    number = at = 0
    for mark in marks:
        row: list[Any] = [mark.number - number, mark.length, mark.at - at]
        more = mark.tokens if mark.finding is None else mark.finding
        rows.append(row if more is None else [*row, more])
        number, at = mark.number, mark.at
    return zlib.compress(orjson.dumps(rows), 1)


def unpack(index: bytes | None) -> list[IndexEntry]:
    """Return the marks of an index; None has none."""
    if index is None:
        return []
    marks: list[IndexEntry] = []
    number = at = 0
    for gap, length, later, *rest in orjson.loads(zlib.decompress(index)):
        number, at = number + gap, at + later
        more = rest[0] if rest else None
        found, tokens = (more, None) if isinstance(more, dict) else (None, more)
        marks.append(IndexEntry(number, length, at, found, tokens))
    return marks


def covered(marks: Iterable[IndexEntry]) -> int:
    """Return how many characters of a text ``marks`` cover."""
    return sum(mark.length for mark in marks)


def cut(text: str, marks: Sequence[IndexEntry], *, after: int) -> Iterator[tuple[IndexEntry, str]]:
    """Yield each mark beyond the number ``after`` with its piece of ``text``."""
    start = 0
    for mark in marks:
        end = start + mark.length
        if mark.number > after:
            yield mark, text[start:end]
        start = end
