r"""Detectors of what QVQ does wrong, over the growing text of one stream. Pure: they say what to do, and do nothing.

Loops are looked for while the text grows; a budget that is used up and an answer in the wrong language at its
end. Each gives a :class:`Verdict`: the finding, and from where and with which words the model is to go on.
"""

from __future__ import annotations

import dataclasses
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from jobs import scripts
from jobs.answers import extraction
from jobs.findings import Action, Finding, FindingKind

#: The names of the guards, as a job's options have them.
NAMES = ("loop", "budget", "convergence", "language", "verify")

#: Most tokens of a forced answer.
FORCED_TOKENS = 64
#: Tokens that a guarded stream leaves of the job's budget: the forced answer and the words that ask for it.
RESERVE_TOKENS = FORCED_TOKENS + 16
#: A smaller budget is worth no reserve: the job then gets all of it at once, and no forced answer at its end.
_LEAST_RESERVED = 256
#: With fewer tokens left no answer is asked for: it would not come to its end.
_LEAST_FORCED = 8

_HEADING = "\n\n**Final Answer**\n\n"
_HEADING_CJK = "\n\n**最终答案**\n\n"
_BOX = "\\[ \\boxed{"

# Verbatim loops. Periods are in characters; what is a loop in any tokenizer is one in characters.
_LONGEST_PERIOD = 2000
_COPIES = 4
_LEAST_SPAN = 256
_LEAST_TOKENS = 64
_PROBE = 24
_PROBES = 64
_LOOK_EVERY = 64
_TAIL = _LONGEST_PERIOD * _COPIES + _PROBE
#: Rules of tables, blank lines, leaders: they repeat by nature, so only a very long run of them is a loop.
_RULE = re.compile(r"[-|_=\s.:+*~#]*+", re.ASCII)
_LEAST_RULE_SPAN = 4000
#: Rows of a table or a matrix may well be alike, so it takes more of them.
_CELLS = ("|", "&")
_LEAST_CELLS_SPAN = 2000

# Paraphrases: two of three signals over the last characters. The thresholds lie far from both kinds measured:
# repeated sentences 0.93 against 0.0, hedges per 1,000 characters 40 against 0.8, compressed size 0.03 against 0.54.
_PARAPHRASE_TOKENS = 1000
_VERIFICATION_EVERY = 1024
#: Characters after the heading of a final answer within which it ought to end.
_LONGEST_ANSWER = 1500
_WINDOW = 4000
_SENTENCES = 40
_LEAST_SENTENCES = 12
#: In letters. Shorter ones say too little to be the same.
_LEAST_SENTENCE = 8
_REPEATED = 0.6
_HEDGES = 10.0
_COMPRESSED = 0.12
_SENTENCE_END = re.compile(r"[.!?。！？\n]+")  # noqa: RUF001 - what Chinese sentences end with
#: What counts and parts words, in digits and Chinese numerals: "第三次" says the same as "第四次".
_COUNTS = re.compile(r"\W+|[\d〇零一二两三四五六七八九十百千]+")  # noqa: RUF001 - Chinese zero
_HEDGE = re.compile(
    r"\b(?:wait|hmm|alternatively|let me (?:re|double)[- ]?(?:check|count|examine|think))\b"
    r"|等等|让我(?:再|重新)|或者说|不对",
    re.IGNORECASE,
)

_DRIFT_WINDOW = 1000


@dataclass(frozen=True)
class Verdict:
    """A finding acted upon: ``stored`` characters of the text stand; go on after ``inserted``, unless it is empty."""

    finding: Finding
    stored: int
    inserted: str = field(repr=False)


