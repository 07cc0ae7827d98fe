"""The budget guard: a trace without an answer is made to answer while tokens are left. Pure."""

from __future__ import annotations

from jobs.answers import extraction, model_refusals
from jobs.document import Document
from jobs.findings import FindingKind
from worker.guards.protocol import TraceGuard
from worker.guards.trace import GuardedTrace, Verdict

#: Characters within which a final answer must come to the end of a sentence, of a line, or of its box.
_LONGEST_ANSWER = 1500


class BudgetGuard(TraceGuard):
    """Forces an answer if the model stops or spends its tokens without one, or if a final answer does not end."""

    def see(self, trace: GuardedTrace) -> Verdict | None:
        """Return a verdict on a final answer that has begun and does not end."""
        if not trace.long_check_due:
            return None
        heading = extraction.heading(trace.document)
        if heading is None or trace.length - _progress(trace.document, heading) < _LONGEST_ANSWER:
            return None
        text = trace.text
        evidence = {"characters": len(text) - heading}
        finding = trace.finding(FindingKind.NO_ANSWER, heading, len(text), evidence, spared=True)
        return trace.force(finding, text, heading)

    def end(self, trace: GuardedTrace, finish_reason: str) -> Verdict | None:
        """Return a verdict on a trace that ended without an answer; a refusal is left alone."""
        ended = finish_reason == "stop"
        if trace.answer(ended=ended) is not None:
            return None
        text = trace.text
        if ended and (trace.typed or model_refusals.refuses(text)):
            return None
        if not ended:
            # The engine counted them: a stream ends for its length at no other number.
            trace.tokens = trace.limit
        if not trace.may_force:
            return None
        if ended:
            finding = trace.finding(FindingKind.NO_ANSWER, 0, len(text), {"characters": len(text)})
        else:
            finding = trace.finding(FindingKind.BUDGET, 0, len(text), {"tokens": trace.limit})
        heading = extraction.heading(trace.document)
        return trace.force(finding, text, len(text) if heading is None else heading)


def _progress(document: Document, heading: int) -> int:
    """Return where the last part of a final answer ends: a box, a sentence, or a line."""
    boxes, stops = document.boxes, document.stops
    if boxes and boxes[-1].start > heading:
        # The answer is complete, whatever follows.
        return len(document)
    if document.opened_box > heading:
        return document.opened_box
    last = stops[-1] if stops else 0
    return max(heading, last, document.text.rfind("\n") + 1)
