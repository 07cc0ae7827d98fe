"""The steps of a trace: the kind, the position and the time of each part of the raw text. Pure.

The raw text is stored; steps can be parsed from it again at any time, and :data:`VERSION` is the version of the rules.
The steps are the same whether the text arrives in one piece or character by character.

:mod:`jobs.trace.layout` reads the sentences of a :class:`jobs.document.Document`, and :mod:`jobs.trace.kinds`
classifies them.
Consecutive sentences of one kind in a paragraph are one step. A final answer lasts until a paragraph that starts with
a re-check.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from jobs.document import Document
from jobs.trace.kinds import StepKind, kind_of
from jobs.trace.layout import Sentence, SentenceReader

__all__ = ["VERSION", "Parser", "Step", "StepKind", "TokenMark", "parse", "timed"]

#: Increases with each change of the rules that changes the steps of a text.
VERSION = 3

#: Characters of a sentence that decide its kind.
_DECISIVE = 4000


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


def parse(source: str | Document, marks: Sequence[TokenMark] = ()) -> list[Step]:
    """Return the steps of a text, in time linear in its length.

    Args:
        source: a complete or partial trace, or its document.
        marks: lengths of the text over time, in order.
    """
    document = source if isinstance(source, Document) else Document.of(source)
    return Parser(document).steps(marks)


class Parser:
    """Parses a growing trace: the cost of :meth:`steps` depends only on the text that further text can change."""

    def __init__(self, document: Document | None = None) -> None:
        self._document = Document() if document is None else document
        self._sentences = SentenceReader(self._document)
        self._settled_steps = _StepBuilder()

    def feed(self, text: str) -> None:
        """Add ``text``."""
        self._document.append(text)

    def steps(self, marks: Sequence[TokenMark] = ()) -> list[Step]:
        """Return the steps of the text so far, as if it were complete."""
        text = self._document.text
        for sentence in self._sentences.settled():
            self._settled_steps.add(text, sentence)
        builder = self._settled_steps.copy()
        for sentence in self._sentences.pending():
            builder.add(text, sentence)
        return timed(builder.steps, marks)


class _StepBuilder:
    """The steps so far, and whether the text is inside the final answer."""

    def __init__(
        self, steps: Sequence[Step] = (), *, answering: bool = False, last: StepKind | None = None
    ) -> None:
        self.steps = list(steps)
        self._answering = answering
        #: The kind of the sentence before, in the same paragraph.
        self._last = last

    def copy(self) -> Self:
        """Return an independent copy."""
        return type(self)(self.steps, answering=self._answering, last=self._last)

    def add(self, text: str, sentence: Sentence) -> None:
        """Add a sentence: to the step of the sentence before, or as a step of its own."""
        detected = kind_of(text[sentence.start : min(sentence.end, sentence.start + _DECISIVE)])
        if sentence.opens:
            self._last = None
            if sentence.final:
                self._answering = True
            elif detected is StepKind.RECHECK:
                self._answering = False
        last = self._last
        kind = StepKind.ANSWER if self._answering else detected or last or StepKind.INFERENCE
        if kind is last or (kind is StepKind.ANSWER and self._continues(kind)):
            self.steps[-1] = dataclasses.replace(self.steps[-1], end=sentence.end)
        else:
            self.steps.append(Step(kind, sentence.start, sentence.end))
        self._last = kind

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