class GenerationGuard:
    """Guards one stream.

    Args:
        guards: which guards are on, by name; one that is missing is off.
        question: decides the language.
        generation: the stream's number.
        budget: the job's, in tokens, without those for a second look; the stream gets :attr:`limit` of them.
        verification: most tokens of a second look at the answer; 0: there is none.
        typed: whether the answer comes in a stream of its own in any case, which has tokens of its own.
    """

    def __init__(
        self,
        guards: Mapping[str, bool],
        *,
        question: str,
        generation: int,
        budget: int,
        verification: int = 0,
        typed: bool = False,
    ) -> None:
        self._guards = guards
        self._question = question
        self._generation = generation
        reserve = 0 if typed else reserved(guards, budget)
        self._budget = budget
        self._typed = typed
        #: Most tokens of the stream.
        self.limit = budget - reserve
        self.verification = verification
        #: Whether answers are to be asked for on the way.
        self.probes = bool(guards.get("convergence"))
        #: What to do, once that is known.
        self.verdict: Verdict | None = None
        self._tokens = 0
        self._parts: list[str] = []
        self._length = 0
        self._fresh: list[str] = []
        self._fresh_length = 0
        self._tail = ""
        self._verification_at = _VERIFICATION_EVERY

    #: How a stream ends that is stopped by its watch.
    finish_reason = "cut"

    @property
    def more(self) -> bool:
        """Whether another stream is to go on from this one."""
        cut = self.verdict is not None and bool(self.verdict.inserted)
        return cut or bool(self.verification)

    @property
    def tokens(self) -> int:
        """Tokens seen so far."""
        return self._tokens

    @property
    def text(self) -> str:
        """What has been seen so far."""
        return "".join(self._parts)

    @property
    def found(self) -> Finding | None:
        """What was found, once something was."""
        return self.verdict.finding if self.verdict is not None else None

    @property
    def forced_tokens(self) -> int:
        """Most tokens of a forced answer: of those of the job that are left."""
        return min(FORCED_TOKENS, max(1, self._budget - self._tokens))

    def billed(self, tokens: int) -> None:
        """Take it that the stream had ``tokens`` tokens: more than chunks were seen, if its engine stopped late.

        When they leave none for an answer that was to be asked for, none is.
        """
        self._tokens = max(self._tokens, tokens)
        verdict = self.verdict
        if verdict is not None and verdict.inserted and not self._may_force:
            reported = verdict.finding
            action = Action.NONE if reported.kind is FindingKind.LANGUAGE else Action.STOPPED
            stored = len(self.text) if reported.kind is FindingKind.LANGUAGE else verdict.stored
            self.verdict = Verdict(dataclasses.replace(reported, action=action), stored, "")

    def see(self, text: str) -> Verdict | None:
        """Take a chunk's text; return what to do when the stream has begun to run away."""
        self.verdict = self._see(text)
        return self.verdict

    def end(self, text: str, finish_reason: str) -> Verdict | None:
        """Take the whole text of a stream that has stopped by itself; return what to do about its end."""
        self.verdict = self._end(text, finish_reason)
        return self.verdict

    def converged(self, stored: int, evidence: Mapping[str, float]) -> Verdict:
        """Take it that the answer has been the same since before the first ``stored`` characters."""
        finding = self._finding(
            FindingKind.CONVERGED, stored, self._length, evidence, saved=self.limit - self._tokens
        )
        self.verdict = self._forced(finding, self.text, stored)
        return self.verdict

    def _see(self, text: str) -> Verdict | None:
        self._tokens += 1
        self._parts.append(text)
        self._length += len(text)
        self._fresh.append(text)
        self._fresh_length += len(text)
        if self._fresh_length < _LOOK_EVERY or self._tokens < _LEAST_TOKENS:
            return None
        self._tail = (self._tail + "".join(self._fresh))[-_TAIL:]
        self._fresh.clear()
        self._fresh_length = 0
        if self._guards.get("loop") and (period := tail_period(self._tail)):
            return self._verbatim(self.text, period)
        if self._length < self._verification_at:
            return None
        self._verification_at = self._length + _VERIFICATION_EVERY
        if self._guards.get("loop") and self._tokens >= _PARAPHRASE_TOKENS:
            signs = signals(self._tail)
            if loops_in_other_words(signs):
                return self._paraphrased(self.text, signs)
        return self._unending(self.text) if self._guards.get("budget") else None

    def _unending(self, text: str) -> Verdict | None:
        """Return what to do about a final answer that was begun and does not come to its end."""
        heading = extraction.heading(text)
        if heading is None or len(text) - heading < _LONGEST_ANSWER:
            return None
        # An earlier box is not what this heading announces.
        if extraction.extract(text[heading:]):
            return None
        finding = self._finding(
            FindingKind.NO_ANSWER,
            heading,
            len(text),
            {"characters": len(text) - heading},
            saved=self.limit - self._tokens,
        )
        return self._forced(finding, text, heading)

    def _end(self, text: str, finish_reason: str) -> Verdict | None:
        found = extraction.extract(text)
        if found is None:
            if finish_reason != "length" or not self._guards.get("budget"):
                return None
            # Of what the engine counted a chunk may have had several.
            self._tokens = self.limit
            if not self._may_force:
                return None
            finding = self._finding(FindingKind.BUDGET, 0, len(text), {"tokens": self.limit})
            heading = extraction.heading(text)
            return self._forced(finding, text, len(text) if heading is None else heading)
        if self._guards.get("language") and drifted(self._question, text, found.text):
            finding = self._finding(
                FindingKind.LANGUAGE,
                0,
                len(text),
                {
                    "question": scripts.cjk_share(self._question) or 0.0,
                    "answer": scripts.cjk_share(found.text) or 0.0,
                    "trace": scripts.cjk_share(text) or 0.0,
                },
            )
            if not self._may_force:
                return Verdict(dataclasses.replace(finding, action=Action.NONE), len(text), "")
            heading = extraction.heading(text)
            return self._forced(finding, text, len(text) if heading is None else heading)
        return None

    def _verbatim(self, text: str, period: int) -> Verdict:
        start = len(text) - period
        while start and text[start - 1] == text[start - 1 + period]:
            start -= 1
        copies = (len(text) - start) // period
        finding = self._finding(
            FindingKind.LOOP,
            start,
            len(text),
            {"period": period, "copies": copies},
            saved=self.limit - self._tokens,
        )
        # The first copy is a thought like any other, and may hold what the answer is to rest upon.
        at = start + period
        sentence = _SENTENCE_END.search(text, at, at + period)
        return self._stopped(finding, text, sentence.end() if sentence else at)

    def _paraphrased(self, text: str, signs: LoopSignals) -> Verdict:
        start = max(0, len(text) - _WINDOW)
        sentence = _SENTENCE_END.search(text, start)
        start = sentence.end() if sentence else start
        finding = self._finding(
            FindingKind.PARAPHRASE_LOOP,
            start,
            len(text),
            {
                "repeated_sentences": round(signs.repeated, 2),
                "hedges_per_1000": round(signs.hedges, 1),
                "compressed": round(signs.compressed, 2),
            },
            saved=self.limit - self._tokens,
        )
        return self._stopped(finding, text, start)

    @property
    def _may_force(self) -> bool:
        """Whether enough tokens are left for an answer; one in JSON has its own."""
        return self._typed or self._budget - self._tokens >= _LEAST_FORCED

    def _forced(self, finding: Finding, text: str, at: int) -> Verdict:
        stored = len(text[:at].rstrip())
        if not self._may_force:
            return Verdict(dataclasses.replace(finding, action=Action.STOPPED), stored, "")
        return Verdict(finding, stored, ask(self._question))

    def _stopped(self, finding: Finding, text: str, at: int) -> Verdict:
        """Cut a loop off; a model that had answered before it needs no second answer."""
        found = extraction.extract(text[:at])
        if found is not None and found.rule == "heading+boxed":
            return Verdict(dataclasses.replace(finding, action=Action.STOPPED), at, "")
        return self._forced(finding, text, at)

    def _finding(
        self,
        kind: FindingKind,
        start: int,
        end: int,
        evidence: Mapping[str, float],
        *,
        saved: int = 0,
    ) -> Finding:
        return Finding(
            kind=kind,
            generation=self._generation,
            start=start,
            end=end,
            action=Action.FORCED,
            evidence=evidence,
            tokens_saved=max(0, saved),
        )


