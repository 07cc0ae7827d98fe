"""The forced answer: a trace that was cut is continued with words after which the model can only answer."""

from __future__ import annotations

import dataclasses
import uuid

from jobs import engine
from jobs.answers import extraction
from jobs.answers.extraction import Answer
from jobs.document import Document
from jobs.findings import FindingKind
from jobs.store import traces
from worker.guards.language import drifted
from worker.guards.protocol import (
    GREEDY,
    AttemptStep,
    GenerationResult,
    GuardedGeneration,
    StandingAnswer,
    TraceGuard,
    stands,
)
from worker.guards.trace import FORCED_TOKENS, GuardedTrace, Verdict

#: Tokens that are kept of a job's budget: the forced answer and the words that ask for it.
RESERVE_TOKENS = FORCED_TOKENS + 16
#: A smaller budget is not worth a reserve: the trace gets all of it, and no answer is forced at its end.
_LEAST_RESERVED = 256


class ForcedAnswerGuard(TraceGuard):
    """Adds the forced answer after a verdict that asks for one.

    Args:
        request: the request of the generation that may be cut.
        reserves: whether to keep tokens for an answer after the budget is spent.
    """

    def __init__(self, request: engine.GenerationRequest, *, reserves: bool) -> None:
        self._request = request
        self._reserves = reserves
        self._added = False
        #: The tokens of the generation and of a forced answer together.
        self.budget = 0

    def reserve(self, budget: int) -> int:
        """Keep the tokens of a forced answer."""
        self.budget = budget
        return RESERVE_TOKENS if self._reserves and budget >= _LEAST_RESERVED else 0

    def pending(self, trace: GuardedTrace) -> bool:
        """Return whether an answer is to be forced."""
        return not self._added and trace.verdict is not None and bool(trace.verdict.inserted)

    def next(self, trace: GuardedTrace, step: AttemptStep) -> ForcedAnswer | None:
        """Return the generation that continues from before the cut."""
        verdict = trace.verdict
        if self._added or verdict is None or not verdict.inserted:
            return None
        self._added = True
        return ForcedAnswer(self._request, step.end, verdict, tokens=trace.forced_tokens)


class ForcedAnswer(GuardedGeneration):
    """Reads a forced answer until its box is closed.

    Args:
        request: the request of the generation that was cut.
        cut: the end of that generation. Its answer stands if the forced one is no better.
        verdict: from where and with which words the model continues.
        tokens: the most tokens of the answer.
    """

    def __init__(
        self,
        request: engine.GenerationRequest,
        cut: traces.GenerationEnd,
        verdict: Verdict,
        *,
        tokens: int,
    ) -> None:
        continuation = cut.output[: verdict.stored] + verdict.inserted
        super().__init__(
            dataclasses.replace(
                request,
                rid=uuid.uuid4().hex,
                sampling=GREEDY,
                max_output_tokens=tokens,
                continuation=continuation,
            ),
            stored=verdict.stored,
            inserted=verdict.inserted,
        )
        self._cut = cut
        self._verdict = verdict
        self._continuation = continuation
        self._stored = verdict.stored
        self._read = ""

    def see(self, text: str, tokens: int | None = None) -> bool:
        """Read a chunk's text; return whether the box is closed."""
        del tokens
        self._read += text
        return box_closed(self._read)

    def close(self, result: GenerationResult) -> AttemptStep:
        """Return the forced answer; without one, what the cut trace had said stands."""
        fault = result.fault
        if fault is not None and not fault.retryable:
            # The engine refuses the longer text; that does not make the question a bad one.
            fault = None
        text = self._continuation + result.end.output
        answer = extraction.extract(self._document(text), ended=False)
        if answer is not None and self._accepts(answer):
            standing = StandingAnswer(text, result.end, answer, forced=True)
        else:
            text = self._cut.output
            answer = extraction.extract(
                self._cut.document or text, ended=self._cut.finish_reason == "stop"
            )
            standing = StandingAnswer(text, stands(self._cut), answer)
        return AttemptStep(result.end, standing, fault)

    def _document(self, text: str) -> Document:
        """Return the document of ``text``: of what it has in common with the cut trace, nothing is read again."""
        known = self._cut.document
        if known is None or self._stored < len(known):
            return Document.of(text)
        document = known.copy()
        document.append(text[len(known) :])
        return document

    def _accepts(self, answer: Answer) -> bool:
        """Return whether an answer that was forced because of its language is in the right one."""
        return self._verdict.finding.kind is not FindingKind.LANGUAGE or not drifted(
            self.request.question, self._cut.output, answer.text
        )


def box_closed(text: str) -> bool:
    """Return whether ``text``, which continues inside an open brace, closes it. An escaped brace does not count."""
    depth = 1
    escaped = False
    for character in text:
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return True
    return False
