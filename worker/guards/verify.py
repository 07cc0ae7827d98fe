"""The verification guard: the model is asked to check its answer against the images once more.

The verification is a second turn of the same chat, so the engine has everything before it in its cache. It confirms
the answer, corrects it or doubts it; the texts of both generations are stored.
"""

from __future__ import annotations

import dataclasses
import re
import uuid
from collections.abc import Mapping
from typing import Any

import structlog

from jobs import engine
from jobs.answers import extraction, values
from jobs.answers.extraction import Answer
from jobs.findings import Action, Finding, FindingKind
from worker.guards import prompts
from worker.guards.language import drifted
from worker.guards.protocol import (
    GREEDY,
    AttemptStep,
    GenerationResult,
    GuardedGeneration,
    StandingAnswer,
    TraceGuard,
)
from worker.guards.trace import GuardedTrace

_log = structlog.get_logger(__name__)

#: The verification gets a quarter of a job's budget, at most 512 tokens.
_SHARE = 4
_MOST_TOKENS = 512
#: The words around the question, in the model's context. The question counts a token for each character.
_WORDS_TOKENS = 64
#: With fewer tokens it could say nothing.
_LEAST_TOKENS = 32

_REFUSAL = re.compile(
    r"\b(?:can ?not|can['\u2019]?t|unable|unclear|unsure|not sure|unknown|n/?a)\b|无法|不能|不确定|看不清",
    re.IGNORECASE,
)


class VerifyGuard(TraceGuard):
    """Adds a verification after an answer, if the budget has room for one.

    Args:
        request: the request of the generation that answers.
        answer_format: what the answer's value must be, or None.
        repeated: the question as the prompt repeats it, which takes tokens of the model's context.
    """

    def __init__(
        self,
        request: engine.GenerationRequest,
        *,
        answer_format: Mapping[str, Any] | None,
        repeated: str,
    ) -> None:
        self._request = request
        self._format = answer_format
        self._repeated = repeated
        self._tokens = 0

    def reserve(self, budget: int) -> int:
        """Keep the tokens of the verification; none if there are too few for two generations."""
        tokens = min(budget // _SHARE, _MOST_TOKENS)
        reserved = tokens + _WORDS_TOKENS + len(self._repeated)
        if min(budget - reserved, tokens) < _LEAST_TOKENS:
            return 0
        self._tokens = tokens
        return reserved

    def pending(self, trace: GuardedTrace) -> bool:
        """Return whether an answer is to be verified."""
        del trace
        return self._tokens > 0

    def next(self, trace: GuardedTrace, step: AttemptStep) -> Verification | None:
        """Return the verification of the answer that stands."""
        del trace
        if not self._tokens or step.standing.answer is None:
            return None
        tokens, self._tokens = self._tokens, 0
        return Verification(
            self._request, step, step.standing.answer, answer_format=self._format, tokens=tokens
        )


class Verification(GuardedGeneration):
    """Reads a verification to its end and compares its answer with the first one.

    Args:
        request: the request of the generation that answered.
        step: the state of the attempt with that answer.
        answer: the answer.
        answer_format: what the answer's value must be, or None.
        tokens: the most tokens of the verification.
    """

    def __init__(
        self,
        request: engine.GenerationRequest,
        step: AttemptStep,
        answer: Answer,
        *,
        answer_format: Mapping[str, Any] | None,
        tokens: int,
    ) -> None:
        text, output = step.standing.text, step.end.output
        inserted = prompts.verification(request.question) + request.instruction
        super().__init__(
            dataclasses.replace(
                request,
                rid=uuid.uuid4().hex,
                sampling=GREEDY,
                max_output_tokens=tokens,
                turn=engine.FollowUp(text, inserted),
            ),
            # Of a loop that was cut after its answer the engine gets the text up to the cut.
            stored=len(text) if output.startswith(text) else len(output),
            inserted=inserted,
        )
        self._standing = step.standing
        self._comparison = Comparison(answer, request.question, answer_format)
        self._finding: Finding | None = None

    @property
    def finding(self) -> Finding | None:
        """What came of it, once it has ended."""
        return self._finding

    def end(self, text: str, finish_reason: str) -> None:
        """Read the whole text and compare the answers."""
        action = self._comparison.action(text, ended=finish_reason == "stop")
        self._finding = _finding(action, len(text))

    def close(self, result: GenerationResult) -> AttemptStep:
        """Return the corrected answer, or the one that stands; a fault of the engine leaves that as it is."""
        end = result.end
        finding = dataclasses.replace(
            self._finding or _finding(Action.NONE, len(end.output)), generation=end.generation
        )
        _log.info("answer_verified", action=str(finding.action))
        standing = self._standing
        if finding.action is Action.CORRECTED:
            answer = extraction.extract(end.output, ended=end.finish_reason == "stop")
            standing = StandingAnswer(end.output, end, answer)
        return AttemptStep(end, standing, findings=(finding,), ignored_fault=result.fault)


def _finding(action: Action, length: int) -> Finding:
    """Return the finding of a verification of ``length`` characters; its number is known when it is closed."""
    return Finding(FindingKind.VERIFY, generation=0, start=0, end=length, action=action)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Compares the answer of a verification with the first one.

    Attributes:
        first: the answer that is verified.
        question: its script decides the language.
        answer_format: what the answer's value must be, or None.
    """

    first: Answer
    question: str
    answer_format: Mapping[str, Any] | None

    def action(self, text: str, *, ended: bool) -> Action:
        """Return what a verification with this text comes to; ``ended``: whether the model has ended the text."""
        second = extraction.extract(text, ended=ended)
        if second is None or self._refuses(second.text):
            return Action.DOUBTED
        if self._same(second.text):
            return Action.CONFIRMED
        # A text without a marker is a remark as often as an answer.
        if second.rule == "whole" or drifted(self.question, text, second.text):
            return Action.DOUBTED
        # The first answer has the requested format: a second one without it corrects nothing.
        known = values.read(self.first.text, self.answer_format)
        if known is not None and values.read(second.text, self.answer_format) is None:
            return Action.DOUBTED
        return Action.CORRECTED

    def _refuses(self, second: str) -> bool:
        """Return whether an answer says that no object exists; an option like "unknown" and the first answer do not."""
        answer_format = self.answer_format or {}
        if answer_format.get("type") == "choice" and values.read(second, self.answer_format):
            return False
        repeated = second.strip().casefold() == self.first.text.strip().casefold()
        return not repeated and _REFUSAL.search(second) is not None

    def _same(self, second: str) -> bool:
        value = values.read(second, self.answer_format)
        if value is not None and value == values.read(self.first.text, self.answer_format):
            return True
        return values.same(second, self.first.text)
