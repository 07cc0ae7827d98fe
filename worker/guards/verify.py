"""A second look: the model has answered, and is asked to compare what it said with the picture once more. Pure.

It is a turn of the same chat, so that all before it comes from the engine's cache. What it comes to is a
:class:`Verdict <jobs.findings.Action>`: the same answer, another one, or none; both answers are kept as texts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jobs.answers import extraction, values
from jobs.answers.extraction import Answer
from jobs.findings import Action, Finding, FindingKind
from worker.guards import detectors

#: The share of a job's budget that is kept for it, and the most tokens.
_SHARE = 4
_MOST_TOKENS = 512
#: The words around the question, in the model's context. Of the question no more tokens than characters are reckoned.
_WORDS_TOKENS = 64
#: With less it could say nothing.
_LEAST_TOKENS = 32

_ASK = "Look at the image again and check each visual claim.\n\n{question}"
_ASK_CJK = "请再看一遍图片，逐一核对你的描述。\n\n{question}"  # noqa: RUF001 - Chinese punctuation
_REFUSAL = re.compile(
    r"\b(?:can ?not|can['\u2019]?t|unable|unclear|unsure|not sure|unknown|n/?a)\b|无法|不能|不确定|看不清",
    re.IGNORECASE,
)


def ask(question: str) -> str:
    """Return the words that ask for a second look at the pictures of ``question``."""
    return (_ASK_CJK if detectors.in_cjk(question) else _ASK).replace("{question}", question)


def budget(tokens: int, question: str) -> tuple[int, int]:
    """Share a job's budget between its two looks.

    Args:
        tokens: the budget.
        question: it is put again, which costs tokens of the model's context.

    Returns:
        What the first look has, and what the second one may say; 0 when there is too little for one.
    """
    said = min(tokens // _SHARE, _MOST_TOKENS)
    first = tokens - said - _WORDS_TOKENS - len(question)
    return (first, said) if min(first, said) >= _LEAST_TOKENS else (tokens, 0)


class Verification:
    """Reads a second look to its end, and says what came of it.

    Args:
        first: the answer that is looked at once more.
        question: decides the language.
        answer_format: what the answer's value is to be, or None.
        generation: the stream's number.
    """

    finish_reason = "stop"
    more = False

    def __init__(
        self,
        first: Answer,
        *,
        question: str,
        answer_format: Mapping[str, Any] | None,
        generation: int,
    ) -> None:
        #: What came of it, once it has ended.
        self.found: Finding | None = None
        self._first = first
        self._question = question
        self._format = answer_format
        self._generation = generation

    def see(self, text: str) -> bool:
        """Let it speak."""
        del text
        return False

    def end(self, text: str, finish_reason: str) -> bool:
        """Take the whole text and compare."""
        del finish_reason
        self.found = self.finding(self._compared(text), len(text))
        return False

    def finding(self, action: Action, length: int) -> Finding:
        """Return what is kept of a second look that said ``length`` characters."""
        return Finding(
            FindingKind.VERIFY, generation=self._generation, start=0, end=length, action=action
        )

    def _compared(self, text: str) -> Action:
        second = extraction.extract(text)
        if second is None or self._refuses(second.text):
            return Action.DOUBTED
        if self._same(second.text):
            return Action.CONFIRMED
        if detectors.drifted(self._question, text, second.text):
            return Action.DOUBTED
        # What the format asked for had been said: a second answer that does not say it is none.
        known = values.read(self._first.text, self._format)
        if known is not None and values.read(second.text, self._format) is None:
            return Action.DOUBTED
        return Action.CORRECTED

    def _refuses(self, second: str) -> bool:
        """Whether an answer says that there is none. An option like "unknown" is one; so is what was said before."""
        if (self._format or {}).get("type") == "choice" and values.read(second, self._format):
            return False
        repeated = second.strip().casefold() == self._first.text.strip().casefold()
        return not repeated and _REFUSAL.search(second) is not None

    def _same(self, second: str) -> bool:
        value = values.read(second, self._format)
        if value is not None and value == values.read(self._first.text, self._format):
            return True
        return values.same(second, self._first.text)
