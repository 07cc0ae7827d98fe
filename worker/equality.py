"""Whether two answers mean the same, as :mod:`jobs.answers.equality` defines it, with algebra for what needs it.

Formulas are compared in child processes that can be killed, and that the accounts share. The result depends only on
the two answers: a formula that takes too much CPU time equals no other text, for every account and at any time. If no
child is free, the comparison waits, and in the end the attempt fails; a vote is never decided without it.
"""

from __future__ import annotations

import functools
import signal
import threading
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import structlog

from core import errors
from core.recent import Recent
from core.sandbox import SandboxCrashed, SandboxTimeout
from core.shares import Shares
from jobs.answers import equality
from jobs.answers.equality import Sameness

_log = structlog.get_logger(__name__)

#: The function that a child runs, its address space in MiB, and the number of children of a worker process.
TARGET = "worker.mathematics:serve"
MEMORY_MB = 1024
PROCESSES = 2
#: CPU seconds of one comparison, after which the formulas are at fault.
CPU_SECONDS = 2.0
#: Seconds by the wall clock after which a child counts as stuck. It has not used its CPU seconds by then, so the
#: machine is at fault and the comparison is repeated.
SECONDS = 60.0
#: How often a comparison that failed through no fault of its formulas is repeated, and the seconds between.
_ATTEMPTS = 3
_PAUSE_SECONDS = 1.0
#: Between two checks whether a job that waits for a child was stopped.
_LOOK_SECONDS = 2.0
#: Between two calls if no more may wait.
_BREATH_SECONDS = 0.05
#: How many formulas and pairs that took too much CPU time are remembered, and for how many seconds.
_REMEMBERED = 4096
_REMEMBERED_SECONDS = 600.0
#: How a child ends if the formulas are at fault: it used its CPU time, or a library crashed.
_OWN_SIGNALS = frozenset(
    {None, signal.SIGPROF, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE}
)


#: Whether two answers to one question mean the same.
SameAnswer = Callable[[str, str], bool]


class ComparisonStopped(Exception):
    """The job was stopped while it waited for a comparison."""


class FormulaSandbox(Protocol):
    """Compares formulas, as :class:`core.sandbox.Sandbox` does."""

    def call(self, payload: bytes, **arguments: object) -> tuple[dict[str, Any], bytes]:
        """Return the result of the target."""


def shares(processes: int = PROCESSES, *, most_waiting: int) -> Shares:
    """Return the shares of ``processes`` children; of several, one is reserved for other accounts."""
    return Shares(
        processes,
        name="formula comparisons",
        most_waiting=most_waiting,
        reserved=1 if processes > 1 else 0,
    )


class Equality:
    """Compares answers.

    Args:
        sandbox: runs :data:`TARGET`; has a child for each place of ``places``.
        places: divides the children among the accounts.
        cpu_seconds: the limit of one comparison.
        pause_seconds: before a comparison is repeated.
        look_seconds: between two checks whether a job that waits was stopped.
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
        #: By account: the timing of one account must reveal nothing about another's formulas.
        self._costly = Recent(_REMEMBERED, seconds=_REMEMBERED_SECONDS)

    def of(
        self,
        answer_format: Mapping[str, Any] | None,
        *,
        account_id: uuid.UUID,
        question: str = "",
        stopped: Callable[[], bool] = lambda: False,
    ) -> SameAnswer:
        """Return a function that compares answers to one question of an account. It caches; for any thread.

        The function raises :class:`ComparisonStopped` if ``stopped`` returns True while it waits, and
        :class:`core.errors.AnswersNotCompared` if children fail repeatedly through no fault of the formulas.
        """
        formulas_of = _Formulas(self, account_id, stopped)
        return functools.cache(_Comparison(formulas_of, answer_format, question).same)

    def compare(
        self, account_id: uuid.UUID, left: str, right: str | None, *, stopped: Callable[[], bool]
    ) -> bool | None:
        """Return whether two formulas are equal, or None if they take too much CPU time.

        Args:
            account_id: the account whose job it is.
            left: a formula.
            right: another one, or None to find out whether ``left`` can be compared at all.
            stopped: whether the result is no longer needed.

        Raises:
            ComparisonStopped: ``stopped`` returned True.
            core.errors.AnswersNotCompared: the children fail repeatedly.
        """
        key = (account_id, left, right)
        if key in self._costly:
            return None
        for _ in range(_ATTEMPTS):
            try:
                return self._turn(account_id, left, right, stopped)
            except SandboxCrashed as error:
                if error.signal in _OWN_SIGNALS:
                    self._costly.add(key)
                    return None
            except (SandboxTimeout, errors.Unavailable):
                pass
            threading.Event().wait(self._pause_seconds)
        raise errors.AnswersNotCompared("The answers could not be compared with each other.")

    def _turn(
        self, account_id: uuid.UUID, left: str, right: str | None, stopped: Callable[[], bool]
    ) -> bool:
        """Compare when it is the account's turn."""
        while not stopped():
            try:
                with self._places.hold(account_id, seconds=self._look_seconds):
                    facts, _ = self._sandbox.call(
                        left.encode("utf-8", "replace"), other=right, seconds=self._cpu_seconds
                    )
            except errors.Overloaded:
                threading.Event().wait(_BREATH_SECONDS)
                continue
            return bool(facts["equal"])
        raise ComparisonStopped


class _Formulas:
    """Compares formulas of one account.

    Each formula is tried alone first, so that the formula that costs too much is known, and not only the pair in which
    it came first.
    """

    def __init__(
        self, equality: Equality, account_id: uuid.UUID, stopped: Callable[[], bool]
    ) -> None:
        self._equality = equality
        self._account_id = account_id
        self._stopped = stopped
        self._reported = False
        self._usable = functools.cache(self._attempt)

    def equal(self, left: str, right: str) -> bool:
        """Return whether two formulas are equal; one that costs too much equals no other."""
        return self._usable(left) and self._usable(right) and self._compare(left, right) is True

    def _attempt(self, left: str) -> bool:
        return self._compare(left, None) is not None

    def _compare(self, left: str, right: str | None) -> bool | None:
        equal = self._equality.compare(self._account_id, left, right, stopped=self._stopped)
        if equal is None and not self._reported:
            # One line for each vote, because all its formulas may cost too much.
            self._reported = True
            _log.warning("formulas_too_costly")
        return equal


class _Comparison:
    """Compares the answers to one question."""

    def __init__(
        self, formulas_of: _Formulas, answer_format: Mapping[str, Any] | None, question: str
    ) -> None:
        self._formulas = formulas_of
        self._read = functools.cache(
            functools.partial(equality.read, answer_format=answer_format, question=question)
        )

    def same(self, left: str, right: str) -> bool:
        """Return whether two answers mean the same."""
        first, second = self._read(left), self._read(right)
        match equality.compare(first, second):
            case Sameness.ALGEBRA:
                return self._formulas.equal(first.formula or "", second.formula or "")
            case sameness:
                return sameness is Sameness.SAME
