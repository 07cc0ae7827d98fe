"""The samples of one attempt, which vote on its answer: asked in waves, until the leader cannot be overtaken.

The first sample leads: the others begin with its first token, when the engine has the prompt in its cache. Each takes
a permit of its own; where none is free it waits for one of the attempt's own. So an attempt gets on with the one it
came with, and never waits for a job that waits for it. It gives further ones back while jobs of others wait for them.
"""

from __future__ import annotations

import contextvars
import dataclasses
import itertools
import threading
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import structlog

from core import errors
from core.database import Database, DatabaseUnavailable
from jobs import engine
from jobs.answers import votes
from jobs.findings import FindingKind
from jobs.store import claims, traces
from worker import compilations, equality, leases
from worker.engines.pool import EnginePool, EngineSlot
from worker.guards.chain import GuardChain
from worker.leases import StopReason
from worker.run.attempt import Attempt, RunResult
from worker.run.trace_buffer import TraceWriter

_log = structlog.get_logger(__name__)

_PAUSE_SECONDS = 1.0
#: Between two looks for a permit that another job has given back.
_PERMIT_SECONDS = 0.2
_SEEDS = 2**31


class GuardBuilder(Protocol):
    """Returns the guards of a request, as :func:`worker.guards.chain.build` does for one job."""

    def __call__(
        self, request: engine.GenerationRequest, *, engine_: engine.Engine, sample: int
    ) -> GuardChain:
        """Return the guards of a request that an engine runs as a sample."""


@dataclass(frozen=True)
class _RunningSample:
    """A sample that runs."""

    branch: leases.ChildLease
    permit: EngineSlot
    future: Future[RunResult | None]


