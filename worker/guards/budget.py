"""The budget guard: a trace that spends its tokens without an answer is made to answer. Pure."""

from __future__ import annotations

from jobs.answers import extraction
from jobs.findings import FindingKind
from worker.guards.protocol import TraceGuard
from worker.guards.trace import GuardedTrace, Verdict

#: Characters after the heading of a final answer within which the answer must end.
_LONGEST_ANSWER = 1500


class BudgetGuard(TraceGuard):
    """Forces an answer when the tokens are spent, or when a final answer does not end."""

    def see(self, trace: GuardedTrace) -> Verdict | None:
        """Return a verdict on a final answer that has begun and does not end."""
        if not trace.long_check_due:
            return None
        text = trace.text
        heading = extraction.heading(text)
        if heading is None or len(text) - heading < _LONGEST_ANSWER:
            return None
        # A box before this heading does not hold the answer that the heading announces.
        if extraction.extract(text[heading:]):
            return None
        evidence = {"characters": len(text) - heading}
        finding = trace.finding(FindingKind.NO_ANSWER, heading, len(text), evidence, spared=True)
        return trace.force(finding, text, heading)

    def end(self, trace: GuardedTrace, finish_reason: str) -> Verdict | None:
        """Return a verdict on a trace that spent its tokens without an answer."""
        text = trace.text
        if finish_reason != "length" or extraction.extract(text) is not None:
            return None
        # The engine counted them: a stream ends for its length at no other number.
        trace.tokens = trace.limit
        if not trace.may_force:
            return None
        finding = trace.finding(FindingKind.BUDGET, 0, len(text), {"tokens": trace.limit})
        heading = extraction.heading(text)
        return trace.force(finding, text, len(text) if heading is None else heading)
