"""Whether two answers mean the same: the one notion of it, for votes, verifications and probes. Pure.

With a format the values are compared, and without one, or where a text states no value, what the texts say. Only
algebra can compare some formulas; :mod:`worker.equality` asks it.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Hashable, Mapping
from fractions import Fraction
from typing import Any

from jobs.answers import meaning, sections
from jobs.answers.meaning import Meaning


class Sameness(enum.Enum):
    """How two answers compare."""

    SAME = "same"
    DIFFERENT = "different"
    #: Two formulas of which only algebra can say.
    ALGEBRA = "algebra"


def read(text: str, answer_format: Mapping[str, Any] | None = None, question: str = "") -> Meaning:
    """Return what ``text`` says as an answer to ``question`` in the format of a job."""
    requested = (answer_format or {}).get("type")
    value = sections.read(text, answer_format, question)
    if value is None:
        return meaning.read(text, question)
    if requested == "number" and isinstance(value, int | float) and math.isfinite(value):
        # Exactly what a client gets: two texts with the same value are the same.
        return meaning.number(Fraction(value))
    return Meaning(("value", _key(value)))


def compare(left: Meaning, right: Meaning) -> Sameness:
    """Return how two answers compare. This is reflexive, symmetric, and by the equal keys of answers transitive."""
    if left.key == right.key:
        return Sameness.SAME
    comparable = (
        left.formula is not None
        and right.formula is not None
        and (left.evident or right.evident)
        and left.unit == right.unit
        and left.relation == right.relation
    )
    return Sameness.ALGEBRA if comparable else Sameness.DIFFERENT


def _key(value: object) -> Hashable:
    """Return a hashable form of a JSON value. True is not 1, and 1 is 1.0."""
    if isinstance(value, dict):
        return "object", frozenset((name, _key(part)) for name, part in value.items())
    if isinstance(value, list):
        return "array", tuple(map(_key, value))
    if isinstance(value, bool) or value is None:
        return "constant", str(value)
    if isinstance(value, int | float):
        return "number", Fraction(value)
    return "string", str(value)
