"""Findings of guards in traces, and the actions taken. They are stored permanently, counted, and shown with the job.

A finding contains positions and no text of the trace, so that it can outlive the trace.
"""

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


class FindingKind(enum.StrEnum):
    """The kind of a finding."""

    #: The text repeats itself verbatim.
    LOOP = "loop"
    #: The text repeats itself in other words.
    PARAPHRASE_LOOP = "paraphrase_loop"
    #: The tokens ran out before there was an answer.
    BUDGET = "budget"
    #: Consecutive probes of the running trace had the same answer.
    CONVERGED = "converged"
    #: The trace drifted into a script that differs from the question's, and so did the answer.
    LANGUAGE = "language"
    #: The answer was verified against the image; the action is the result.
    VERIFY = "verify"
    #: The final answer was not terminated, or the job ended without one.
    NO_ANSWER = "no_answer"
    #: The model refused to answer.
    REFUSAL = "refusal"


class Action(enum.StrEnum):
    """The action taken for a finding."""

    #: The text was cut, and the model was forced to answer.
    FORCED = "forced"
    #: The text was cut; the answer before the cut, if any, remains.
    STOPPED = "stopped"
    #: The verification had the same answer.
    CONFIRMED = "confirmed"
    #: The verification had another answer, which became the job's answer.
    CORRECTED = "corrected"
    #: The verification had no answer; the first answer remains.
    DOUBTED = "doubted"
    NONE = "none"


#: The share of answer and verification that agree with the job's answer, by the result of the verification.
CONFIDENCES: Mapping[str, float] = {
    Action.CONFIRMED: 1.0,
    Action.CORRECTED: 0.5,
    Action.DOUBTED: 0.5,
}


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        kind: the kind of the finding.
        sample: number of the stream in the attempt.
        start: index of its first character in the stream's raw text.
        end: index after its last character.
        action: the action taken.
        evidence: the measurements that led to the finding.
        tokens_saved: unused tokens of the stream's budget when it was stopped: an upper bound of the savings, because
            the stream might have ended earlier.
    """

    kind: FindingKind
    generation: int
    start: int
    end: int
    action: Action
    evidence: Mapping[str, float] = field(default_factory=dict)
    tokens_saved: int = 0

    def plain(self) -> dict[str, Any]:
        """Return the finding as JSON values, as it appears in the job's events."""
        return {
            "kind": str(self.kind),
            "start": self.start,
            "end": self.end,
            "action": str(self.action),
            "evidence": dict(self.evidence),
            "tokens_saved": self.tokens_saved,
        }


def confidence(findings: Iterable[Finding]) -> float | None:
    """Return the share of answer and verification that agree with the job's answer; None without a verification."""
    actions = (finding.action for finding in findings if finding.kind is FindingKind.VERIFY)
    return next((CONFIDENCES[action] for action in actions if action in CONFIDENCES), None)
