"""Findings: the problem that a guard found in a trace, and the action it took. The service keeps them without limit.

A finding contains a position in the trace but no text of it, so it can outlive the trace.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


class FindingKind(enum.StrEnum):
    """The kind of problem."""

    #: The text repeats itself literally.
    LOOP = "loop"
    #: The text repeats itself in other words.
    PARAPHRASE_LOOP = "paraphrase_loop"
    #: The token budget ran out before the answer.
    BUDGET = "budget"
    #: The early answers that the guard requested during the generation stayed the same.
    CONVERGED = "converged"
    #: The answer is in a different script than the question, because the trace drifted to it.
    LANGUAGE = "language"
    #: The answer was verified against the image; the action is the result.
    VERIFY = "verify"
    #: A final answer started and did not end, or the job ended without an answer.
    NO_ANSWER = "no_answer"


class Action(enum.StrEnum):
    """The action that the guard took."""

    #: The text was truncated and the model was made to answer.
    FORCED = "forced"
    #: The text was truncated; an earlier answer stays valid.
    STOPPED = "stopped"
    #: The verification produced the same answer.
    CONFIRMED = "confirmed"
    #: The verification produced a different answer, which replaces the first one.
    CORRECTED = "corrected"
    #: The verification produced no answer; the first answer stays valid.
    DOUBTED = "doubted"
    NONE = "none"


#: Result of a verification to the share of the two answers that agree with the job's answer.
CONFIDENCES: Mapping[str, float] = {
    Action.CONFIRMED: 1.0,
    Action.CORRECTED: 0.5,
    Action.DOUBTED: 0.5,
}


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        kind: the kind of problem.
        sample: the number of the generation within the attempt.
        start: the index of the first character of the problem, in the generation's raw text.
        end: the index after its last character.
        action: the action that the guard took.
        evidence: the measurements on which the finding is based.
        tokens_saved: the unused tokens of the budget when the generation was stopped. This is an upper bound, because
            the generation might have ended earlier.
    """

    kind: FindingKind
    sample: int
    start: int
    end: int
    action: Action
    evidence: Mapping[str, float] = field(default_factory=dict)
    tokens_saved: int = 0

    def plain(self) -> dict[str, Any]:
        """Return the finding as JSON for the job's event stream."""
        return {
            "kind": str(self.kind),
            "start": self.start,
            "end": self.end,
            "action": str(self.action),
            "evidence": dict(self.evidence),
            "tokens_saved": self.tokens_saved,
        }


def confidence(findings: Iterable[Finding]) -> float | None:
    """Return the confidence in an answer according to its verification; None without a verification."""
    actions = (finding.action for finding in findings if finding.kind is FindingKind.VERIFY)
    return next((CONFIDENCES[action] for action in actions if action in CONFIDENCES), None)
