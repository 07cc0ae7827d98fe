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

from core import errors
from jobs import engine
from jobs.answers import extraction, folding, remarks, sections, values
from jobs.answers.extraction import Answer
from jobs.answers.statements import Remark
from jobs.findings import Action, Finding, FindingKind
from worker.equality import ComparisonStopped, SameAnswer
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

#: The rules that find an answer without a heading and without a box.
_LAST_RESORT = frozenset(("phrase", "label", "whole"))
#: Sentences at the end of a verification that say what came of it.
_LAST_SENTENCES = 3
#: Names of the answer in a remark.
_ANSWER = re.compile(
    r"\b(?:answer|result|count|conclusion|solution|response)\b|答案|结果|结论|回答|计数|判断",
    re.IGNORECASE,
)
#: The words before a stated answer.
_INTRODUCTION = re.compile(r"\b(?:answer|option|choice) is(?: therefore| thus)?\s+|答案[是为]")
#: An answer that is called correct: **6** is the correct answer, option **B** is right.
_CALLED = re.compile(
    r"\W*(?:(?:so|thus|therefore|hence|yes|and)\b,?\s)?(?:(?:the\s)?(?:option|choice|answer)\s)?(?P<answer>.{1,60}?)"
    r"\s(?:is|was)\s(?:indeed\s|therefore\s)?(?:the\s)?(?:correct|right)(?:\s(?:answer|option|choice|one|number))?\W*",
    re.IGNORECASE,
)
#: The letter of an option without a format: B, (b).
_OPTION_LETTER = re.compile(r"\(?[A-Ha-h]\)?\.?")
#: Between two clauses of a sentence.
_CLAUSES = re.compile(r"[;,:\uff0c\uff1b]\s?|\bbut\b")
#: A truth value in words that no remark uses.
_TRUTH = re.compile(
    r"\W*(?:(?:true|false|yes|no)\b|是(?!正|对|错|的)|是的|否|有(?!误|错|问)|没有(?!错|问|误))",
    re.IGNORECASE,
)
#: A question that offers alternatives.
_ALTERNATIVES = re.compile(r"\bor\b|还是|或")


class VerifyGuard(TraceGuard):
    """Adds a verification after an answer, if the budget has room for one.

    Args:
        request: the request of the generation that answers.
        answer_format: what the answer's value must be, or None.
        repeated: the question as the prompt repeats it, which takes tokens of the model's context.
        same: whether two answers to the question mean the same.
    """

    def __init__(
        self,
        request: engine.GenerationRequest,
        *,
        answer_format: Mapping[str, Any] | None,
        repeated: str,
        same: SameAnswer,
    ) -> None:
        self._request = request
        self._format = answer_format
        self._repeated = repeated
        self._same = same
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
            self._request,
            step,
            Comparison(step.standing.answer, self._request.question, self._format, self._same),
            tokens=tokens,
        )


