"""The document of a text that may grow. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Self

from jobs.document.blocks import BlockScanner
from jobs.document.boxes import BoxScanner
from jobs.document.parts import Block, BlockKind, Box, Heading, Parts, Span


class Document:
    """The structure of a text.

    All parts are those of the text so far, as if it were complete. To read them after a chunk takes time linear in
    the chunk and in the part of the text that further text can change, which is bounded.
    """

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._text = ""
        self._length = 0
        #: Whether the scanners have to read more text.
        self._blocks_stale = False
        self._boxes_stale = False
        self._blocks = BlockScanner()
        self._boxes = BoxScanner()

    @classmethod
    def of(cls, text: str) -> Self:
        """Return the document of a text."""
        document = cls()
        document.append(text)
        return document

    def copy(self) -> Document:
        """Return an independent document of the same text."""
        document = Document()
        document._pieces, document._text = [], self.text
        document._length = self._length
        document._blocks_stale, document._boxes_stale = self._blocks_stale, self._boxes_stale
        document._blocks, document._boxes = self._blocks.copy(), self._boxes.copy()
        return document

    def append(self, text: str) -> None:
        """Add a chunk of the text."""
        if text:
            self._pieces.append(text)
            self._length += len(text)
            self._blocks_stale = self._boxes_stale = True

    def __len__(self) -> int:
        """Return the length of the text, in characters."""
        return self._length

    @property
    def text(self) -> str:
        """The text so far."""
        if self._pieces:
            self._text = "".join((self._text, *self._pieces))
            self._pieces.clear()
        return self._text

    @property
    def blocks(self) -> Parts[Block]:
        """The blocks; only white space is outside of them."""
        return self._read_blocks().blocks

    @property
    def headings(self) -> Parts[Heading]:
        """The headings of a final answer."""
        return self._read_blocks().headings

    @property
    def spans(self) -> Parts[Span]:
        """The formulas and the code."""
        return self._read_blocks().spans

    @property
    def stops(self) -> Parts[int]:
        """The ends of the sentences in running text: each is the index after the punctuation."""
        return self._read_blocks().stops

    @property
    def open_block(self) -> tuple[BlockKind, int, bool] | None:
        """The kind, the start and ``joined`` of the block whose start is settled and whose end is not, if any."""
        return self._read_blocks().open_block

    @property
    def boxes(self) -> Parts[Box]:
        """The boxes that are closed and not empty."""
        return self._read_boxes().boxes

    @property
    def opened_box(self) -> int:
        """Start of the last box that was opened with a brace, closed or not; -1 without one."""
        return self._read_boxes().opened

    def paragraphs(self, start: int = 0) -> Iterator[Sequence[Block]]:
        """Return the blocks of each paragraph: with the lists, tables and formulas that belong to it.

        Args:
            start: blocks before this index are left out.
        """
        blocks = self.blocks
        return paragraphs_of(
            blocks[index] for index in range(first_from(blocks, start), len(blocks))
        )

    def _read_blocks(self) -> BlockScanner:
        if self._blocks_stale:
            self._blocks_stale = False
            self._blocks.read(self.text)
        return self._blocks

    def _read_boxes(self) -> BoxScanner:
        if self._boxes_stale:
            self._boxes_stale = False
            self._boxes.read(self.text)
        return self._boxes


def paragraphs_of(blocks: Iterable[Block]) -> Iterator[list[Block]]:
    """Yield the blocks of each paragraph: a block that is joined belongs to the one before it."""
    paragraph: list[Block] = []
    for block in blocks:
        if paragraph and not block.joined:
            yield paragraph
            paragraph = []
        paragraph.append(block)
    if paragraph:
        yield paragraph


def first_from(blocks: Sequence[Block], start: int) -> int:
    """Return the index of the first block that starts at ``start`` or after it."""
    low, high = 0, len(blocks)
    while low < high:
        middle = (low + high) // 2
        if blocks[middle].start < start:
            low = middle + 1
        else:
            high = middle
    return low
