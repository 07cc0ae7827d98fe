"""Whether two formulas are equal: what a sandbox's child runs. Nobody else imports this, for sympy is large.

Formulas come from a model that may write anything, and simplifying them may take for ever: so it is done in a
process that can be killed.
"""

from __future__ import annotations

import re
from typing import Any

import math_verify

_COMMAND = re.compile(r"\\[a-zA-Z]+")
_LETTERS = re.compile(r"[^\W\d_]+")


def serve(payload: bytes, *, other: str) -> tuple[dict[str, Any], bytes]:
    """Say whether the formula in ``payload`` (UTF-8) equals ``other``, as the fact ``equal``."""
    first, second = _parsed(payload.decode()), _parsed(other)
    # Not symmetric: what stands for the truth may be an equation, of which the other side has the right side only.
    equal = bool(first and second) and (_equal(first, second) or _equal(second, first))
    return {"equal": equal and not _of_other_things(payload.decode(), first, other, second)}, b""


def _of_other_things(one: str, first: list[Any], other: str, second: list[Any]) -> bool:
    """Whether two equal numbers count different things. The library drops units: 5 km would be 5 m."""
    if any(getattr(found[0], "free_symbols", None) for found in (first, second)):
        return False
    words, others = _words(one), _words(other)
    return bool(words and others) and words != others


def _words(text: str) -> list[str]:
    """Return the words of a formula that are no commands; what a text in it says is among them."""
    return _LETTERS.findall(_COMMAND.sub(" ", text).casefold())


def _parsed(text: str) -> list[Any]:
    """Return what ``text`` may mean, nothing when it is no formula. The library's own timeout needs a main thread."""
    found: list[Any] = math_verify.parse(f"\\boxed{{{text}}}", parsing_timeout=None)
    return found


def _equal(truth: list[Any], claim: list[Any]) -> bool:
    return bool(math_verify.verify(truth, claim, timeout_seconds=None))
