"""One sample of a vote, whose generations belong to the attempt: stores its start, runs it, stores its end."""

from __future__ import annotations

import dataclasses
import itertools
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

import structlog

from core.database import Database
from core.database_faults import DatabaseUnavailable, until_available
from jobs import engine
from jobs.store import claims, traces
from worker import compilations, leases
from worker.engines.pool import EnginePool
from worker.guards.chain import GuardChain
from worker.leases import StopReason
from worker.run.attempt import AttemptRun, RunResult
from worker.run.trace_buffer import TraceWriter

_log = structlog.get_logger(__name__)

_SEEDS = 2**31


class GuardBuilder(Protocol):
    """Returns the guards of a request, as :func:`worker.guards.chain.build` does for one job."""

    def __call__(
        self, request: engine.GenerationRequest, *, engine_: engine.Engine, number: int
    ) -> GuardChain:
        """Return the guards of a request that an engine runs as the generation with a number."""


class SampleRunner:
    """Runs the samples of one attempt, each in a thread of its own. For any thread.

    Args:
        database: where the attempt is stored.
        engines: hear how the generations go.
        claim: the job.
        trace_writer: stores the partial traces.
        grammars: decides when a JSON Schema may be compiled.
        guard: returns the guards of a request.
        on_first_token: called each time an engine begins to answer.
    """

    def __init__(
        self,
        database: Database,
        *,
        engines: EnginePool,
        claim: claims.Claim,
        trace_writer: TraceWriter,
        grammars: compilations.Compilations,
        guard: GuardBuilder,
        on_first_token: Callable[[], None],
    ) -> None:
        self._database = database
        self._engines = engines
        self._claim = claim
        self._trace_writer = trace_writer
        self._grammars = grammars
        self._guard = guard
        self._on_first_token = on_first_token
        #: Numbers of generations. The first sample has 0; all others, and all that follow from them, take the next.
        self._numbers = itertools.count(1)

    def run(
        self,
        request: engine.GenerationRequest,
        *,
        vote: int,
        engine_: engine.Engine,
        lease: leases.Lease,
        started_at: datetime | None,
    ) -> RunResult | None:
        """Run one sample to its end.

        Args:
            request: the request of the first sample; ``max_output_tokens`` is the budget of the whole sample.
            vote: the number of the sample among the votes.
            engine_: runs it.
            lease: stops it.
            started_at: its start, if that is stored already.

        Returns:
            How it ended, or None if it was stopped before it began.
        """
        number = 0
        if started_at is None:
            number = next(self._numbers)
            seed = None if request.seed is None else (request.seed + vote) % _SEEDS
            request = dataclasses.replace(request, rid=uuid.uuid4().hex, seed=seed)
            started_at = self._join(number, request.rid, lease)
            if started_at is None:
                return None
        attempt = AttemptRun(
            self._database,
            engine_=engine_,
            lease=lease,
            trace_writer=self._trace_writer,
            grammars=self._grammars,
            on_first_token=lambda: self._begun(engine_),
            numbers=self._numbers,
        )
        guards = self._guard(request, engine_=engine_, number=number)
        result = attempt.run(guards, started_at=started_at, number=number)
        if fault := result.engine_fault:
            self._engines.report(engine_, fault)
        self._leave(result.last.end)
        return result

    def _begun(self, engine_: engine.Engine) -> None:
        self._engines.report(engine_, None)
        self._on_first_token()

    def _join(self, number: int, rid: str, lease: leases.Lease) -> datetime | None:
        """Store a sample's start; retry until the database answers.

        Returns:
            The start, or None if the job is lost or was stopped meanwhile.
        """
        if lease.reason is not None:
            return None
        try:
            started_at = until_available(
                lambda: claims.join(self._database, self._claim, rid=rid, generation=number),
                failed="sample_not_begun",
                give_up=lease.stopped_within,
            )
        except DatabaseUnavailable:
            return None
        if started_at is None:
            lease.mark(StopReason.LOST)
        return started_at

    def _leave(self, end: traces.GenerationEnd) -> None:
        """Store a sample's end for the clients that follow the job. It is written again with the attempt's end."""
        try:
            claims.leave(self._database, self._claim, end)
        except DatabaseUnavailable:
            _log.warning("sample_not_noted")
