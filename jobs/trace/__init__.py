"""The steps of a trace: what each stretch of the raw text does, where it stands and when it came. Pure.

The raw text is what is kept; steps can be read from it again at any time, and :data:`VERSION` says by which rules
they were. However a text comes in, in one piece or character by character, its steps are the same.

Where a text may be cut is in :mod:`jobs.trace.layout`, what a sentence does in :mod:`jobs.trace.kinds`. Sentences
of one paragraph that do the same are one step. A final answer lasts until a paragraph that looks again.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from jobs.trace import layout
from jobs.trace.kinds import StepKind, kind_of

__all__ = ["VERSION", "Parser", "Step", "StepKind", "TokenMark", "parse", "timed"]

#: Grows with each change that gives a text other steps.
VERSION = 2


@dataclass(frozen=True)
class TokenMark:
    """A moment at which a stream's text had ``chars`` characters, of ``tokens`` tokens if that is known."""

    chars: int
    at: datetime
    tokens: int | None = None


@dataclass(frozen=True)
class Step:
    """A stretch of a trace.

    Times and tokens are as fine as the marks that they come from, and never claim more: the step had not begun
    before ``start_token`` tokens, and it was there, whole, by ``ended_at``.

    Attributes:
        start: its first character, in code points of the raw text; only white space is between two steps.
        end: the character after its last one.
        start_token: tokens that had come before it; None when that is not known, as with the three below.
        end_token: tokens when it was whole.
        started_at: when its first character was there.
        ended_at: when its last character was there.
    """

    kind: StepKind
    start: int
    end: int
    start_token: int | None = None
    end_token: int | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None


def parse(text: str, marks: Sequence[TokenMark] = ()) -> list[Step]:
    """Return the steps of ``text``, in time linear in its length.

    Args:
        text: a trace, whole or as far as it has come.
        marks: when it had grown how long, in order.
    """
    parser = Parser()
    parser.feed(text)
    return parser.steps(marks)


class Parser:
    """Reads a trace that is still growing: a look costs what has come since the last settled paragraph."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        #: Characters whose steps cannot change any more.
        self._settled = 0
        self._reading = _Reading()

    def feed(self, text: str) -> None:
        """Add ``text``."""
        self._pieces.append(text)

    def steps(self, marks: Sequence[TokenMark] = ()) -> list[Step]:
        """Return the steps of all that has come so far, as if it ended here."""
        text = "".join(self._pieces)
        self._pieces = [text]
        found = list(layout.paragraphs(text, self._settled))
        # Whether the last but one goes on depends on the first line after it, which may not be whole yet.
        for paragraph in found[:-2]:
            if not paragraph.settled:
                break
            self._reading.take(text, paragraph)
            self._settled = paragraph.end
        reading = self._reading.copy()
        for paragraph in found:
            if paragraph.end > self._settled:
                reading.take(text, paragraph)
        return timed(reading.steps, marks)


class _Reading:
    """The steps so far, and whether the final answer is being given."""

    def __init__(self, steps: Sequence[Step] = (), *, answering: bool = False) -> None:
        self.steps = list(steps)
        self._answering = answering

    def copy(self) -> Self:
        """Return the same, to be read on from without changing this."""
        return type(self)(self.steps, answering=self._answering)

    def take(self, text: str, paragraph: layout.Paragraph) -> None:
        """Add the steps of ``paragraph``."""
        if paragraph.final:
            self._answering = True
        last: StepKind | None = None
        for start, end in paragraph.sentences:
            reported = kind_of(text[start:end])
            if last is None and reported is StepKind.RECHECK and not paragraph.final:
                self._answering = False
            kind = StepKind.ANSWER if self._answering else reported or last or StepKind.INFERENCE
            if kind is last or (kind is StepKind.ANSWER and self._goes_on(kind)):
                self.steps[-1] = Step(kind, self.steps[-1].start, end)
            else:
                self.steps.append(Step(kind, start, end))
            last = kind

    def _goes_on(self, kind: StepKind) -> bool:
        """Whether the last step, of another paragraph maybe, is of this kind too."""
        return bool(self.steps) and self.steps[-1].kind is kind


def timed(steps: Sequence[Step], marks: Sequence[TokenMark]) -> list[Step]:
    """Return ``steps`` with what ``marks``, in order, tell of them; without any they are as they were."""
    if not marks:
        return list(steps)
    lengths = [mark.chars for mark in marks]

    def one(step: Step) -> Step:
        before = bisect.bisect_right(lengths, step.start)
        whole = bisect.bisect_left(lengths, step.end)
        return Step(
            step.kind,
            step.start,
            step.end,
            start_token=marks[before - 1].tokens if before else 0,
            end_token=marks[whole].tokens if whole < len(marks) else None,
            started_at=marks[before].at if before < len(marks) else None,
            ended_at=marks[whole].at if whole < len(marks) else None,
        )

    return [one(step) for step in steps]
