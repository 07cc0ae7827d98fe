"""Traces that are cut short and told to answer: what the service does to a model that loops or spends too much.

A model that has only ever seen whole traces may have nothing to say after such a cut, so it is trained on them.
Needs nothing beyond the standard library.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

#: Where the answer of a whole trace begins.
_HEADING = "\n\n**Final Answer**"
#: The beginnings of an answer that a cut trace goes on with, and what closes each.
OPENINGS = {
    f"{_HEADING}\n\n\\[ \\boxed{{": "} \\]",
    f"{_HEADING}\n\n\\boxed{{": "}",
}


@dataclass(frozen=True)
class Cut:
    """A trace that was cut.

    Attributes:
        said: what stands in the model's message: the trace up to the cut, and the beginning of an answer.
        rest: what it has to say now.
    """

    said: str
    rest: str


def cut(rng: random.Random, trace: str, truth: str, *, place: float | None = None) -> Cut:
    """Return ``trace`` cut at a random character, or at the share ``place`` of its reasoning."""
    reasoning = trace.partition(_HEADING)[0]
    share = rng.random() if place is None else place
    opening = rng.choice([*OPENINGS])
    kept = reasoning[: round(share * len(reasoning))].rstrip()
    return Cut(said=kept + opening, rest=truth + OPENINGS[opening])
