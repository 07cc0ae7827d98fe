"""The samples of one attempt, which vote on its answer: run in waves, until the leading answer cannot be overtaken.

The first sample runs alone until its first token; then the engine has the prompt in its cache and the others start.
Each takes an engine slot of its own; if none is free it waits for one of the attempt's own. So an attempt can always
go on with the slot that it came with, and never waits for a job that waits for it. It gives further slots back while
jobs of other accounts wait for them.
"""

from __future__ import annotations

import contextvars
import dataclasses
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

import structlog

from core import errors
from core.database import Database
from jobs import engine
from jobs.answers import votes
from jobs.findings import FindingKind
from worker import compilations, equality, leases
from worker.engines.pool import EnginePool, EngineSlot
from worker.leases import StopReason
from worker.run.attempt import RunResult
from worker.run.sample import GuardBuilder, SampleRunner
from worker.run.trace_buffer import TraceWriter

_log = structlog.get_logger(__name__)

#: Between two looks for an engine slot that another job has given back.
_SLOT_SECONDS = 0.2


@dataclass(frozen=True)
class _RunningSample:
    """A sample that runs."""

    lease: leases.ChildLease
    slot: EngineSlot
    future: Future[RunResult | None]


class Vote:
    """Runs several samples of one attempt and counts their answers. For one use.

    Args:
        database: where the attempt is stored.
        engines: give further engine slots.
        slot: the engine slot that the attempt came with.
        lease: the job's lease, by which it can be stopped.
        trace_writer: stores the partial traces.
        grammars: decides when a JSON Schema may be compiled.
        same: whether two answers mean the same, as :meth:`worker.equality.Equality.of` returns it.
        guard: returns the guards of a request.
    """

    def __init__(
        self,
        database: Database,
        *,
        engines: EnginePool,
        slot: EngineSlot,
        lease: leases.Lease,
        trace_writer: TraceWriter,
        grammars: compilations.Compilations,
        same: Callable[[str, str], bool],
        guard: GuardBuilder,
    ) -> None:
        self._engines = engines
        self._slot = slot
        self._lease = lease
        self._same = same
        self._samples = SampleRunner(
            database,
            engines=engines,
            claim=lease.claim,
            trace_writer=trace_writer,
            grammars=grammars,
            guard=guard,
            on_first_token=self._release_others,
        )
        #: All slots that were ever taken, and those of them that no sample uses.
        self._slots = [slot]
        self._idle = [slot]
        self._running: dict[int, _RunningSample] = {}
        #: Votes that the engine had no room for; they run again when it may have room.
        self._refused: list[int] = []
        #: Refused votes that ran again although no other sample was running.
        self._retried_alone: set[int] = set()
        self._started: set[int] = set()
        self._cast: dict[int, RunResult] = {}
        self._classes: list[votes.AnswerClass] = []
        #: Samples that do not count: stopped and refused ones.
        self._uncounted: list[RunResult] = []
        self._fault: RunResult | None = None
        #: Why the answers could not be compared, if they could not.
        self._uncompared: errors.AnswersNotCompared | None = None
        self._others_may_start = threading.Event()
        self._changed = threading.Condition()
        self._changes = 0

    def run(
        self, request: engine.GenerationRequest, *, requested: int, started_at: datetime
    ) -> RunResult:
        """Let up to ``requested`` samples vote; return everything that they left, the winner's answer first.

        Args:
            request: the request of the first sample, whose start is stored.
            requested: how many samples, at least 2.
            started_at: the start of the first sample by the database's clock.
        """
        try:
            with ThreadPoolExecutor(requested, thread_name_prefix="sample") as threads:
                try:
                    self._run_waves(request, requested, started_at, threads)
                finally:
                    self._stop_running()
            self._collect(None, requested)
            if self._fault is not None and self._decided(requested):
                # The samples that were stopped for the fault had decided the vote nevertheless.
                self._uncounted.append(self._fault)
                self._fault = None
        finally:
            self._lease.ended()
            self._release_slots()
        return self._result(requested)

    def _run_waves(
        self,
        request: engine.GenerationRequest,
        requested: int,
        started_at: datetime,
        threads: ThreadPoolExecutor,
    ) -> None:
        first = 0
        for size in votes.waves(requested):
            waiting = deque(range(first, first + size))
            first += size
            while True:
                seen = self._changes
                self._collect(waiting, requested)
                # The start of the first sample is stored: it runs, and gets an end, even if the job is stopped.
                if self._started and self._over(requested):
                    return
                self._start(waiting, request, started_at, threads)
                if not waiting and not self._running:
                    break
                self._wait(seen, for_slot=bool(waiting) and self._others_may_start.is_set())

    def _over(self, requested: int) -> bool:
        """Return whether no further sample is needed."""
        return (
            self._fault is not None
            or self._lease.reason is not None
            or self._uncompared is not None
            or self._decided(requested)
        )

    def _decided(self, requested: int) -> bool:
        """Return whether the missing votes can no longer change the winner."""
        return self._uncompared is None and votes.decided(
            self._classes, cast=self._cast, requested=requested
        )

    def _start(
        self,
        waiting: deque[int],
        request: engine.GenerationRequest,
        started_at: datetime,
        threads: ThreadPoolExecutor,
    ) -> None:
        """Start the samples of ``waiting`` for which there are engine slots; the first one alone until it answers."""
        while waiting and (waiting[0] == 0 or self._others_may_start.is_set()):
            slot = self._idle.pop() if self._idle else self._engines.another(self._slot)
            if slot is None:
                return
            self._slots.append(slot)
            vote = waiting.popleft()
            lease = self._lease.child()
            future = threads.submit(
                contextvars.copy_context().run,
                self._samples.run,
                request,
                vote=vote,
                engine_=slot.engine,
                lease=lease,
                started_at=started_at if vote == 0 and vote not in self._started else None,
            )
            self._started.add(vote)
            self._running[vote] = _RunningSample(lease, slot, future)
            future.add_done_callback(self._sample_ended)

    def _release_others(self) -> None:
        """Let the other samples start: the engine has the prompt now."""
        if not self._others_may_start.is_set():
            self._others_may_start.set()
            self._note_change()

    def _sample_ended(self, future: Future[RunResult | None]) -> None:
        del future
        self._note_change()

    def _note_change(self) -> None:
        with self._changed:
            self._changes += 1
            self._changed.notify_all()

    def _wait(self, seen: int, *, for_slot: bool) -> None:
        """Wait for a change after the change ``seen``; with ``for_slot`` only until the next look for a slot."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._changes != seen, timeout=_SLOT_SECONDS if for_slot else None
            )

    def _collect(self, waiting: deque[int] | None, requested: int) -> None:
        """Take the results of the samples that have ended, and count the votes again.

        Args:
            waiting: votes of the wave that have not started; None if no more will start.
            requested: how many samples vote at most.
        """
        ended = [vote for vote, sample in self._running.items() if sample.future.done()]
        for vote in ended:
            self._take(vote, self._running.pop(vote), waiting)
        if self._refused and not self._running and waiting is not None and self._fault is None:
            # The samples that took its room have failed as well: there is nothing left to wait for.
            self._run_refused(waiting)
        if not (self._running or waiting or self._refused) and len(self._started) == requested:
            # No sample is left to run: other jobs get the engine while formulas are compared.
            self._release_slots()
        if self._uncompared is None:
            self._count()

    def _take(self, vote: int, sample: _RunningSample, waiting: deque[int] | None) -> None:
        """Take the result of a sample that has ended."""
        # Even if the first sample failed, the others need not wait for it any longer.
        self._others_may_start.set()
        enough = not waiting and not self._refused
        if self._running and (enough or self._engines.must_yield(sample.slot)):
            sample.slot.release(notify=True)
        else:
            self._idle.append(sample.slot)
        result = sample.future.result()
        if result is None:
            return
        if sample.lease.reason is not None:
            self._uncounted.append(result)
        elif result.last.fault is None:
            self._cast[vote] = result
            self._run_refused(waiting)
        elif _refused(result) and (self._running or self._may_retry_alone(vote)):
            self._uncounted.append(result)
            self._refused.append(vote)
        elif self._fault is None:
            self._fault = result
        else:
            self._uncounted.append(result)

    def _count(self) -> None:
        """Put the answers into classes; this may wait until the account may compare formulas."""
        answers = {vote: result.last.standing.answer for vote, result in self._cast.items()}
        texts = {vote: answer.text if answer else None for vote, answer in answers.items()}
        try:
            self._classes = votes.classes(texts, self._same)
        except equality.ComparisonStopped:
            # The lease knows why.
            return
        except errors.AnswersNotCompared as error:
            self._uncompared = error

    def _release_slots(self) -> None:
        self._idle.clear()
        for slot in self._slots:
            slot.release(notify=True)

    def _run_refused(self, waiting: deque[int] | None) -> None:
        """Let refused samples run again in this wave."""
        if waiting is not None:
            waiting.extend(self._refused)
            self._refused.clear()

    def _may_retry_alone(self, vote: int) -> bool:
        """Return whether a sample that was refused while no other runs may run again: once, and after an answer.

        The sample that ended before it may have taken the room that it was refused, and returns it now.
        """
        if not self._cast or vote in self._retried_alone:
            return False
        self._retried_alone.add(vote)
        return True

    def _stop_running(self) -> None:
        """Stop the samples that still run: the attempt does not need them any more."""
        for sample in self._running.values():
            if sample.lease.mark(StopReason.UNNEEDED) or self._lease.reason is StopReason.LOST:
                threading.Thread(
                    target=sample.lease.end_stream, name="unneeded", daemon=True
                ).start()

    def _result(self, requested: int) -> RunResult:
        """Return the winner's result, with everything that the others left to write."""
        cast = [self._cast[vote] for vote in sorted(self._cast)]
        chosen = self._fault or (cast or self._uncounted)[0]
        if self._fault is None and self._classes:
            chosen = self._cast[self._classes[0].votes[0]]
        results = [*cast, *self._uncounted, *([self._fault] if self._fault else [])]
        ends = {
            end.generation: end for result in results for end in (result.last.end, *result.others)
        }
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
            others=tuple(end for end in ends.values() if end.generation != last.end.generation),
            tally=tally,
        )

    def _tally(self, requested: int, chosen: RunResult) -> votes.Tally:
        voted = {vote for answer_class in self._classes for vote in answer_class.votes}
        verified = [
            finding.generation
            for finding in chosen.last.findings
            if finding.kind is FindingKind.VERIFY
        ]
        return votes.Tally(
            requested=requested,
            begun=len(self._started),
            classes=tuple(self._classes),
            abstained=tuple(sorted(self._cast.keys() - voted)),
            generations={
                vote: result.last.standing.end.generation for vote, result in self._cast.items()
            },
            look=verified[0] if verified else None,
        )


def _refused(result: RunResult) -> bool:
    """Return whether the engine had no room for a sample: a fault that does not count."""
    fault = result.last.fault
    return fault is not None and fault.retryable and not fault.counted
