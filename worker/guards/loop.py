"""The loop guard: a trace that repeats itself, verbatim or in other words, is cut after its first copy. Pure."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from jobs import scripts
from jobs.findings import Finding, FindingKind
from worker.guards import counting, sections
from worker.guards.protocol import TraceGuard
from worker.guards.trace import GuardedTrace, Verdict

# Verbatim loops. Periods are in characters, because a loop of tokens is a loop of characters with any tokenizer.
# Honest text has no block of 200 characters three times in a row, so long periods need fewer copies.
_COPIES = ((200, 4.0), (1000, 3.7), (6000, 2.5))
_LEAST_SPAN = 256
_PROBE = 24
_PROBES = 64
_LONGEST_PERIOD = 6000
#: Periods up to the first length are looked for at each check, longer ones and repeated answers at each fourth.
_SHORT_PERIOD = 1000
_EVERY = 4
#: Characters that are compared first.
_FIRST = 200
#: Rules of tables, blank lines, leaders: they repeat by nature, so only a very long run of them is a loop. An empty
#: grid has many lines of them.
_RULE = re.compile(r"[-|_=\s.:+*~#]*+", re.ASCII)
_LEAST_RULE_SPAN = 1500
_LEAST_RULES_SPAN = 4000
#: Rows of a table or a matrix are often alike, so it takes more of them.
_CELLS = ("|", "&")
_LEAST_CELLS_SPAN = 2000
#: So are the lines of a list, of a receipt and of code: they do not end like sentences, and are no formulas.
_LEAST_LINES_SPAN = 1000
_LONGEST_LINE = 120
#: What an item, an amount, or a statement of code has, and a thought in words does not.
_ITEM_SIGN = re.compile(r"[\d{}()\[\];:=<>]|^\s*+[-*+•]\s", re.MULTILINE)
_FORMULAS = ("$", "\\")
_STOPS = (".", "!", "?", "…", "。", "！", "？")  # noqa: RUF001 - what Chinese sentences end with

# Paraphrases: two of three signals over the last characters. The thresholds lie far from both measured kinds:
# repeated sentences 0.93 against 0.0, hedges per 1,000 characters 40 against 0.8, compressed size 0.03 against 0.54.
_PARAPHRASE_TOKENS = 1000
_WINDOW = 4000
_SENTENCES = 40
_LEAST_SENTENCES = 12
#: In letters. Shorter sentences say too little to count as repeated.
_LEAST_SENTENCE = 8
_REPEATED = 0.6
_HEDGES = 10.0
_COMPRESSED = 0.12
#: The compressed size of a long count without end, whose numbers differ.
_ALIKE = 0.2
#: Characters of a text as alike as a loop that is no loop because it counts: a count of 300 objects is shorter.
_LONGEST_ALIKE = 16_000
#: The number of an item of a list.
_LABEL = re.compile(r"\s*+\d{1,6}[.)、:：]\s*+")  # noqa: RUF001 - Chinese punctuation
_SENTENCE_END = re.compile(r"[.!?。！？\n]+")  # noqa: RUF001 - what Chinese sentences end with
#: A period after a number can belong to a list or an ordinal.
_SENTENCE = re.compile(r"(?:(?<![0-9])\.|[!?。！？\n])++")  # noqa: RUF001 - what Chinese sentences end with
#: Counts and separators, in digits and Chinese numerals: "第三次" means the same as "第四次".
_COUNTS = re.compile(r"\W+|[\d〇零一二两三四五六七八九十百千]+")  # noqa: RUF001 - Chinese zero
#: The most sentences and characters of an item of a count.
_ITEM_SENTENCES = 6
_ITEM_CHARS = 120
#: Letters of sentences that say too much for several of them to be alike in turn.
_LONG_SENTENCE = 40
#: The numbers of attempts rise as well, but they count nothing in the image.
_ATTEMPT = re.compile(r"第\s+[次遍回]|\b(?:attempt|try|time|recount|check)\b")
_HEDGE = re.compile(
    r"\b(?:wait|hmm|alternatively|let me (?:re|double)[- ]?(?:check|count|examine|think))\b"
    r"|等等|让我(?:再|重新)|或者说|不对",
    re.IGNORECASE,
)


class LoopGuard(TraceGuard):
    """Cuts a trace that repeats itself or counts without end, and forces an answer unless the trace already has one."""

    def __init__(self) -> None:
        self._checks = 0
        self._answers = sections.FinalAnswers()
        self._counter = counting.Counter()
        #: Where the end of the text that is all alike begins.
        self._alike_from = 0

    def see(self, trace: GuardedTrace) -> Verdict | None:
        """Return a verdict on a trace that repeats itself."""
        self._checks += 1
        every = self._checks % _EVERY == 0
        if (trace.long_check_due or (every and self._answers.begun)) and (
            repeated := self._answers.see(trace.document)
        ):
            return _answered_again(trace, repeated)
        if period := tail_period(trace.tail, _LONGEST_PERIOD if every else _SHORT_PERIOD):
            return _verbatim(trace, period)
        return self._long_check(trace) if trace.long_check_due else None

    def _long_check(self, trace: GuardedTrace) -> Verdict | None:
        """Return a verdict on a text that counts without end, or says the same in other words."""
        tail = trace.tail
        compressed = _compressed(tail)
        count = self._counter.see(tail, trace.length - len(tail), alike=compressed <= _ALIKE)
        if count is not None:
            return _endless(trace, count)
        if trace.tokens < _PARAPHRASE_TOKENS:
            return None
        measured = signals(tail, compressed)
        if paraphrases(measured):
            return _paraphrased(trace, measured, max(0, trace.length - _WINDOW))
        if compressed > _COMPRESSED:
            self._alike_from = trace.length
        elif trace.length - self._alike_from >= _LONGEST_ALIKE:
            return _paraphrased(trace, measured, self._alike_from, standing=_WINDOW)
        return None


def _answered_again(trace: GuardedTrace, repeated: sections.RepeatedAnswer) -> Verdict:
    evidence = {"period": repeated.period, "copies": 2}
    finding = trace.finding(FindingKind.LOOP, repeated.start, trace.length, evidence, spared=True)
    return trace.keep(finding, trace.text, repeated.end)


def _verbatim(trace: GuardedTrace, period: int) -> Verdict:
    text = trace.text
    start = len(text) - period
    while start and text[start - 1] == text[start - 1 + period]:
        start -= 1
    evidence = {"period": period, "copies": (len(text) - start) // period}
    finding = trace.finding(FindingKind.LOOP, start, len(text), evidence, spared=True)
    # The first copy is a thought like any other, and the answer may depend on it.
    at = start + period
    sentence = _SENTENCE_END.search(text, at, at + period)
    return _cut(trace, finding, sentence.end() if sentence else at, until=at + period)


def _endless(trace: GuardedTrace, count: counting.EndlessCount) -> Verdict:
    text = trace.text
    evidence = {"items": count.items}
    finding = trace.finding(
        FindingKind.PARAPHRASE_LOOP, count.start, len(text), evidence, spared=True
    )
    return _cut(trace, finding, count.standing, until=len(text))


def _paraphrased(
    trace: GuardedTrace, measured: LoopSignals, start: int, *, standing: int = 0
) -> Verdict:
    """Cut the paraphrases from ``start`` on, but for the first ``standing`` characters."""
    text = trace.text
    sentence = _SENTENCE_END.search(text, start)
    start = sentence.end() if sentence else start
    evidence = {
        "repeated_sentences": round(measured.repeated, 2),
        "hedges_per_1000": round(measured.hedges, 1),
        "compressed": round(measured.compressed, 2),
    }
    finding = trace.finding(FindingKind.PARAPHRASE_LOOP, start, len(text), evidence, spared=True)
    at = start
    if standing:
        sentence = _SENTENCE_END.search(text, start + standing)
        at = sentence.end() if sentence else start + standing
    return _cut(trace, finding, at, until=len(text))


def _cut(trace: GuardedTrace, finding: Finding, at: int, *, until: int) -> Verdict:
    """Cut at a place, or after the final answer before it, which can end up to ``until``."""
    text = trace.text
    answer = sections.answer_before(text, at, until)
    return trace.stop(finding, text, at) if answer is None else trace.keep(finding, text, answer)


def tail_period(tail: str, longest: int = _LONGEST_PERIOD) -> int:
    """Return the shortest period in which the end of ``tail`` repeats itself; 0 if it does not.

    Args:
        tail: the end of a text.
        longest: the longest period, in characters.
    """
    if len(tail) < _LEAST_SPAN:
        return 0
    probe = tail[-_PROBE:]
    end = len(tail) - 1
    for _ in range(_PROBES):
        at = tail.rfind(probe, max(0, len(tail) - _PROBE - longest), end)
        if at < 0:
            return 0
        period = len(tail) - _PROBE - at
        if _repeats(tail, period):
            return period
        end = at + _PROBE - 1
    return 0


def _repeats(tail: str, period: int) -> bool:
    """Return whether ``tail`` ends with enough copies of its last ``period`` characters."""
    first = min(_FIRST, len(tail) - period)
    if tail[-first:] != tail[-first - period : -period]:
        return False
    copy = tail[-period:]
    if _RULE.fullmatch(copy):
        least = _LEAST_RULES_SPAN if "\n" in copy else _LEAST_RULE_SPAN
    elif any(mark in copy for mark in _CELLS):
        least = _LEAST_CELLS_SPAN
    elif _lists(copy):
        least = _LEAST_LINES_SPAN
    else:
        least = _LEAST_SPAN
    copies = next(copies for longest, copies in _COPIES if period <= longest)
    span = max(int(copies * period), least)
    rest = span - period
    return span <= len(tail) and tail[-rest:] == tail[-span:-period]


def _lists(copy: str) -> bool:
    """Return whether the lines of a text are items of a list, of a receipt or of code, and no sentences."""
    first, *lines = copy.split("\n")
    if not lines:
        return False
    # The copy can start inside of a line.
    lines[-1] += first
    if any(mark in copy for mark in _FORMULAS) or not _ITEM_SIGN.search("\n".join(lines)):
        return False
    return all(len(line) <= _LONGEST_LINE and not line.rstrip().endswith(_STOPS) for line in lines)


@dataclass(frozen=True)
class LoopSignals:
    """How much a text repeats itself.

    Attributes:
        repeated: share of its last sentences that occurred before; 0 for a count, whose numbers rise.
        hedges: "wait", "hmm", "等等" per 1,000 characters.
        compressed: its compressed size, as a share of its own.
    """

    repeated: float
    hedges: float
    compressed: float


def signals(text: str, compressed: float) -> LoopSignals:
    """Return the signals of the end of ``text``, whose compressed size is known."""
    window = text[-_WINDOW:]
    return LoopSignals(
        repeated=_repeated(window),
        hedges=1000 * len(_HEDGE.findall(window)) / max(1, len(window)),
        compressed=compressed,
    )


def _compressed(text: str) -> float:
    data = text[-_WINDOW:].encode("utf-8", "replace")
    return len(zlib.compress(data, 6)) / max(1, len(data))


def _repeated(window: str) -> float:
    """Return the share of the last sentences that occurred before, but for their numbers; 0 if they count."""
    sentences = _SENTENCE.split(window)
    forms = [_COUNTS.sub(" ", sentence).strip().lower() for sentence in sentences]
    long = [form for form in forms if scripts.length(form) >= _LEAST_SENTENCE]
    last = long[-_SENTENCES:]
    if len(last) < _LEAST_SENTENCES:
        return 0.0
    repeated = 1 - len(set(last)) / len(last)
    if repeated < _REPEATED:
        return repeated
    counting_ = [
        sentence
        for sentence, form in zip(sentences, forms, strict=True)
        if not _ATTEMPT.search(form)
    ]
    # The last sentence may be incomplete.
    if _turns(last[:-1]):
        # The same thoughts in turn are no count because they are a list with numbers.
        counting_ = [_LABEL.sub("", sentence, count=1) for sentence in counting_]
    items = counting.count(counting_)
    # An item can have several sentences, and only one of them a number.
    counted = items * _ITEM_SENTENCES >= len(long) and items * _ITEM_CHARS >= len(window)
    return 0.0 if counted else repeated


def _turns(forms: Sequence[str]) -> bool:
    """Return whether long sentences follow each other in the same order again and again, numbered or not."""
    if len(set(forms)) == 1 or sum(map(len, forms)) < _LONG_SENTENCE * len(forms):
        return False
    return any(
        all(left == right for left, right in zip(forms, forms[period:], strict=False))
        for period in range(2, len(forms) // 2)
    )


def paraphrases(measured: LoopSignals) -> bool:
    """Return whether two of the three signals say that a text repeats itself."""
    seen = (
        measured.repeated >= _REPEATED,
        measured.hedges >= _HEDGES,
        measured.compressed <= _COMPRESSED,
    )
    return sum(seen) >= 2  # noqa: PLR2004 - two of three