class Verification(GuardedGeneration):
    """Reads a verification to its end and compares its answer with the first one.

    Args:
        request: the request of the generation that answered.
        step: the state of the attempt with that answer.
        comparison: compares its answer with that one.
        tokens: the most tokens of the verification.
    """

    def __init__(
        self,
        request: engine.GenerationRequest,
        step: AttemptStep,
        comparison: Comparison,
        *,
        tokens: int,
    ) -> None:
        text, output = step.standing.text, step.end.output
        inserted = (
            prompts.verification(request.question, images=bool(request.images))
            + request.instruction
        )
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
        self._comparison = comparison
        self._finding: Finding | None = None
        self._corrected: Answer | None = None

    @property
    def finding(self) -> Finding | None:
        """What came of it, once it has ended."""
        return self._finding

    def end(self, text: str, finish_reason: str) -> None:
        """Read the whole text and compare the answers; if that is not possible, the first one stands."""
        try:
            action, self._corrected = self._comparison.result(text, ended=finish_reason == "stop")
        except (errors.AnswersNotCompared, ComparisonStopped):
            action = Action.NONE
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
            standing = StandingAnswer(end.output, end, self._corrected)
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
        same: whether two answers to the question mean the same.
    """

    first: Answer
    question: str
    answer_format: Mapping[str, Any] | None
    same: SameAnswer

    def action(self, text: str, *, ended: bool) -> Action:
        """Return what a verification with this text comes to.

        Args:
            text: the text of the verification.
            ended: whether the model has ended it.

        Raises:
            ComparisonStopped: the job was stopped while the answers waited for their comparison.
            core.errors.AnswersNotCompared: the answers are formulas, and comparing them failed.
        """
        return self.result(text, ended=ended)[0]

    def result(self, text: str, *, ended: bool) -> tuple[Action, Answer | None]:
        """Return the same as :meth:`action`, and the answer that corrects the first one."""
        second = extraction.extract(text, ended=ended)
        last = self._last_words(text, second) if ended else None
        if isinstance(last, Remark):
            return Action.CONFIRMED if last is Remark.AFFIRMS else Action.DOUBTED, None
        second = last or second
        if second is None or self._refuses(second.text):
            return Action.DOUBTED, None
        if self.same(second.text, self.first.text):
            return Action.CONFIRMED, None
        if drifted(self.question, text, second.text):
            return Action.DOUBTED, None
        # The first answer has the requested format: a second one without it corrects nothing. A text without any
        # mark of an answer may be a thought.
        needed = self._value(self.first.text) is not None or second.rule == "whole"
        if needed and self._value(second.text) is None:
            return Action.DOUBTED, None
        return Action.CORRECTED, second

    def _value(self, text: str) -> values.Value:
        return sections.read(text, self.answer_format, self.question)

    def _last_words(self, text: str, second: Answer | None) -> Remark | Answer | None:
        """Return what the verification says about the first answer, or an answer that only sounds like a remark.

        A final answer under a heading or in a box counts as an answer, unless it is a remark: "My answer is correct."
        Otherwise the last sentences decide.
        """
        if second is not None and second.rule not in _LAST_RESORT:
            return None if self._states(second.text) else remarks.remark(second.text)
        for distance, sentence in enumerate(reversed(remarks.sentences(text)[-_LAST_SENTENCES:])):
            stated = self._stated(sentence) or self._called_correct(sentence)
            remark = remarks.remark(sentence)
            if stated is None and remark is Remark.DENIES:
                stated = self._correction(sentence)
            if stated is not None:
                return stated
            # Earlier sentences say "that is right" about other things than the answer.
            if remark is not None and (distance == 0 or _ANSWER.search(sentence)):
                return remark
            phrase = extraction.extract(sentence, ended=True)
            if phrase is not None and phrase.rule != "whole":
                return None
        return None

    def _called_correct(self, sentence: str) -> Answer | None:
        """Return the answer that a sentence calls correct, if it is the first one or an answer in the same form."""
        match = _CALLED.fullmatch(sentence)
        if match is None or (self.answer_format or {}).get("type") == "boolean":
            return None
        words = match["answer"]
        letters = all(map(_OPTION_LETTER.fullmatch, (words, self.first.text)))
        known = self._value(words) is not None or (self.answer_format is None and letters)
        return Answer(words, "phrase") if known or self.same(words, self.first.text) else None

    def _correction(self, sentence: str) -> Answer | None:
        """Return the answer that a sentence states after it denies the first one: it was wrong; the answer is 7."""
        clause = _CLAUSES.split(sentence)[-1]
        answer = extraction.extract(clause, ended=True) if clause != sentence else None
        states = answer is not None and answer.rule != "whole" and remarks.remark(clause) is None
        return answer if states else None

    def _stated(self, sentence: str) -> Answer | None:
        """Return the answer in a sentence whose words could also be a remark: the answer is right, or true."""
        introduction = _INTRODUCTION.search(sentence)
        if introduction is None:
            return None
        words = folding.unmarked(sentence[introduction.end() :]).strip(" .。!:,")
        match (self.answer_format or {}).get("type"):
            case "boolean":
                # "The answer is true" is a value; 答案是正确的 is about the answer.
                states = _TRUTH.match(words) is not None
            case "choice":
                states = self._value(words) is not None
            case _:
                states = self._offered(words)
        return Answer(words, "phrase") if states else None

    def _states(self, answer: str) -> bool:
        """Return whether a final answer is one in the job's format, or one of the words that the question offers."""
        return self._value(answer) is not None or self._offered(answer)

    def _offered(self, answer: str) -> bool:
        """Return whether the question offers the answer as an alternative: is it on the left or on the right?"""
        word, question = folding.folded(answer), folding.folded(self.question)
        alternatives = _ALTERNATIVES.search(question) is not None
        return (
            bool(word)
            and alternatives
            and re.search(rf"\b{re.escape(word)}\b", question) is not None
        )

    def _refuses(self, second: str) -> bool:
        """Return whether an answer says that no object exists; an option like "unknown" and the first answer do not."""
        answer_format = self.answer_format or {}
        if answer_format.get("type") == "choice" and self._value(second):
            return False
        repeated = folding.folded(second) == folding.folded(self.first.text)
        return not repeated and _REFUSAL.search(second) is not None