def reserved(guards: Mapping[str, bool], budget: int) -> int:
    """Return how many of a job's ``budget`` tokens its first stream leaves for a forced answer."""
    return RESERVE_TOKENS if guards.get("budget") and budget >= _LEAST_RESERVED else 0


def ask(question: str) -> str:
    """Return the words after which a model has nothing left but to answer, in the question's script."""
    return heading(question) + _BOX


def heading(question: str) -> str:
    """Return the heading of a final answer, in the question's script."""
    return _HEADING_CJK if in_cjk(question) else _HEADING


def in_cjk(question: str) -> bool:
    """Whether more than half of ``question`` is in a CJK script."""
    return (scripts.cjk_share(question) or 0.0) > 0.5  # noqa: PLR2004 - more than half


def tail_period(tail: str) -> int:
    """Return the shortest period (characters) in which the end of ``tail`` repeats itself, 0 when it does not."""
    if len(tail) < _LEAST_SPAN:
        return 0
    probe = tail[-_PROBE:]
    end = len(tail) - 1
    for _ in range(_PROBES):
        at = tail.rfind(probe, max(0, len(tail) - _PROBE - _LONGEST_PERIOD), end)
        if at < 0:
            return 0
        period = len(tail) - _PROBE - at
        if _repeats(tail, period):
            return period
        end = at + _PROBE - 1
    return 0


