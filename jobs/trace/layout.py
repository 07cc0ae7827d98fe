"""Reads the sentences of a trace from its document. Pure.

A sentence ends at its punctuation, and at the end of its paragraph. A list, a table, a formula and code belong to the
sentence before them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jobs.document import BlockKind, Document

_VISIBLE = re.compile(r"\S")


@dataclass(frozen=True)
class Sentence:
    """A sentence.

    Attributes:
        start: index of its first visible character.
        end: index after its last visible character.
        opens: whether it is the first one of its paragraph.
        final: whether its paragraph starts with the heading of a final answer.
    """

    start: int
    end: int
    opens: bool
    final: bool


@dataclass
class _State:
    """Where a reader is.

    Attributes:
        block: number of blocks whose start has been read.
        stop: number of ends of sentences that have been read.
        start: start of the sentence.
        opens: whether it is the first one of its paragraph.
        final: whether its paragraph starts with the heading of a final answer.
    """

    block: int = 0
    stop: int = 0
    start: int = 0
    opens: bool = True
    final: bool = False


class SentenceReader:
    """Reads a document that may grow."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._state = _State()

    def settled(self) -> Iterator[Sentence]:
        """Yield the sentences since the last call that further text cannot change."""
        document, state = self._document, self._state
        blocks, stops = document.blocks, document.stops
        starts = [
            (block.start, block.joined, block.kind) for block in blocks.settled[state.block :]
        ]
        if (block := document.open_block) is not None and state.block <= len(blocks.settled):
            starts.append((block[1], block[2], block[0]))
        yield from self._read(state, starts, stops.settled[state.stop :])

    def pending(self) -> Iterator[Sentence]:
        """Yield the sentences after the settled ones, as if the text were complete."""
        blocks, stops = self._document.blocks, self._document.stops
        state = dataclasses.replace(self._state)
        starts = [(block.start, block.joined, block.kind) for block in blocks[state.block :]]
        yield from self._read(state, starts, stops[state.stop :])
        if blocks:
            yield from self._sentence(state, blocks[-1].end)

    def _read(
        self,
        state: _State,
        starts: Sequence[tuple[int, bool, BlockKind]],
        stops: Sequence[int],
    ) -> Iterator[Sentence]:
        blocks = self._document.blocks
        remaining = iter(stops)
        stop = next(remaining, None)
        for start, joined, kind in starts:
            while stop is not None and stop <= start:
                yield from self._stop(state, stop)
                stop = next(remaining, None)
            if not joined:
                if state.block:
                    yield from self._sentence(state, blocks[state.block - 1].end)
                state.start, state.opens, state.final = start, True, kind is BlockKind.FINAL
            state.block += 1
        while stop is not None:
            yield from self._stop(state, stop)
            stop = next(remaining, None)

    def _stop(self, state: _State, stop: int) -> Iterator[Sentence]:
        yield from self._sentence(state, stop)
        state.stop += 1

    def _sentence(self, state: _State, end: int) -> Iterator[Sentence]:
        """Yield the sentence up to ``end``, if it has visible text, and start the next one."""
        visible = _VISIBLE.search(self._document.text, state.start, end)
        if visible is not None:
            yield Sentence(visible.start(), end, state.opens, state.final)
            state.opens = False
        state.start = max(state.start, end)
