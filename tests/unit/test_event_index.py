"""The marks in a text: cut at any number, over any chunking, nothing is lost, doubled or moved."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from jobs.events import index as event_index
from jobs.events.index import IndexEntry, SequenceBlock

PIECES = st.lists(st.text(min_size=1, max_size=12), max_size=30)
GAPS = st.lists(st.integers(1, 1000), min_size=30, max_size=30)


def marked(pieces: list[str], gaps: list[int]) -> list[IndexEntry]:
    """Return the marks of ``pieces``, with numbers that are not dense."""
    found: list[IndexEntry] = []
    number = 0
    for piece, gap in zip(pieces, gaps, strict=False):
        number += gap
        found.append(IndexEntry(number, len(piece), 1_790_000_000_000 + number, tokens=gap))
    return found


@given(pieces=PIECES, gaps=GAPS, after=st.integers(0, 31_000))
def test_a_text_cut_at_any_number_goes_on_where_it_was_left(
    pieces: list[str], gaps: list[int], after: int
) -> None:
    text, index = "".join(pieces), marked(pieces, gaps)

    reported = list(event_index.cut(text, event_index.unpack(event_index.pack(index)), after=after))

    left = [piece for mark, piece in zip(index, pieces, strict=True) if mark.number <= after]
    assert "".join([*left, *(piece for _, piece in reported)]) == text
    assert [mark for mark, _ in reported] == [mark for mark in index if mark.number > after]


@given(pieces=PIECES, gaps=GAPS)
def test_an_index_comes_back_as_it_was_packed(pieces: list[str], gaps: list[int]) -> None:
    index = marked(pieces, gaps)
    index += [
        IndexEntry(40_000, 0, 5, {"kind": "loop", "evidence": "圆 🟢"}),
        IndexEntry(40_001, 3, 4),
    ]

    assert event_index.unpack(event_index.pack(index)) == index
    assert event_index.covered(index) == len("".join(pieces)) + 3


def test_an_index_takes_a_few_bytes_for_each_mark() -> None:
    index = [
        IndexEntry(n + 1, 4 + n % 7, 1_790_000_000_000 + 50 * n, tokens=1 + n % 3)
        for n in range(24_000)
    ]
    assert len(event_index.pack(index)) < 4 * len(index)
    assert event_index.unpack(None) == []


def test_numbers_end_with_their_block_and_go_on_when_more_are_reserved() -> None:
    numbers = SequenceBlock(7, 9)
    assert [numbers.take() for _ in range(4)] == [8, 9, None, None]

    wanted = numbers.wanted()

    assert wanted == numbers.wanted() == 9 + SequenceBlock.BLOCK // 2
    numbers.extend(wanted)
    assert (numbers.take(), numbers.last) == (10, 10)


def test_a_finding_is_not_shown_in_a_repr() -> None:
    assert "secret" not in repr(IndexEntry(1, 0, 2, {"evidence": "a secret thought"}))


def test_the_first_text_is_found_without_the_rest_of_the_index() -> None:
    rng = random.Random(5)
    for size in (0, 1, 2, 50, 5000):
        for findings in (0, 1, 3):
            before = [
                IndexEntry(
                    number + 1, 0, 5, {"kind": "loop", "quote": "],[圆" * rng.randint(0, 99)}
                )
                for number in range(findings)
            ]
            after = [IndexEntry(findings + 7 + number, 4, 9, None, 1) for number in range(size)]
            first = after[0].number if after else None
            assert event_index.first_text(event_index.pack([*before, *after])) == first
    assert event_index.first_text(None) is None