def _repeats(tail: str, period: int) -> bool:
    """Whether ``tail`` ends with enough copies of its last ``period`` characters."""
    if _RULE.fullmatch(tail, len(tail) - period):
        least = _LEAST_RULE_SPAN
    elif any(mark in tail[-period:] for mark in _CELLS):
        least = _LEAST_CELLS_SPAN
    else:
        least = _LEAST_SPAN
    copies = max(_COPIES, -(-least // period))
    rest = period * (copies - 1)
    return rest + period <= len(tail) and tail[-rest:] == tail[-rest - period : -period]


@dataclass(frozen=True)
class LoopSignals:
    """How much a text goes in circles.

    Attributes:
        repeated: share of its last sentences that came before.
        hedges: "wait", "hmm", "等等" per 1,000 characters.
        compressed: its compressed size, as a share of its own.
    """

    repeated: float
    hedges: float
    compressed: float


def signals(text: str) -> LoopSignals:
    """Return the signals of the end of ``text``."""
    window = text[-_WINDOW:]
    said = [_COUNTS.sub(" ", sentence).strip().lower() for sentence in _SENTENCE_END.split(window)]
    said = [one for one in said if scripts.length(one) >= _LEAST_SENTENCE][-_SENTENCES:]
    enough = len(said) >= _LEAST_SENTENCES
    data = window.encode("utf-8", "replace")
    return LoopSignals(
        repeated=1 - len(set(said)) / len(said) if enough else 0.0,
        hedges=1000 * len(_HEDGE.findall(window)) / max(1, len(window)),
        compressed=len(zlib.compress(data, 6)) / max(1, len(data)),
    )


def loops_in_other_words(signs: LoopSignals) -> bool:
    """Whether two of the three signals say that a text goes in circles."""
    signs_of_it = (
        signs.repeated >= _REPEATED,
        signs.hedges >= _HEDGES,
        signs.compressed <= _COMPRESSED,
    )
    return sum(signs_of_it) >= 2  # noqa: PLR2004 - two of three


def drifted(question: str, trace: str, answer: str) -> bool:
    """Whether an answer is in another script than its question, because the trace had gone over to it.

    A trace in the question's own language may well quote a sign or a name in another: that is no drift.
    """
    # Latin letters in an answer to a Chinese question are names and units more often than English.
    if scripts.cjk_share(question) != 0:
        return False
    words = (scripts.cjk_share(answer), scripts.cjk_share(trace[-_DRIFT_WINDOW:]))
    return min(share or 0.0 for share in words) > 0.5  # noqa: PLR2004 - more than half


def box_closed(said: str) -> bool:
    """Whether ``said``, which goes on inside an open brace, has closed it. An escaped brace counts as none."""
    depth = 1
    escaped = False
    for character in said:
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


class BoxReader:
    """Reads a forced answer until its box is closed.

    Args:
        more: whether another stream is to go on from it.
    """

    finish_reason = "stop"
    found = None

    def __init__(self, *, more: bool = False) -> None:
        self.more = more
        self._said = ""

    def see(self, text: str) -> bool:
        """Take a chunk's text; return whether the box is closed."""
        self._said += text
        return box_closed(self._said)

    def end(self, text: str, finish_reason: str) -> bool:
        """Want nothing more, whatever was said."""
        del text, finish_reason
        return False
