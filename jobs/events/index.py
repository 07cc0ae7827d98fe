"""The index of a growing text: which piece is which numbered event, and when it came. Pure.

Streams show a text in pieces, each with a permanent number. The text is stored as a whole, next to a
compact index with one :class:`IndexEntry` per piece, so that a stream can start from any number.
"""

import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

#: Bytes of an index that are read at once by who needs only its start.
_PREFIX: Final = 256


@dataclass(frozen=True)
class IndexEntry:
    """One event of a stream: the next ``length`` characters of its text, or a finding, which has no text.

    Attributes:
        number: the number of the event.
        length: in characters (code points).
        at: milliseconds since 1970, by the database's clock.
        finding: the finding of a guard at this place, as JSON, or None.
        tokens: the number of tokens with these characters; None: unknown.
    """

    number: int
    length: int
    at: int
    finding: dict[str, Any] | None = field(default=None, repr=False)
    tokens: int | None = None


class SequenceBlock:
    """The event numbers that a worker may use for its job: a block that is reserved in SQL. Not thread-safe.

    Args:
        last: the last used number, which is that of the claim.
        end: the last number of the block.
    """

    #: The numbers in a block after a refill: half of them last for a second of 16 streams.
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
        """Return the number up to which to reserve now, None while there are enough.

        It stays the same until :meth:`extend`: a reservation whose reply was lost is repeated, not added.
        """
        return None if self._end - self.last >= self.BLOCK // 2 else self._end + self.BLOCK // 2

    def pass_by(self, number: int) -> None:
        """Skip all numbers up to ``number``: another writer has used it, beyond the block."""
        self.last = max(self.last, number)
        self._end = max(self._end, self.last)

    def extend(self, end: int) -> None:
        """Use numbers up to ``end``, which have been reserved."""
        self._end = max(self._end, end)


def pack(marks: Iterable[IndexEntry]) -> bytes:
    """Return ``marks``, in order, as an index of about four bytes each."""
    rows: list[list[Any]] = []
    number = at = 0
    for mark in marks:
        row: list[Any] = [mark.number - number, mark.length, mark.at - at]
        more = mark.tokens if mark.finding is None else mark.finding
        rows.append(row if more is None else [*row, more])
        number, at = mark.number, mark.at
    return zlib.compress(orjson.dumps(rows), 1)


def unpack(index: bytes | None) -> list[IndexEntry]:
    """Return the marks of an index; an index of None is empty."""
    if index is None:
        return []
    marks: list[IndexEntry] = []
    number = at = 0
    for gap, length, later, *rest in orjson.loads(zlib.decompress(index)):
        number, at = number + gap, at + later
        more = rest[0] if rest else None
        finding, tokens = (more, None) if isinstance(more, dict) else (None, more)
        marks.append(IndexEntry(number, length, at, finding, tokens))
    return marks


def covered(marks: Iterable[IndexEntry]) -> int:
    """Return the number of characters that ``marks`` cover."""
    return sum(mark.length for mark in marks)


def cut(text: str, marks: Sequence[IndexEntry], *, after: int) -> Iterator[tuple[IndexEntry, str]]:
    """Yield each mark with a number above ``after``, and its piece of ``text``."""
    start = 0
    for mark in marks:
        end = start + mark.length
        if mark.number > after:
            yield mark, text[start:end]
        start = end


def first_text(index: bytes | None) -> int | None:
    """Return the number of the first mark with text; None without one. It reads no more of the index than it needs."""
    if index is None:
        return None
    stream, read, decoder = zlib.decompressobj(), "", json.JSONDecoder()
    rest = index
    place, number = 1, 0
    length: int
    gap: int
    while True:
        more = stream.decompress(rest, _PREFIX)
        rest = stream.unconsumed_tail
        read += more.decode("latin-1")
        while True:
            try:
                (gap, length, *_), end = decoder.raw_decode(read, place)
            except ValueError:
                break
            number += gap
            if length:
                return number
            # After the comma.
            place = end + 1
        if not more:
            return None
