"""The loop guard: a trace that repeats itself, verbatim or in other words, is cut after its first copy. Pure."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

from jobs import scripts
from jobs.findings import FindingKind
from worker.guards.protocol import Guard
from worker.guards.trace import TAIL, GuardedTrace, Verdict

# Verbatim loops. Periods are in characters, because a loop of tokens is a loop of characters with any tokenizer.
_COPIES = 4
_LEAST_SPAN = 256
_PROBE = 24
_PROBES = 64
_LONGEST_PERIOD = (TAIL - _PROBE) // _COPIES
#: Rules of tables, blank lines, leaders: they repeat by nature, so only a very long run of them is a loop.
_RULE = re.compile(r"[-|_=\s.:+*~#]*+", re.ASCII)
_LEAST_RULE_SPAN = 4000
#: Rows of a table or a matrix are often alike, so it takes more of them.
_CELLS = ("|", "&")
_LEAST_CELLS_SPAN = 2000

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
_SENTENCE_END = re.compile(r"[.!?。！？\n]+")  # noqa: RUF001 - what Chinese sentences end with
#: Counts and separators, in digits and Chinese numerals: "第三次" means the same as "第四次".
_COUNTS = re.compile(r"\W+|[\d〇零一二两三四五六七八九十百千]+")  # noqa: RUF001 - Chinese zero
_HEDGE = re.compile(
    r"\b(?:wait|hmm|alternatively|let me (?:re|double)[- ]?(?:check|count|examine|think))\b"
    r"|等等|让我(?:再|重新)|或者说|不对",
    re.IGNORECASE,
)


class LoopGuard(Guard):
    """Cuts a trace that repeats itself, and forces an answer unless the trace already has one."""

    def see(self, trace: GuardedTrace) -> Verdict | None:
        """Return a verdict on a trace that repeats itself."""
        if period := tail_period(trace.tail):
            return _verbatim(trace, period)
        if trace.long_check_due and trace.tokens >= _PARAPHRASE_TOKENS:
            measured = signals(trace.tail)
            if paraphrases(measured):
                return _paraphrased(trace, measured)
        return None


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
    return trace.stop(finding, text, sentence.end() if sentence else at)


def _paraphrased(trace: GuardedTrace, measured: LoopSignals) -> Verdict:
    text = trace.text
    start = max(0, len(text) - _WINDOW)
    sentence = _SENTENCE_END.search(text, start)
    start = sentence.end() if sentence else start
    evidence = {
        "repeated_sentences": round(measured.repeated, 2),
        "hedges_per_1000": round(measured.hedges, 1),
        "compressed": round(measured.compressed, 2),
    }
    finding = trace.finding(FindingKind.PARAPHRASE_LOOP, start, len(text), evidence, spared=True)
    return trace.stop(finding, text, start)


def tail_period(tail: str) -> int:
    """Return the shortest period, in characters, in which the end of ``tail`` repeats itself; 0 if it does not."""
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
    """Return whether ``tail`` ends with enough copies of its last ``period`` characters."""
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
    """How much a text repeats itself.

    Attributes:
        repeated: share of its last sentences that occurred before.
        hedges: "wait", "hmm", "等等" per 1,000 characters.
        compressed: its compressed size, as a share of its own.
    """

    repeated: float
    hedges: float
    compressed: float


def signals(text: str) -> LoopSignals:
    """Return the signals of the end of ``text``."""
    window = text[-_WINDOW:]
    sentences = [
        _COUNTS.sub(" ", sentence).strip().lower() for sentence in _SENTENCE_END.split(window)
    ]
    sentences = [text for text in sentences if scripts.length(text) >= _LEAST_SENTENCE]
    last = sentences[-_SENTENCES:]
    enough = len(last) >= _LEAST_SENTENCES
    data = window.encode("utf-8", "replace")
    return LoopSignals(
        repeated=1 - len(set(last)) / len(last) if enough else 0.0,
        hedges=1000 * len(_HEDGE.findall(window)) / max(1, len(window)),
        compressed=len(zlib.compress(data, 6)) / max(1, len(data)),
    )


def paraphrases(measured: LoopSignals) -> bool:
    """Return whether two of the three signals say that a text repeats itself."""
    seen = (
        measured.repeated >= _REPEATED,
        measured.hedges >= _HEDGES,
        measured.compressed <= _COMPRESSED,
    )
    return sum(seen) >= 2  # noqa: PLR2004 - two of three
