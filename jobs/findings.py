"""What a guard found in a trace, and what was done about it: kept for ever, counted, shown with the job.

A finding quotes nothing of the trace: it says where to look, so that it can outlive the text.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


class FindingKind(enum.StrEnum):
    """What was found."""

    #: The text repeats itself to the letter.
    LOOP = "loop"
    #: The text says the same again and again in other words.
    PARAPHRASE_LOOP = "paraphrase_loop"
    #: The tokens were used up before there was an answer.
    BUDGET = "budget"
    #: Answers asked for on the way had been the same for a while.
    CONVERGED = "converged"
    #: The answer is in another script than the question, at the end of a trace that drifted there.
    LANGUAGE = "language"
    #: The answer was compared with the picture once more; the action says what came of it.
    VERIFY = "verify"
    #: A final answer was begun and did not end, or the job ended without any.
    NO_ANSWER = "no_answer"


class Action(enum.StrEnum):
    """What was done about it."""

    #: The text was cut back and the model made to answer.
    FORCED = "forced"
    #: The text was cut back; the answer before it stands, if there is one.
    STOPPED = "stopped"
    #: A second look came to the same answer.
    CONFIRMED = "confirmed"
    #: It came to another answer, which is the job's now.
    CORRECTED = "corrected"
    #: It came to none; the first answer stands.
    DOUBTED = "doubted"
    NONE = "none"


#: What share of the two looks at an answer stands for it, by what the second one came to.
CONFIDENCES: Mapping[str, float] = {
    Action.CONFIRMED: 1.0,
    Action.CORRECTED: 0.5,
    Action.DOUBTED: 0.5,
}


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        kind: what was found.
        generation: the stream of the attempt in which it was found.
        start: the first character of the place in the stream's raw text.
        end: the character after the place.
        action: what was done.
        evidence: the figures by which it was found.
        tokens_saved: of the stream's budget, those not used when it was stopped. An upper bound: nobody
            knows how long it would have gone on.
    """

    kind: FindingKind
    generation: int
    start: int
    end: int
    action: Action
    evidence: Mapping[str, float] = field(default_factory=dict)
    tokens_saved: int = 0

    def plain(self) -> dict[str, Any]:
        """Return it as those who follow the job live get it."""
        return {
            "kind": str(self.kind),
            "start": self.start,
            "end": self.end,
            "action": str(self.action),
            "evidence": dict(self.evidence),
            "tokens_saved": self.tokens_saved,
        }


def confidence(found: Iterable[Finding]) -> float | None:
    """Return the share of the looks at one answer that stand for it; None when there was no second look."""
    looks = (finding.action for finding in found if finding.kind is FindingKind.VERIFY)
    return next((CONFIDENCES[action] for action in looks if action in CONFIDENCES), None)
