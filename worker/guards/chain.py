"""The guards of one generation, in order, and the first generation of an attempt, which they watch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from core.special_tokens import SpecialTokens
from jobs import engine
from jobs.answers import extraction
from jobs.findings import Finding
from jobs.store import traces
from worker.equality import SameAnswer
from worker.guards.budget import BudgetGuard
from worker.guards.convergence import ConvergenceGuard
from worker.guards.forced_answer import ForcedAnswerGuard
from worker.guards.json_answer import JsonAnswerGuard, JsonFormat
from worker.guards.language import LanguageGuard
from worker.guards.loop import LoopGuard
from worker.guards.protocol import (
    AttemptStep,
    GenerationResult,
    GuardedGeneration,
    StandingAnswer,
    TraceGuard,
    stands,
)
from worker.guards.trace import GuardedTrace, Verdict
from worker.guards.verify import VerifyGuard

_log = structlog.get_logger(__name__)

#: The names of the guards, as a job's options have them.
NAMES = ("loop", "budget", "convergence", "language", "verify")


class GuardChain:
    """The guards of one attempt, or of one of its samples.

    Args:
        guards: in the order in which they are asked.
        trace: the text of the first generation.
        request: its request, limited to the tokens that the guards leave.
        later_schema: the JSON Schema that a later generation needs.
    """

    def __init__(
        self,
        guards: Sequence[TraceGuard],
        trace: GuardedTrace,
        request: engine.GenerationRequest,
        *,
        later_schema: Mapping[str, Any] | None = None,
    ) -> None:
        self._guards = guards
        self.trace = trace
        #: The first generation.
        self.reasoning = Reasoning(guards, trace, request, later_schema=later_schema)

    @property
    def pending(self) -> bool:
        """Whether another generation is expected after the current one."""
        return any(guard.pending(self.trace) for guard in self._guards)

    def next(self, step: AttemptStep) -> GuardedGeneration | None:
        """Return the generation that follows ``step``, or None if the attempt is over."""
        for guard in self._guards:
            if (generation := guard.next(self.trace, step)) is not None:
                return generation
        return None

    def close(self) -> None:
        """Stop what the guards have running."""
        for guard in self._guards:
            guard.stop()


class Reasoning(GuardedGeneration):
    """The first generation of an attempt or of a sample, which the guards watch.

    Args:
        guards: in the order in which they are asked.
        trace: gathers the text.
        request: the request, limited to the tokens that the guards leave.
        later_schema: the JSON Schema that a later generation needs.
    """

    finish_reason = "cut"

    def __init__(
        self,
        guards: Sequence[TraceGuard],
        trace: GuardedTrace,
        request: engine.GenerationRequest,
        *,
        later_schema: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(request)
        self._guards = guards
        self._every_chunk = [guard for guard in guards if guard.every_chunk]
        self._trace = trace
        self.later_schema = later_schema

    @property
    def finding(self) -> Finding | None:
        """What the guards found, once they have found something."""
        return self._trace.verdict.finding if self._trace.verdict is not None else None

    def see(self, text: str, tokens: int | None = None) -> Verdict | None:
        """Read a chunk's text; return the first verdict of the guards."""
        trace = self._trace
        for guard in self._guards if trace.add(text, tokens) else self._every_chunk:
            if (verdict := guard.see(trace)) is not None:
                trace.verdict = verdict
                return verdict
        return None

    def end(self, text: str, finish_reason: str) -> Verdict | None:
        """Read the whole text of a generation that the model has ended; return the first verdict."""
        trace = self._trace
        trace.complete(text)
        for guard in self._guards:
            if (verdict := guard.end(trace, finish_reason)) is not None:
                trace.verdict = verdict
                return verdict
        return None

    def close(self, result: GenerationResult) -> AttemptStep:
        """Return the text up to the verdict, if there is one, and the answer in it."""
        self._trace.bill(result.end.output_tokens)
        end = self._billed(result.end)
        if end.output == self._trace.text:
            end = dataclasses.replace(end, document=self._trace.document)
        verdict = self._trace.verdict
        if result.stopped or result.fault is not None:
            return AttemptStep(end, StandingAnswer(end.output, end, None), result.fault)
        if self._trace.typed:
            findings = () if verdict is None else (verdict.finding,)
            return AttemptStep(end, StandingAnswer("", end, None), findings=findings)
        ended = end.finish_reason == "stop"
        if verdict is None:
            return AttemptStep(end, self._answer(end, ended=ended))
        _log.info("trace_cut", kind=str(verdict.finding.kind), action=str(verdict.finding.action))
        if verdict.inserted:
            answer = self._answer(end, ended=ended)
            return AttemptStep(end, answer, findings=(verdict.finding,))
        end = stands(end)
        text = end.output[: verdict.stored]
        if text == end.output:
            answer = self._answer(end, ended=ended)
        else:
            answer = StandingAnswer(text, end, extraction.extract(text, ended=ended))
        return AttemptStep(end, answer, findings=(verdict.finding,))

    def _answer(self, end: traces.GenerationEnd, *, ended: bool) -> StandingAnswer:
        """Return the answer in the output; ``ended``: whether the model, and not a guard or its limit, has ended it."""
        if end.document is None:
            answer = extraction.extract(end.output, ended=ended)
        else:
            answer = self._trace.answer(ended=ended)
        return StandingAnswer(end.output, end, answer)

    def _billed(self, end: traces.GenerationEnd) -> traces.GenerationEnd:
        """Stop what the guards have running; return ``end`` with the tokens that they used."""
        used = [usage for guard in self._guards for usage in guard.stop()]
        if not used:
            return end
        totals = {
            name: sum(getattr(usage, name) for usage in used) + (getattr(end, name) or 0)
            for name in ("input_tokens", "cached_tokens", "image_tokens", "output_tokens")
        }
        return dataclasses.replace(end, **totals)


