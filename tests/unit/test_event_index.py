"""The index of events in a text: split at any number, with any chunks, it neither loses nor repeats nor moves text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jobs.events import index as marks
from jobs.events.index import IndexEntry, SequenceBlock

PIECES = st.lists(st.text(min_size=1, max_size=12), max_size=30)
GAPS = st.lists(st.integers(1, 1000), min_size=30, max_size=30)


def marked(pieces: list[str], gaps: list[int]) -> list[IndexEntry]:
    """Return the index of ``pieces``, with gaps between the numbers."""
    entries: list[IndexEntry] = []
    number = 0
    for piece, gap in zip(pieces, gaps, strict=False):
        number += gap
        entries.append(IndexEntry(number, len(piece), 1_790_000_000_000 + number, tokens=gap))
    return entries


@given(pieces=PIECES, gaps=GAPS, after=st.integers(0, 31_000))
def test_a_text_split_at_any_event_number_continues_without_loss(
    pieces: list[str], gaps: list[int], after: int
) -> None:
    text, index = "".join(pieces), marked(pieces, gaps)

    parts = list(marks.cut(text, marks.unpack(marks.pack(index)), after=after))

    left = [piece for mark, piece in zip(index, pieces, strict=True) if mark.number <= after]
    assert "".join([*left, *(piece for _, piece in parts)]) == text
    assert [mark for mark, _ in parts] == [mark for mark in index if mark.number > after]


@given(pieces=PIECES, gaps=GAPS)
def test_an_unpacked_index_equals_the_packed_one(pieces: list[str], gaps: list[int]) -> None:
    index = marked(pieces, gaps)
    index += [
        IndexEntry(40_000, 0, 5, {"kind": "loop", "evidence": "圆 🟢"}),
        IndexEntry(40_001, 3, 4),
    ]

    assert marks.unpack(marks.pack(index)) == index
    assert marks.covered(index) == len("".join(pieces)) + 3


def test_an_index_takes_a_few_bytes_per_entry() -> None:
    index = [
        IndexEntry(n + 1, 4 + n % 7, 1_790_000_000_000 + 50 * n, tokens=1 + n % 3)
        for n in range(24_000)
    ]
    assert len(marks.pack(index)) < 4 * len(index)
    assert marks.unpack(None) == []


def test_numbers_end_with_their_block_and_continue_after_another_reservation() -> None:
    numbers = SequenceBlock(7, 9)
    assert [numbers.take() for _ in range(4)] == [8, 9, None, None]

    reserved = numbers.wanted()

    assert reserved == numbers.wanted() == 9 + SequenceBlock.BLOCK // 2
    numbers.extend(reserved)
    assert (numbers.take(), numbers.last) == (10, 10)


def test_a_finding_is_not_shown_in_a_repr() -> None:
    assert "secret" not in repr(IndexEntry(1, 0, 2, {"evidence": "a secret thought"}))
