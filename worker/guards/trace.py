"""The growing text of a guarded generation, and the token budget of an answer that a guard forces. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from jobs import engine
from jobs.answers import extraction
from jobs.document import Document
from jobs.findings import Action, Finding, FindingKind
from worker.guards import prompts

#: The most tokens of a forced answer.
FORCED_TOKENS = 64
#: With fewer tokens left no answer is forced: it would not be complete.
_LEAST_FORCED = 8
#: The guards look at the text every 64 characters, and with the costlier checks every 1,024.
_CHECK_EVERY = 64
_LONG_CHECK_EVERY = 1024
#: Tokens before the first check.
_LEAST_TOKENS = 64
#: Characters at the end of the text that the checks get: more than two copies of the longest loop.
TAIL = 15_100


@dataclass(frozen=True)
class Verdict:
    """A guard's decision to cut a generation.

    Attributes:
        finding: why.
        stored: how many characters of the text stand.
        inserted: the words after which the model continues; empty if it does not.
    """

    finding: Finding
    stored: int
    inserted: str = field(repr=False)


class GuardedTrace:
    """The text of one generation as its guards see it.

    Args:
        question: its script decides the language.
        number: the generation's number.
        limit: the most tokens of the generation.
        budget: the tokens of the generation and of a forced answer together; None if the answer comes in a
            generation of its own in any case, with tokens of its own.
    """

    def __init__(self, *, question: str, number: int, limit: int, budget: int | None) -> None:
        self.question = question
        self.number = number
        self.limit = limit
        self._budget = budget
        #: What the guards decided, once they have.
        self.verdict: Verdict | None = None
        #: Tokens and characters so far.
        self.tokens = 0
        self.length = 0
        #: The end of the text that was gathered.
        self.tail = ""
        #: Whether the costlier checks are due as well.
        self.long_check_due = False
        self._document = Document()
        #: The chunks that are not gathered, and the characters since the last check.
        self._parts: list[str] = []
        self._unchecked = 0
        self._long_check_at = _LONG_CHECK_EVERY
        #: The answers in the whole text, once they are read.
        self._answers: dict[bool, extraction.Answer | None] = {}

    @property
    def document(self) -> Document:
        """The structure of the text so far. To read its parts takes more time than all else at a check."""
        self._gather()
        return self._document

    @property
    def text(self) -> str:
        """The text so far."""
        return self.document.text

    @property
    def typed(self) -> bool:
        """Whether the answer comes in a generation of its own in any case."""
        return self._budget is None

    @property
    def forced_tokens(self) -> int:
        """The most tokens of a forced answer: those of the job that are left."""
        left = FORCED_TOKENS if self._budget is None else self._budget - self.tokens
        return min(FORCED_TOKENS, max(1, left))

    @property
    def may_force(self) -> bool:
        """Whether enough tokens are left for an answer."""
        return self._budget is None or self._budget - self.tokens >= _LEAST_FORCED

    def add(self, text: str, tokens: int | None = None) -> bool:
        """Add a chunk's text; return whether a check is due.

        Args:
            text: the chunk's text.
            tokens: the engine's count of all tokens so far; None: the text is measured.
        """
        size = len(text)
        self.tokens = engine.counted(self.tokens, text, tokens)
        self.length += size
        self._parts.append(text)
        self._unchecked += size
        if self._unchecked < _CHECK_EVERY or self.tokens < _LEAST_TOKENS:
            return False
        self._gather()
        self._unchecked = 0
        self.long_check_due = self.length >= self._long_check_at
        if self.long_check_due:
            self._long_check_at = self.length + _LONG_CHECK_EVERY
        return True

    def _gather(self) -> None:
        """Add the chunks since the last call to the document and to the tail."""
        if self._parts:
            new = "".join(self._parts)
            self._parts.clear()
            self._answers.clear()
            self._document.append(new)
            self.tail = (self.tail + new)[-TAIL:]

    def complete(self, text: str) -> None:
        """Take the whole text of a generation that the model has ended."""
        if text != self.text:
            self._document = Document.of(text)
        self._answers.clear()
        self.length = len(text)

    def answer(self, *, ended: bool) -> extraction.Answer | None:
        """Return the answer in the whole text; ``ended``: whether the model has ended it."""
        if ended not in self._answers:
            self._answers[ended] = extraction.extract(self._document, ended=ended)
        return self._answers[ended]

    def bill(self, tokens: int) -> None:
        """Count the tokens of the engine's bill, which are more than those seen if the engine stopped late.

        If they leave too few for a forced answer, the verdict no longer asks for one.
        """
        self.tokens = max(self.tokens, tokens)
        verdict = self.verdict
        if verdict is None or not verdict.inserted or self.may_force:
            return
        if verdict.finding.kind is FindingKind.LANGUAGE:
            self.verdict = self.note(verdict.finding, self.length)
        else:
            self.verdict = _stopped(verdict.finding, verdict.stored)

    def finding(
        self,
        kind: FindingKind,
        start: int,
        end: int,
        evidence: Mapping[str, float],
        *,
        spared: bool = False,
    ) -> Finding:
        """Return a finding in this text; with ``spared`` the rest of the generation's tokens are not needed."""
        return Finding(
            kind=kind,
            generation=self.number,
            start=start,
            end=end,
            action=Action.FORCED,
            evidence=evidence,
            tokens_saved=max(0, self.limit - self.tokens) if spared else 0,
        )

    def force(self, finding: Finding, text: str, at: int) -> Verdict:
        """Cut ``text`` at a place and force an answer, if enough tokens are left for one."""
        stored = len(text[:at].rstrip())
        if not self.may_force:
            return _stopped(finding, stored)
        return Verdict(finding, stored, prompts.forced_answer(self.question))

    def stop(self, finding: Finding, text: str, at: int) -> Verdict:
        """Cut ``text`` at a place; force an answer unless the model gave its final answer before."""
        answer = extraction.extract(text[:at], ended=False)
        if answer is not None and answer.rule == "heading+boxed":
            return _stopped(finding, at)
        return self.force(finding, text, at)

    @staticmethod
    def keep(finding: Finding, text: str, at: int) -> Verdict:
        """Cut ``text`` at a place, after an answer that stands."""
        return _stopped(finding, len(text[:at].rstrip()))

    @staticmethod
    def note(finding: Finding, length: int) -> Verdict:
        """Note a finding and leave the text, of ``length`` characters, as it is."""
        return Verdict(dataclasses.replace(finding, action=Action.NONE), length, "")


def _stopped(finding: Finding, stored: int) -> Verdict:
    return Verdict(dataclasses.replace(finding, action=Action.STOPPED), stored, "")