def build(
    options: Mapping[str, Any],
    request: engine.GenerationRequest,
    *,
    engine_: engine.Engine,
    number: int,
    special_tokens: SpecialTokens,
    same: SameAnswer,
) -> GuardChain:
    """Return the guards that a job's options ask for.

    Args:
        options: the job's options, as completed at submission.
        request: the request; ``max_output_tokens`` is the budget of the whole job.
        engine_: the engine that runs it.
        number: the number of the first generation.
        special_tokens: those of the model, which the prompt does not repeat.
        same: whether two answers to the question mean the same.
    """
    enabled = options.get("guards") or {}
    form = JsonFormat.of(options)
    forced = ForcedAnswerGuard(request, reserves=bool(enabled.get("budget")))
    guards: list[TraceGuard] = []
    if enabled.get("loop"):
        guards.append(LoopGuard())
    if enabled.get("budget"):
        guards.append(BudgetGuard())
    if enabled.get("convergence") and form is None:
        guards.append(ConvergenceGuard(request, engine_=engine_, same=same))
    if enabled.get("language"):
        guards.append(LanguageGuard())
    if form is not None:
        guards.append(JsonAnswerGuard(request, form))
    else:
        guards.append(forced)
        if enabled.get("verify"):
            repeated = special_tokens.neutralize(request.requested)
            guards.append(
                VerifyGuard(
                    request,
                    answer_format=options.get("answer_format"),
                    repeated=repeated,
                    same=same,
                )
            )
    limit = request.max_output_tokens
    for guard in reversed(guards):
        limit -= guard.reserve(limit)
    trace = GuardedTrace(
        question=request.question,
        number=number,
        limit=limit,
        budget=forced.budget if form is None else None,
    )
    return GuardChain(
        guards,
        trace,
        dataclasses.replace(request, max_output_tokens=limit),
        later_schema=form.schema if form is not None else None,
    )
