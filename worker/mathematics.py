"""Whether two formulas are equal: what a sandbox's child runs. Nobody else imports this, for sympy is large.

Formulas come from a model that may write anything, and simplifying them may take for ever: so it is done in a
process that can be killed. Its limit is CPU time: a busy machine makes a comparison late, and never another one.
"""

from __future__ import annotations

import functools
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import math_verify

_COMMAND = re.compile(r"\\[a-zA-Z]+")
_LETTERS = re.compile(r"[^\W\d_]+")
#: What a formula is compared with to see whether it can be compared with anything.
_PLAIN = "1"


def serve(payload: bytes, *, other: str | None, seconds: float) -> tuple[dict[str, Any], bytes]:
    """Say whether the formula in ``payload`` (UTF-8) equals ``other``, as the fact ``equal``.

    Args:
        payload: the formula.
        other: the formula to compare it with; None: only try whether ``payload`` can be compared at all.
        seconds: CPU seconds after which SIGPROF ends the process, even inside one large operation.
    """
    _warm()
    one = payload.decode()
    with _cpu_limit(seconds):
        return {"equal": _same(one, _PLAIN if other is None else other)}, b""


@functools.cache
def _warm() -> None:
    """Load what the first comparison loads, so that no limit pays for it."""
    _same("\\frac{1}{2}", "x=0.5")


@contextmanager
def _cpu_limit(seconds: float) -> Iterator[None]:
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _same(one: str, other: str) -> bool:
    first, second = _parsed(one), _parsed(other)
    # Not symmetric: what stands for the truth may be an equation, of which the other side has the right side only.
    equal = bool(first and second) and (_equal(first, second) or _equal(second, first))
    return equal and not _of_other_things(one, first, other, second)


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
