"""The language guard: asks again for an answer that drifted into another script than its question. Pure."""

from __future__ import annotations

from jobs import scripts
from jobs.answers import extraction
from jobs.findings import FindingKind
from worker.guards.protocol import TraceGuard
from worker.guards.trace import GuardedTrace, Verdict

_DRIFT_WINDOW = 1000


class LanguageGuard(TraceGuard):
    """Checks the language of the answer when the model has ended; asks again for one that drifted."""

    def end(self, trace: GuardedTrace, finish_reason: str) -> Verdict | None:
        """Return a verdict if the answer drifted."""
        text = trace.text
        answer = trace.answer(ended=finish_reason == "stop")
        if answer is None or not drifted(trace.question, text, answer.text):
            return None
        evidence = {
            "question": scripts.cjk_share(trace.question) or 0.0,
            "answer": scripts.cjk_share(answer.text) or 0.0,
            "trace": scripts.cjk_share(text) or 0.0,
        }
        finding = trace.finding(FindingKind.LANGUAGE, 0, len(text), evidence)
        if not trace.may_force:
            return trace.note(finding, len(text))
        heading = extraction.heading(trace.document)
        return trace.force(finding, text, len(text) if heading is None else heading)


def drifted(question: str, trace: str, answer: str) -> bool:
    """Return whether an answer is in another script than its question because the trace had switched to it.

    A trace in the question's own language may quote a sign or a name in another script: that is no drift.
    """
    # Latin letters in the answer to a Chinese question are names and units more often than English.
    if scripts.cjk_share(question) != 0:
        return False
    shares = (scripts.cjk_share(answer), scripts.cjk_share(trace[-_DRIFT_WINDOW:]))
    return min(share or 0.0 for share in shares) > 0.5  # noqa: PLR2004 - more than half
