"""The protocol of a guard, and the values that pass between the guards and the attempt that they watch."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core import errors
from core.profiles import Sampling
from jobs import engine
from jobs.answers.extraction import Answer
from jobs.findings import Finding
from jobs.store import traces
from worker.guards.trace import GuardedTrace, Verdict

#: Follow-up generations and probes take the most likely token each time.
GREEDY = Sampling(temperature=0.0, top_p=1.0)


@dataclass(frozen=True)
class GenerationResult:
    """How a generation ended: with a finish reason, with a fault, or stopped from outside.

    Attributes:
        end: everything that it left behind.
        fault: the engine's error, or None.
        stopped: whether its lease was stopped; the lease knows why.
    """

    end: traces.GenerationEnd
    fault: errors.EngineError | None = None
    stopped: bool = False


@dataclass(frozen=True)
class StandingAnswer:
    """The answer that an attempt gives if no further generation changes it.

    Attributes:
        text: the text that holds the answer.
        end: the generation that gave it.
        answer: the answer in the text, or None without an answer.
        forced: whether the model was made to give it.
    """

    text: str = field(repr=False)
    end: traces.GenerationEnd
    answer: Answer | None
    forced: bool = False


@dataclass(frozen=True)
class AttemptStep:
    """The state of an attempt after one of its generations has ended.

    Attributes:
        end: the generation's end, which is not written yet.
        standing: the answer that stands now.
        fault: the error that fails the attempt, or None.
        findings: findings in this generation that are not written yet.
        ignored_fault: an engine error after which the earlier answer stands.
    """

    end: traces.GenerationEnd
    standing: StandingAnswer
    fault: errors.EngineError | None = None
    findings: tuple[Finding, ...] = ()
    ignored_fault: errors.EngineError | None = None


class GuardedGeneration(abc.ABC):
    """One generation of an attempt: what the engine gets, who reads along, and what comes of it.

    Args:
        request: what the engine gets.
        stored: how many characters of the generation before it continues from.
        inserted: the words after them.
    """

    #: The finish reason if its reader cuts it.
    finish_reason = "stop"
    #: The JSON Schema that a later generation needs: an engine that cannot compile it is not asked at all.
    later_schema: Mapping[str, Any] | None = None

    def __init__(
        self, request: engine.GenerationRequest, *, stored: int = 0, inserted: str = ""
    ) -> None:
        self.request = request
        self.stored = stored
        self.inserted = inserted

    @property
    def finding(self) -> Finding | None:
        """The finding to publish after the text, if there is one."""
        return None

    def see(self, text: str, tokens: int | None = None) -> object:  # noqa: ARG002 - the default reads everything
        """Read a chunk's text; a true value cuts the generation.

        Args:
            text: the chunk's text.
            tokens: the engine's count of the generation's tokens so far, or None without one.
        """
        return False

    def end(self, text: str, finish_reason: str) -> object:  # noqa: B027 - the default does nothing
        """Read the whole text of a generation that the model has ended."""

    @abc.abstractmethod
    def close(self, result: GenerationResult) -> AttemptStep:
        """Return the state of the attempt after the generation."""


class TraceGuard:
    """One guard of an attempt. Each guard overrides the steps that it needs.

    An attempt asks its guards in order; the first verdict, and the first generation that comes next, count.
    """

    #: Whether the guard looks at every chunk, and not only when a check is due.
    every_chunk = False

    def reserve(self, budget: int) -> int:  # noqa: ARG002 - the default reserves nothing
        """Return how many of ``budget`` tokens the guard keeps for a later generation."""
        return 0

    def see(self, trace: GuardedTrace) -> Verdict | None:
        """Look at the text so far; return a verdict to cut the generation."""

    def end(self, trace: GuardedTrace, finish_reason: str) -> Verdict | None:
        """Look at the whole text of a generation that the model has ended."""

    def stop(self) -> Sequence[engine.TokenUsage]:
        """Stop what the guard has running at the engine; return what that has used since the last call."""
        return ()

    def pending(self, trace: GuardedTrace) -> bool:  # noqa: ARG002 - the default waits for nothing
        """Return whether the guard expects to add a generation after the current one."""
        return False

    def next(self, trace: GuardedTrace, step: AttemptStep) -> GuardedGeneration | None:
        """Return the generation that follows ``step``, or None."""


def stands(end: traces.GenerationEnd) -> traces.GenerationEnd:
    """Return the end of a generation whose answer stands; the finding says that it was cut after it."""
    return dataclasses.replace(end, finish_reason="stop") if end.finish_reason == "cut" else end
