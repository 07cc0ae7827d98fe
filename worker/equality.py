"""Whether two answers say the same: by what the job's format reads in them, by their text, or as formulas.

Formulas are compared in killable children, which the accounts share. The result is a property of the two answers and
of nothing else: a formula that takes too much CPU time by itself equals no other text, whoever asks and whenever; when
a child is not to be had, the comparison waits, and at last the attempt fails. It never decides without it.
"""

from __future__ import annotations

import functools
import math
import re
import signal
import threading
import unicodedata
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import structlog

from core import errors
from core.recent import Recent
from core.sandbox import SandboxCrashed, SandboxTimeout
from core.shares import Shares
from jobs.answers import values

_log = structlog.get_logger(__name__)

#: What a child runs, and the address space that takes, in MiB; the children of a process.
TARGET = "worker.mathematics:serve"
MEMORY_MB = 1024
PROCESSES = 2
#: CPU seconds of one comparison, after which the formulas themselves are at fault.
CPU_SECONDS = 2.0
#: Seconds by the wall clock after which a child is taken for stuck. It has not had its CPU seconds by then, so the
#: machine is at fault and the comparison is made once more.
SECONDS = 60.0
#: How often a comparison that failed through no fault of its formulas is made, and the seconds between two tries.
_ATTEMPTS = 3
_PAUSE_SECONDS = 1.0
#: Between two looks whether the job that waits for a child is still wanted.
_LOOK_SECONDS = 2.0
#: Between two calls that were refused a place to wait in.
_BREATH_SECONDS = 0.05
#: Formulas and pairs of them that took too much CPU time: how many are remembered, and for how many seconds.
_REMEMBERED = 4096
_REMEMBERED_SECONDS = 600.0
#: Longest formula, in characters.
_LONGEST = 300
#: How a child ends whose formulas are at fault: its CPU time is over, or a library failed inside.
_OWN_SIGNALS = frozenset(
    {None, signal.SIGPROF, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE}
)
_MATHEMATICAL = re.compile(r"[0-9\\+*/^=%√π²³½]")
#: Versions and addresses: no number has two points.
_DOTTED = re.compile(r"\d\.\d+\.\d")
_EXACT = 1e-9


class ComparisonStopped(Exception):
    """The job was stopped while it waited for a comparison."""


class FormulaSandbox(Protocol):
    """Where formulas are compared, as :class:`core.sandbox.Sandbox` does."""

    def call(self, payload: bytes, **arguments: object) -> tuple[dict[str, Any], bytes]:
        """Return what the target returns."""


def shares(processes: int = PROCESSES, *, most_waiting: int) -> Shares:
    """Return the shares of ``processes`` children: one account never holds all of several."""
    return Shares(
        processes,
        name="formula comparisons",
        most_waiting=most_waiting,
        reserved=1 if processes > 1 else 0,
    )


class Equality:
    """Compares answers.

    Args:
        sandbox: its target is :data:`TARGET`; it has as many children as ``places`` has places.
        places: how the accounts share them.
        cpu_seconds: of one comparison.
        pause_seconds: between two tries.
        look_seconds: between two looks whether a job that waits is still wanted.
    """

    def __init__(
        self,
        sandbox: FormulaSandbox,
        places: Shares,
        *,
        cpu_seconds: float = CPU_SECONDS,
        pause_seconds: float = _PAUSE_SECONDS,
        look_seconds: float = _LOOK_SECONDS,
    ) -> None:
        self._sandbox = sandbox
        self._places = places
        self._cpu_seconds = cpu_seconds
        self._pause_seconds = pause_seconds
        self._look_seconds = look_seconds
        #: By account: what one account asks must not make another one's answer come sooner.
        self._costly = Recent(_REMEMBERED, seconds=_REMEMBERED_SECONDS)

    def of(
        self,
        answer_format: Mapping[str, Any] | None,
        *,
        account_id: uuid.UUID,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Callable[[str, str], bool]:
        """Return what compares answers to one question of an account; it remembers, and is for one thread.

        It raises :class:`ComparisonStopped` when ``stopped`` comes true while it waits, and
        :class:`core.errors.AnswersNotCompared` when children fail again and again through no fault of the formulas.
        """
        formulas_of = _Formulas(self, account_id, stopped)
        return functools.cache(_Comparison(formulas_of, answer_format).same)

    def compare(
        self, account_id: uuid.UUID, one: str, other: str | None, *, stopped: Callable[[], bool]
    ) -> bool | None:
        """Return whether two formulas are equal, None when they take too much CPU time.

        Args:
            account_id: for whom.
            one: a formula.
            other: another one; None: only try whether ``one`` can be compared at all.
            stopped: whether the result is no longer needed.

        Raises:
            Stopped: it is not.
            core.errors.AnswersNotCompared: the children fail.
        """
        key = (account_id, one, other)
        if key in self._costly:
            return None
        for _ in range(_ATTEMPTS):
            try:
                return self._turn(account_id, one, other, stopped)
            except SandboxCrashed as error:
                if error.signal in _OWN_SIGNALS:
                    self._costly.add(key)
                    return None
            except (SandboxTimeout, errors.Unavailable):
                pass
            threading.Event().wait(self._pause_seconds)
        raise errors.AnswersNotCompared("The answers could not be compared with each other.")

    def _turn(
        self, account_id: uuid.UUID, one: str, other: str | None, stopped: Callable[[], bool]
    ) -> bool:
        """Compare when it is the account's turn."""
        while not stopped():
            try:
                with self._places.hold(account_id, seconds=self._look_seconds):
                    facts, _ = self._sandbox.call(
                        one.encode("utf-8", "replace"), other=other, seconds=self._cpu_seconds
                    )
            except errors.Overloaded:
                threading.Event().wait(_BREATH_SECONDS)
                continue
            return bool(facts["equal"])
        raise ComparisonStopped


class _Formulas:
    """Compares formulas of one account.

    Each formula is first tried by itself: so one that costs too much is known by itself, and not by the pair in
    which it happened to come first.
    """

    def __init__(
        self, equality: Equality, account_id: uuid.UUID, stopped: Callable[[], bool]
    ) -> None:
        self._equality = equality
        self._account_id = account_id
        self._stopped = stopped
        self._reported = False
        self._usable = functools.cache(self._attempt)

    def equal(self, one: str, other: str) -> bool:
        """Whether two formulas are equal; one that costs too much equals none."""
        return self._usable(one) and self._usable(other) and self._compare(one, other) is True

    def _attempt(self, one: str) -> bool:
        return self._compare(one, None) is not None

    def _compare(self, one: str, other: str | None) -> bool | None:
        equal = self._equality.compare(self._account_id, one, other, stopped=self._stopped)
        if equal is None and not self._reported:
            # One line a vote: its formulas may all be such.
            self._reported = True
            _log.warning("formulas_too_costly")
        return equal


class _Comparison:
    """Compares the answers to one question."""

    def __init__(self, formulas_of: _Formulas, answer_format: Mapping[str, Any] | None) -> None:
        self._formulas = formulas_of
        self._format = answer_format

    def same(self, one: str, other: str) -> bool:
        """Whether two answers say the same."""
        if folded(one) == folded(other):
            return True
        first, second = values.read(one, self._format), values.read(other, self._format)
        if first is not None and second is not None:
            return _equal(first, second)
        return formulas(one, other) and self._formulas.equal(one, other)


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
