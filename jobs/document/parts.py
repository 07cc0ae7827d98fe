"""The parts of a document. All positions are indexes of characters in its text. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar, overload

_Part = TypeVar("_Part")


class BlockKind(enum.StrEnum):
    """The kind of a block, by its first line."""

    TEXT = "text"
    #: A Markdown heading, or a line in bold; not one of a final answer.
    TITLE = "title"
    #: The heading of a final answer.
    FINAL = "final"
    LIST = "list"
    TABLE = "table"
    FORMULA = "formula"
    CODE = "code"
    #: A Markdown rule: ``---``.
    RULE = "rule"


class SpanKind(enum.StrEnum):
    """What a span that is never split contains."""

    DISPLAY = "display"
    INLINE = "inline"
    CODE = "code"


@dataclass(frozen=True)
class Block:
    """A part of the text that contains no blank line outside of formulas and code.

    Attributes:
        kind: by its first line.
        start: index of its first character.
        end: index after its last visible character.
        joined: whether it belongs to the same paragraph as the block before it, as a list does.
        closed: whether a blank line or another block follows.
    """

    kind: BlockKind
    start: int
    end: int
    joined: bool
    closed: bool


@dataclass(frozen=True)
class Heading:
    """The heading of a final answer: always a line, or the beginning of one.

    Attributes:
        start: index of its first character.
        content: where the answer begins; the rest of the line may belong to it.
        rank: 2 for "Final Answer", 1 for "Answer" and 0 for "Conclusion".
        level: number of ``#`` of a Markdown heading, or 0.
    """

    start: int
    content: int
    rank: int
    level: int


@dataclass(frozen=True)
class Span:
    """A formula or code, with its delimiters."""

    kind: SpanKind
    start: int
    end: int


@dataclass(frozen=True)
class Box:
    r"""A box that is closed and not empty: ``\boxed{6}``, ``\fbox{6}``, ``\boxed 6``; of nested ones, the inner one.

    Attributes:
        start: index of the command.
        end: index after the closing brace.
        inner_start: start of its content.
        inner_end: end of its content.
    """

    start: int
    end: int
    inner_start: int
    inner_end: int


class Parts(Sequence[_Part]):
    """Parts in the order of their positions: further text changes only the last of them.

    Attributes:
        settled: the parts that further text cannot change; this list only grows.
        pending: the others.
    """

    def __init__(self) -> None:
        self.settled: list[_Part] = []
        self.pending: list[_Part] = []

    def copy(self) -> Parts[_Part]:
        """Return an independent copy."""
        parts = Parts[_Part]()
        parts.settled, parts.pending = self.settled.copy(), self.pending.copy()
        return parts

    def __len__(self) -> int:
        return len(self.settled) + len(self.pending)

    def __iter__(self) -> Iterator[_Part]:
        yield from self.settled
        yield from self.pending

    @overload
    def __getitem__(self, index: int) -> _Part: ...

    @overload
    def __getitem__(self, index: slice) -> list[_Part]: ...

    def __getitem__(self, index: int | slice) -> _Part | list[_Part]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(index)
        known = len(self.settled)
        return self.settled[index] if index < known else self.pending[index - known]
