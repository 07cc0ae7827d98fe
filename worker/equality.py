"""Whether two answers say the same: by what the job's format reads in them, by their text, or as formulas.

Formulas are compared in a killable child. When that is killed, crashes or is not to be had, the texts decide:
a vote is never lost to mathematics.
"""

from __future__ import annotations

import functools
import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import structlog

from jobs import errors, values
from jobs.sandbox import SandboxCrashed, SandboxTimeout

_log = structlog.get_logger(__name__)

#: What a child runs, and the address space that takes, in MiB; longest formulas; longest comparison, in seconds.
TARGET = "worker.mathematics:serve"
MEMORY_MB = 1024
SECONDS = 5.0
_LONGEST = 300
#: Comparisons of one vote that may fail, by the child's death or for want of one; from then on its texts decide.
#: The child is shared: formulas that never end must not keep other jobs' from it, nor a job from its end.
_MOST_FAILED = 2
_MATHEMATICAL = re.compile(r"[0-9\\+*/^=%√π²³½]")
#: Versions and addresses: no number has two points.
_DOTTED = re.compile(r"\d\.\d+\.\d")
_EXACT = 1e-9


class Sandbox(Protocol):
    """Where formulas are compared, as :class:`jobs.sandbox.Sandbox` does."""

    def call(self, payload: bytes, **arguments: object) -> tuple[dict[str, Any], bytes]:
        """Return what the target returns."""


class Equality:
    """Compares answers.

    Args:
        sandbox: its target is :data:`TARGET`.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def of(self, answer_format: Mapping[str, Any] | None) -> Callable[[str, str], bool]:
        """Return what compares answers to one question; it remembers, and is for one thread."""
        return functools.cache(_Comparison(self._sandbox, answer_format).same)


class _Comparison:
    """Compares the answers to one question."""

    def __init__(self, sandbox: Sandbox, answer_format: Mapping[str, Any] | None) -> None:
        self._sandbox = sandbox
        self._format = answer_format
        self._failed = 0

    def same(self, one: str, other: str) -> bool:
        """Whether two answers say the same."""
        if folded(one) == folded(other):
            return True
        first, second = values.read(one, self._format), values.read(other, self._format)
        if first is not None and second is not None:
            return _equal(first, second)
        return formulas(one, other) and self._equal_formulas(one, other)

    def _equal_formulas(self, one: str, other: str) -> bool:
        if self._failed >= _MOST_FAILED:
            return False
        try:
            facts, _ = self._sandbox.call(one.encode("utf-8", "replace"), other=other)
        except (SandboxTimeout, SandboxCrashed, errors.Unavailable) as error:
            self._failed += 1
            _log.warning("formulas_not_compared", reason=error.code)
            return False
        return bool(facts["equal"])


def folded(text: str) -> str:
    """Return ``text`` without what makes no difference to its meaning: case, width, spaces, a final full stop."""
    narrow = "".join(unicodedata.normalize("NFKC", one) if _wide(one) else one for one in text)
    return " ".join(narrow.casefold().split()).rstrip(" .。")


def _wide(character: str) -> bool:
    """Whether it is a wide form of another one. Other such forms have a meaning: ten squared is not 102."""
    return unicodedata.east_asian_width(character) == "F"


def formulas(one: str, other: str) -> bool:
    """Whether two texts may be formulas that are worth a comparison as such."""
    return all(
        len(text) <= _LONGEST and _MATHEMATICAL.search(text) and not _DOTTED.search(text)
        for text in (one, other)
    )


def _equal(one: object, other: object) -> bool:
    """Whether two values are: for JSON, true is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=_EXACT)
    return one == other