class Vote:
    """Asks an engine one job's question several times. To be used once.

    Args:
        database: where the attempt is kept.
        engines: give further permits.
        permit: the one that the attempt came with.
        lease: the job's lease, by which it can be stopped.
        recorder: keeps the partial traces.
        grammars: whose turn it is to have a schema compiled.
        same: whether two answers say the same, as :meth:`worker.equality.Equality.of` returns it.
        guard: returns the guards of a request.
    """

    def __init__(
        self,
        database: Database,
        *,
        engines: EnginePool,
        permit: EngineSlot,
        lease: leases.Lease,
        recorder: TraceWriter,
        grammars: compilations.Compilations,
        same: Callable[[str, str], bool],
        guard: GuardBuilder,
    ) -> None:
        self._database = database
        self._engines = engines
        self._permit = permit
        self._lease = lease
        self._recorder = recorder
        self._grammars = grammars
        self._same = same
        self._guard = guard
        #: Of the streams; the leader has 0. A stream that goes on from another one takes the next, like any.
        self._numbers = itertools.count(1)
        #: All that were ever in hand, and those of them that no sample uses.
        self._permits = [permit]
        self._idle = [permit]
        self._running: dict[int, _RunningSample] = {}
        #: Votes that the engine had no room for; they are asked for again when it may have.
        self._refused: list[int] = []
        self._insisted: set[int] = set()
        self._begun: set[int] = set()
        self._cast: dict[int, RunResult] = {}
        self._classes: list[votes.AnswerClass] = []
        #: What does not count: stopped and refused samples.
        self._rest: list[RunResult] = []
        self._fault: RunResult | None = None
        #: Why the answers could not be compared, when they could not.
        self._uncompared: errors.AnswersNotCompared | None = None
        self._led = threading.Event()
        self._news = threading.Condition()
        self._changes = 0

    def run(
        self, request: engine.GenerationRequest, *, requested: int, started_at: datetime
    ) -> RunResult:
        """Have up to ``requested`` samples vote; return what they left behind, the winner's answer first.

        Args:
            request: the leader's; its start has been noted.
            requested: how many samples, 2 at least.
            started_at: its start by the database's clock.
        """
        try:
            with ThreadPoolExecutor(requested, thread_name_prefix="sample") as threads:
                try:
                    self._ask_all(request, requested, started_at, threads)
                finally:
                    self._dismiss()
            self._collect(None, requested)
            if self._fault is not None and self._decided(requested):
                # It was decided all the same, while the others were stopped for it.
                self._rest.append(self._fault)
                self._fault = None
        finally:
            self._lease.ended()
            self._give_back()
        return self._result(requested)

    def _ask_all(
        self,
        request: engine.GenerationRequest,
        requested: int,
        started_at: datetime,
        threads: ThreadPoolExecutor,
    ) -> None:
        first = 0
        for size in votes.waves(requested):
            wanted = deque(range(first, first + size))
            first += size
            while True:
                seen = self._changes
                self._collect(wanted, requested)
                # What was stopped before it began has a beginning all the same, and gets an end.
                if self._begun and self._over(requested):
                    return
                self._begin(wanted, request, started_at, threads)
                if not wanted and not self._running:
                    break
                self._wait(seen, hurry=bool(wanted) and self._led.is_set())

    def _over(self, requested: int) -> bool:
        """Whether no further sample is needed, for better or worse."""
        return (
            self._fault is not None
            or self._lease.reason is not None
            or self._uncompared is not None
            or self._decided(requested)
        )

    def _decided(self, requested: int) -> bool:
        """Whether the votes that are missing can no longer change the winner."""
        return self._uncompared is None and votes.decided(
            self._classes, cast=self._cast, requested=requested
        )

    def _begin(
        self,
        wanted: deque[int],
        request: engine.GenerationRequest,
        started_at: datetime,
        threads: ThreadPoolExecutor,
    ) -> None:
        """Begin those of ``wanted`` for which there are permits; until the leader has led, itself alone."""
        while wanted and (wanted[0] == 0 or self._led.is_set()):
            permit = self._idle.pop() if self._idle else self._engines.another(self._permit)
            if permit is None:
                return
            self._permits.append(permit)
            vote = wanted.popleft()
            branch = self._lease.branch()
            future = threads.submit(
                contextvars.copy_context().run,
                self._ask,
                vote,
                request,
                started_at if vote not in self._begun and vote == 0 else None,
                permit,
                branch,
            )
            self._begun.add(vote)
            self._running[vote] = _RunningSample(branch, permit, future)
            future.add_done_callback(self._record)

    def _ask(
        self,
        vote: int,
        request: engine.GenerationRequest,
        started_at: datetime | None,
        permit: EngineSlot,
        branch: leases.ChildLease,
    ) -> RunResult | None:
        """Run one sample to its end, in a thread of its own; None when it was stopped before it began."""
        number = 0
        if started_at is None:
            number = next(self._numbers)
            seed = None if request.seed is None else (request.seed + vote) % _SEEDS
            request = dataclasses.replace(request, rid=uuid.uuid4().hex, seed=seed)
            started_at = self._join(number, request.rid, branch)
            if started_at is None:
                return None
        attempt = Attempt(
            self._database,
            engine_=permit.engine,
            lease=branch,
            recorder=self._recorder,
            grammars=self._grammars,
            on_first_token=lambda: self._lead(permit),
            numbers=self._numbers,
        )
        guards = self._guard(request, engine_=permit.engine, sample=number)
        result = attempt.run(guards, started_at=started_at, number=number)
        if fault := result.engine_fault:
            self._engines.report(permit.engine, fault)
        self._leave(result.last.end)
        return result

    def _lead(self, permit: EngineSlot) -> None:
        """Let the others follow: the engine has the prompt now."""
        self._engines.report(permit.engine, None)
        if not self._led.is_set():
            self._led.set()
            self._record()

    def _join(self, number: int, rid: str, branch: leases.ChildLease) -> datetime | None:
        """Note a sample's start, through outages; None when the job is lost or was stopped meanwhile."""
        pause = threading.Event()
        while branch.reason is None:
            try:
                started_at = claims.join(self._database, self._lease.claim, rid=rid, sample=number)
            except DatabaseUnavailable:
                _log.warning("sample_not_begun")
                pause.wait(_PAUSE_SECONDS)
                continue
            if started_at is None:
                branch.mark(StopReason.LOST)
            return started_at
        return None

    def _leave(self, ended: traces.GenerationEnd) -> None:
        """Note a sample's end for those who look on. It is written again with the attempt's."""
        try:
            claims.leave(self._database, self._lease.claim, ended)
        except DatabaseUnavailable:
            _log.warning("sample_not_noted")

    def _record(self, future: Future[RunResult | None] | None = None) -> None:
        """Wake who waits for news: a sample has ended, or the leader has begun to answer."""
        del future
        with self._news:
            self._changes += 1
            self._news.notify_all()

    def _wait(self, seen: int, *, hurry: bool) -> None:
        """Wait for news beyond the change ``seen``; in a hurry a permit of another job's is news too."""
        with self._news:
            self._news.wait_for(
                lambda: self._changes != seen, timeout=_PERMIT_SECONDS if hurry else None
            )

    def _collect(self, wanted: deque[int] | None, requested: int) -> None:
        """Take in the samples that have ended, and count the votes again.

        Args:
            wanted: votes of the wave that are still to be asked for; None: no more will be.
            requested: how many samples vote at the most.
        """
        for vote, running_sample in [one for one in self._running.items() if one[1].future.done()]:
            self._take(vote, running_sample, wanted)
        if self._refused and not self._running and wanted is not None and self._fault is None:
            # Those beside which it was refused have ended as badly: nothing is left to wait for.
            self._again(wanted)
        if not (self._running or wanted or self._refused) and len(self._begun) == requested:
            # Nothing is left to ask: no engine has to wait while formulas are compared.
            self._give_back()
        if self._uncompared is None:
            self._count()

    def _take(self, vote: int, running_sample: _RunningSample, wanted: deque[int] | None) -> None:
        """Take in a sample that has ended."""
        del self._running[vote]
        # Whatever came of the leader, the others need not wait for it any longer.
        self._led.set()
        enough = not wanted and not self._refused
        if self._running and (enough or self._engines.must_yield(running_sample.permit)):
            running_sample.permit.release(notify=True)
        else:
            self._idle.append(running_sample.permit)
        result = running_sample.future.result()
        if result is None:
            return
        if running_sample.branch.reason is not None:
            self._rest.append(result)
        elif result.last.fault is None:
            self._cast[vote] = result
            self._again(wanted)
        elif self._full(result) and (self._running or self._may_insist(vote)):
            self._rest.append(result)
            self._refused.append(vote)
        elif self._fault is None:
            self._fault = result
        else:
            self._rest.append(result)

    def _count(self) -> None:
        """Put the answers into classes; that may have to wait for the account's turn."""
        said = {vote: result.last.standing.answer for vote, result in self._cast.items()}
        texts = {vote: answer.text if answer else None for vote, answer in said.items()}
        try:
            self._classes = votes.classes(texts, self._same)
        except equality.ComparisonStopped:
            # The holding knows why.
            return
        except errors.AnswersNotCompared as error:
            self._uncompared = error

    def _give_back(self) -> None:
        self._idle.clear()
        for permit in self._permits:
            permit.release(notify=True)

    def _again(self, wanted: deque[int] | None) -> None:
        if wanted is not None:
            wanted.extend(self._refused)
            self._refused.clear()

    def _may_insist(self, vote: int) -> bool:
        """Whether a sample that was refused with none beside it any more is asked for again: once, after an answer.

        The one that ended before it may have taken the room that it was refused, and gives it back now.
        """
        if not self._cast or vote in self._insisted:
            return False
        self._insisted.add(vote)
        return True

    @staticmethod
    def _full(result: RunResult) -> bool:
        """Whether the engine had no room for a sample: a fault that counts for nothing."""
        fault = result.last.fault
        return fault is not None and fault.retryable and not fault.counted

    def _dismiss(self) -> None:
        """Stop the samples that run: nothing hangs on them any more."""
        for running_sample in self._running.values():
            if (
                running_sample.branch.mark(StopReason.UNNEEDED)
                or self._lease.reason is StopReason.LOST
            ):
                threading.Thread(
                    target=running_sample.branch.end_stream, name="unneeded", daemon=True
                ).start()

    def _result(self, requested: int) -> RunResult:
        """Return the winner's result, with everything that the others left to write."""
        cast = [self._cast[vote] for vote in sorted(self._cast)]
        chosen = self._fault or (cast or self._rest)[0]
        if self._fault is None and self._classes:
            chosen = self._cast[self._classes[0].votes[0]]
        results = [*cast, *self._rest, *([self._fault] if self._fault else [])]
        ends = {end.sample: end for result in results for end in (result.last.end, *result.others)}
        last = chosen.last
        if self._uncompared is not None and self._lease.reason is None:
            last = dataclasses.replace(last, fault=self._uncompared)
        tally = None
        if last.fault is None and self._fault is None and self._lease.reason is None:
            tally = self._tally(requested, chosen)
            _log.info(
                "votes_counted", requested=requested, begun=tally.begun, counted=tally.counted
            )
        findings = tuple(finding for result in results for finding in result.last.findings)
        return RunResult(
            dataclasses.replace(last, findings=findings),
            others=tuple(end for end in ends.values() if end.sample != last.end.sample),
            tally=tally,
        )

    def _tally(self, requested: int, chosen: RunResult) -> votes.Tally:
        voted = {vote for one in self._classes for vote in one.votes}
        verified = [
            finding.sample for finding in chosen.last.findings if finding.kind is FindingKind.VERIFY
        ]
        return votes.Tally(
            requested=requested,
            begun=len(self._begun),
            classes=tuple(self._classes),
            abstained=tuple(sorted(self._cast.keys() - voted)),
            samples={vote: result.last.standing.end.sample for vote, result in self._cast.items()},
            look=verified[0] if verified else None,
        )
