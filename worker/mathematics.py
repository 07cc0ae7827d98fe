"""Compares two formulas, in a child process of a sandbox. Nothing else imports this module, because sympy is large.

Formulas come from a model that may write anything, and to simplify one may never end, so it happens in a process that
can be killed. The limit is CPU time: on a busy machine a comparison takes longer, but has the same result.
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
#: Decimals in which two numbers must agree: fewer would make 3.141593 both π and, by way of it, 3.1415927.
_DECIMALS = 12
#: A formula is compared with this to find out whether it can be compared at all.
_PLAIN = "1"


def serve(payload: bytes, *, other: str | None, seconds: float) -> tuple[dict[str, Any], bytes]:
    """Return whether the formula in ``payload`` (UTF-8) equals ``other``, as the fact ``equal``.

    Args:
        payload: the formula.
        other: the formula to compare it with, or None to find out whether ``payload`` can be compared at all.
        seconds: CPU seconds after which SIGPROF ends the process, even inside one large operation.
    """
    _warm()
    formula = payload.decode()
    with _cpu_limit(seconds):
        return {"equal": _same(formula, _PLAIN if other is None else other)}, b""


@functools.cache
def _warm() -> None:
    """Load what the first comparison loads, so that this does not count against its limit."""
    _same("\\frac{1}{2}", "x=0.5")


@contextmanager
def _cpu_limit(seconds: float) -> Iterator[None]:
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _same(left: str, right: str) -> bool:
    first, second = _parsed(left), _parsed(right)
    # The library's comparison is not symmetric: its first formula may be an equation, and the second its right side.
    equal = bool(first and second) and (_equal(first, second) or _equal(second, first))
    return equal and not _count_different_things(left, first, right, second)


def _count_different_things(left: str, first: list[Any], right: str, second: list[Any]) -> bool:
    """Return whether two equal numbers count different things. The library drops units: 5 km would be 5 m."""
    if any(getattr(parsed[0], "free_symbols", None) for parsed in (first, second)):
        return False
    left_words, right_words = _words(left), _words(right)
    return bool(left_words and right_words) and left_words != right_words


def _words(text: str) -> list[str]:
    """Return the words of a formula that are not commands, including those of a text in it."""
    return _LETTERS.findall(_COMMAND.sub(" ", text).casefold())


def _parsed(text: str) -> list[Any]:
    """Return the meanings of ``text``; none if it is not a formula. The library's own timeout needs a main thread."""
    parsed: list[Any] = math_verify.parse(f"\\boxed{{{text}}}", parsing_timeout=None)
    return parsed


def _equal(truth: list[Any], claim: list[Any]) -> bool:
    return bool(math_verify.verify(truth, claim, float_rounding=_DECIMALS, timeout_seconds=None))
