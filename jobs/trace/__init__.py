"""The steps of a trace: the kind, the position and the time of each part of the raw text. Pure.

The raw text is stored; steps can be parsed from it again at any time, and :data:`VERSION` is the version of the rules.
The steps are the same whether the text arrives in one piece or character by character.

:mod:`jobs.trace.layout` splits a text into paragraphs and sentences, and :mod:`jobs.trace.kinds` classifies sentences.
Consecutive sentences of one kind in a paragraph are one step. A final answer lasts until a paragraph that starts with
a re-check.
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

#: Increases with each change of the rules that changes the steps of a text.
VERSION = 2


@dataclass(frozen=True)
class TokenMark:
    """The time at which a stream's text had ``chars`` characters and ``tokens`` tokens (None if unknown)."""

    chars: int
    at: datetime
    tokens: int | None = None


@dataclass(frozen=True)
class Step:
    """A part of a trace.

    Times and tokens are bounds, as precise as the marks that they come from: the step starts after ``start_token``
    tokens at the earliest, and it is complete at ``ended_at`` at the latest.

    Attributes:
        start: index of its first character, in code points of the raw text; only white space separates two steps.
        end: index after its last character.
        start_token: number of tokens before it, or None if unknown, as for the following fields.
        end_token: number of tokens when it was complete.
        started_at: time of its first character.
        ended_at: time of its last character.
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
        text: a complete or partial trace.
        marks: lengths of the text over time, in order.
    """
    parser = Parser()
    parser.feed(text)
    return parser.steps(marks)


class Parser:
    """Parses a growing trace: the cost of :meth:`steps` depends only on the text after the last settled paragraph."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        #: Number of characters whose steps are final.
        self._settled = 0
        self._settled_steps = _StepBuilder()

    def feed(self, text: str) -> None:
        """Add ``text``."""
        self._pieces.append(text)

    def steps(self, marks: Sequence[TokenMark] = ()) -> list[Step]:
        """Return the steps of the text so far, as if it were complete."""
        text = "".join(self._pieces)
        self._pieces = [text]
        pending = list(layout.paragraphs(text, self._settled))
        # The last but one may continue, depending on the first line after it, which may be incomplete.
        for paragraph in pending[:-2]:
            if not paragraph.settled:
                break
            self._settled_steps.add(text, paragraph)
            self._settled = paragraph.end
        builder = self._settled_steps.copy()
        for paragraph in pending:
            if paragraph.end > self._settled:
                builder.add(text, paragraph)
        return timed(builder.steps, marks)


class _StepBuilder:
    """The steps so far, and whether the text is inside the final answer."""

    def __init__(self, steps: Sequence[Step] = (), *, answering: bool = False) -> None:
        self.steps = list(steps)
        self._answering = answering

    def copy(self) -> Self:
        """Return an independent copy."""
        return type(self)(self.steps, answering=self._answering)

    def add(self, text: str, paragraph: layout.Paragraph) -> None:
        """Add the steps of ``paragraph``."""
        if paragraph.final:
            self._answering = True
        last: StepKind | None = None
        for start, end in paragraph.sentences:
            detected = kind_of(text[start:end])
            if last is None and detected is StepKind.RECHECK and not paragraph.final:
                self._answering = False
            kind = StepKind.ANSWER if self._answering else detected or last or StepKind.INFERENCE
            if kind is last or (kind is StepKind.ANSWER and self._continues(kind)):
                self.steps[-1] = Step(kind, self.steps[-1].start, end)
            else:
                self.steps.append(Step(kind, start, end))
            last = kind

    def _continues(self, kind: StepKind) -> bool:
        """Whether the last step, even of another paragraph, has this kind."""
        return bool(self.steps) and self.steps[-1].kind is kind


def timed(steps: Sequence[Step], marks: Sequence[TokenMark]) -> list[Step]:
    """Return ``steps`` with times and tokens by ``marks``, which must be in order; without marks, unchanged."""
    if not marks:
        return list(steps)
    lengths = [mark.chars for mark in marks]

    def with_time(step: Step) -> Step:
        before = bisect.bisect_right(lengths, step.start)
        complete = bisect.bisect_left(lengths, step.end)
        return Step(
            step.kind,
            step.start,
            step.end,
            start_token=marks[before - 1].tokens if before else 0,
            end_token=marks[complete].tokens if complete < len(marks) else None,
            started_at=marks[before].at if before < len(marks) else None,
            ended_at=marks[complete].at if complete < len(marks) else None,
        )

    return [with_time(step) for step in steps]
