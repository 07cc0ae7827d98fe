"""The steps of a trace: the kind of each section of the raw text, its place, and its time. Pure.

The service stores the raw text and can parse its steps again at any time; :data:`VERSION` identifies the rules of the
parser. The steps do not depend on the chunks in which the text arrives.

:mod:`jobs.trace.layout` decides where a text may be divided, :mod:`jobs.trace.kinds` classifies sentences.
Adjacent sentences of the same kind in one paragraph form one step. A final answer lasts until a paragraph that
re-checks it.
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

#: Incremented by each change of the rules that changes the steps of a text.
VERSION = 2


@dataclass(frozen=True)
class TokenMark:
    """The time at which a generation's text had ``chars`` characters, and ``tokens`` tokens if known."""

    chars: int
    at: datetime
    tokens: int | None = None


@dataclass(frozen=True)
class Step:
    """A section of a trace.

    Times and token counts are as precise as the marks that they come from, and they are bounds: the step did not start
    before ``start_token`` tokens, and it was complete by ``ended_at``.

    Attributes:
        kind: the kind of the step.
        start: the index of the first character, in code points of the raw text. Only white space separates steps.
        end: the index after the last character.
        start_token: number of tokens before the step; None if unknown, as for the attributes below.
        end_token: number of tokens at its end.
        started_at: the time of its first character.
        ended_at: the time of its last character.
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
        text: a trace, complete or not.
        marks: times and lengths of the growing text, in order.
    """
    parser = Parser()
    parser.feed(text)
    return parser.steps(marks)


class Parser:
    """Parses a growing trace: a call of :meth:`steps` costs time for the text after the last settled paragraph."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        #: Number of characters whose steps cannot change anymore.
        self._settled = 0
        self._reading = _Reading()

    def feed(self, text: str) -> None:
        """Append ``text``."""
        self._pieces.append(text)

    def steps(self, marks: Sequence[TokenMark] = ()) -> list[Step]:
        """Return the steps of the text so far, as if it ended here."""
        text = "".join(self._pieces)
        self._pieces = [text]
        paragraphs = list(layout.paragraphs(text, self._settled))
        # The first line after the second-last paragraph decides whether that paragraph continues, and this line may
        # be incomplete.
        for paragraph in paragraphs[:-2]:
            if not paragraph.settled:
                break
            self._reading.take(text, paragraph)
            self._settled = paragraph.end
        reading = self._reading.copy()
        for paragraph in paragraphs:
            if paragraph.end > self._settled:
                reading.take(text, paragraph)
        return timed(reading.steps, marks)


class _Reading:
    """The steps so far, and whether the text is within the final answer."""

    def __init__(self, steps: Sequence[Step] = (), *, answering: bool = False) -> None:
        self.steps = list(steps)
        self._answering = answering

    def copy(self) -> Self:
        """Return a copy that can take more paragraphs without changing this one."""
        return type(self)(self.steps, answering=self._answering)

    def take(self, text: str, paragraph: layout.Paragraph) -> None:
        """Add the steps of ``paragraph``."""
        if paragraph.final:
            self._answering = True
        last: StepKind | None = None
        for start, end in paragraph.sentences:
            own = kind_of(text[start:end])
            if last is None and own is StepKind.RECHECK and not paragraph.final:
                self._answering = False
            kind = StepKind.ANSWER if self._answering else own or last or StepKind.INFERENCE
            if kind is last or (kind is StepKind.ANSWER and self._continues(kind)):
                self.steps[-1] = Step(kind, self.steps[-1].start, end)
            else:
                self.steps.append(Step(kind, start, end))
            last = kind

    def _continues(self, kind: StepKind) -> bool:
        """Whether the last step, possibly of another paragraph, is of this kind."""
        return bool(self.steps) and self.steps[-1].kind is kind


def timed(steps: Sequence[Step], marks: Sequence[TokenMark]) -> list[Step]:
    """Return ``steps`` with times and tokens from ``marks``, which are in order; without marks, they are unchanged."""
    if not marks:
        return list(steps)
    lengths = [mark.chars for mark in marks]

    def with_times(step: Step) -> Step:
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

    return [with_times(step) for step in steps]
