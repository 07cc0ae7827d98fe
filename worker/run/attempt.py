"""One attempt at a job, or one sample of it: a loop over generations, each of which may lead to the next."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from core import errors
from core.database import Database
from core.database_faults import DatabaseUnavailable, until_available
from jobs import engine
from jobs.answers.votes import Tally
from jobs.store import claims, traces
from worker import compilations, leases
from worker.guards.chain import GuardChain
from worker.guards.protocol import AttemptStep, GenerationResult, GuardedGeneration
from worker.leases import StopReason
from worker.run import generation
from worker.run.trace_buffer import TraceWriter


@dataclass(frozen=True)
class RunResult:
    """How an attempt or a sample ended.

    Attributes:
        last: its state after the last generation, whose end is not written yet.
        others: the ends of its other generations that are not written whole yet.
        tally: how its samples voted, if they did.
    """

    last: AttemptStep
    others: tuple[traces.GenerationEnd, ...] = ()
    tally: Tally | None = None

    @property
    def engine_fault(self) -> errors.EngineError | None:
        """What went wrong at the engine, whether or not the attempt fails for it."""
        return self.last.fault or self.last.ignored_fault


@dataclass(frozen=True)
class _Started:
    """A generation whose start is stored."""

    generation: GuardedGeneration
    number: int
    started_at: datetime


class AttemptRun:
    """Runs the generations of one attempt, or of one of its samples.

    Args:
        database: where the attempt is stored.
        engine_: runs the generations.
        lease: the job's lease, by which it can be stopped.
        trace_writer: stores the partial traces.
        grammars: decides when a JSON Schema may be compiled.
        on_first_token: called each time the engine begins to answer.
        numbers: gives each further generation its number. Without it, generations run one after the other and are
            numbered in that order. With it, other samples of the attempt may run at the same time, and the text of
            each generation is written when all have ended.
    """

    def __init__(
        self,
        database: Database,
        *,
        engine_: engine.Engine,
        lease: leases.Lease,
        trace_writer: TraceWriter,
        grammars: compilations.Compilations,
        on_first_token: Callable[[], None],
        numbers: Iterator[int] | None = None,
    ) -> None:
        self._database = database
        self._engine = engine_
        self._lease = lease
        self._trace_writer = trace_writer
        self._grammars = grammars
        self._on_first_token = on_first_token
        self._numbers = numbers

    def run(self, guards: GuardChain, *, started_at: datetime, number: int = 0) -> RunResult:
        """Run the generation that ``guards`` watch, and those that follow from it.

        Args:
            guards: know the first generation and what comes next.
            started_at: the start of the first generation, which is stored already, by the database's clock.
            number: its number.
        """
        started: _Started | None = _Started(guards.reasoning, number, started_at)
        ends: list[traces.GenerationEnd] = []
        with contextlib.closing(guards):
            while started is not None:
                step = started.generation.close(self._generate(started, guards))
                ends.append(step.end)
                started = self._next(guards, step)
        self._lease.ended()
        return RunResult(step, others=() if self._numbers is None else tuple(ends[:-1]))

    def _next(self, guards: GuardChain, step: AttemptStep) -> _Started | None:
        """Start the generation after ``step``; return None if no generation follows, or if the job was stopped."""
        if step.fault is not None or self._lease.reason is not None:
            return None
        following = guards.next(step)
        if following is None:
            return None
        number = step.end.generation + 1 if self._numbers is None else next(self._numbers)
        started_at = self._follow(step, following, number=number)
        return None if started_at is None else _Started(following, number, started_at)

    def _follow(
        self, step: AttemptStep, following: GuardedGeneration, *, number: int
    ) -> datetime | None:
        """Store the end of a generation and the start of the next one; retry until the database answers.

        Returns:
            The start, or None if the job is lost or was stopped meanwhile.
        """
        if self._lease.reason is not None:
            return None
        try:
            followed = until_available(
                lambda: claims.follow(
                    self._database,
                    self._lease.claim,
                    ended=step.end,
                    finding=step.findings[0] if step.findings else None,
                    rid=following.request.rid,
                    generation=number,
                    stored=following.stored,
                    inserted=following.inserted,
                    beside=self._numbers is not None,
                ),
                failed="cut_not_written",
                give_up=self._lease.stopped_within,
            )
        except DatabaseUnavailable:
            return None
        if followed is None:
            self._lease.mark(StopReason.LOST)
            return None
        if self._numbers is None:
            self._trace_writer.skip_to(self._lease.claim, followed.through)
        return followed.started_at

    def _generate(self, started: _Started, guards: GuardChain) -> GenerationResult:
        """Run a generation, unless the engine cannot compile a JSON Schema that it or a later one needs."""
        schema = started.generation.request.schema
        if schema is not None:
            return self._generate_json(started, guards, schema)
        later_schema = started.generation.later_schema
        if later_schema is not None:
            try:
                self._grammars.check(self._engine.url, later_schema)
            except errors.SchemaTimedOut as error:
                return self._not_started(started, error)
        return self._stream(started, guards)

    def _generate_json(
        self, started: _Started, guards: GuardChain, schema: Mapping[str, Any]
    ) -> GenerationResult:
        """Run a generation under a grammar, when it is the account's turn to have that compiled."""
        try:
            with self._grammars.turn(
                self._engine.url,
                self._lease.claim.account_id,
                schema,
                stopped=lambda: self._lease.reason is not None,
            ) as turn:
                self._grammars.check(self._engine.url, schema)
                result = self._stream(started, guards, on_first_token=turn.begun)
                fault = result.fault
                if fault is not None and result.end.first_token_at is None:
                    fault = turn.failed(fault)
                return dataclasses.replace(result, fault=fault)
        except compilations.CompilationStopped:
            return self._not_started(started, None)
        except errors.SchemaTimedOut as error:
            return self._not_started(started, error)

    def _not_started(self, started: _Started, fault: errors.EngineError | None) -> GenerationResult:
        """Return the result of a generation that was never sent to an engine."""
        self._lease.ended()
        return generation.not_started(
            number=started.number,
            started_at=started.started_at,
            reason=self._lease.reason,
            fault=fault,
        )

    def _stream(
        self,
        started: _Started,
        guards: GuardChain,
        *,
        on_first_token: Callable[[], None] = lambda: None,
    ) -> GenerationResult:
        def begun() -> None:
            on_first_token()
            self._on_first_token()

        return generation.run(
            started.generation,
            engine_=self._engine,
            lease=self._lease,
            trace_writer=self._trace_writer,
            pending=lambda: guards.pending,
            number=started.number,
            started_at=started.started_at,
            on_first_token=begun,
        )
