"""Probes: when they end a trace, and that none is left at the engine."""

from __future__ import annotations

import threading
from collections.abc import Callable

from core import errors, profiles
from jobs import engine
from jobs.lifecycle import Status
from jobs.store import commands
from scripted import Scripted, ScriptedOptions
from scripted.engine import ScriptedStream
from tests.worker import behaviors
from tests.worker.behaviors import BUDGET, found, run_behavior
from tests.worker.conftest import Bench
from worker.guards import convergence

OPTIONS = ScriptedOptions(tokens_per_second=2000, prefill_tokens_per_second=0)


class RecordingEngine(Scripted):
    """A scripted engine that records its requests."""

    def __init__(self, options: ScriptedOptions = OPTIONS) -> None:
        super().__init__(options=options, profile=profiles.QVQ)
        self.requested: list[engine.GenerationRequest] = []
        self.aborted: list[str] = []
        self.probed = threading.Event()

    def stream(self, request: engine.GenerationRequest) -> ScriptedStream:
        self.requested.append(request)
        if len(self.requested) > 1:
            self.probed.set()
        return super().stream(request)

    def abort(self, rid: str) -> None:
        self.aborted.append(rid)
        super().abort(rid)

    @property
    def probes_requested(self) -> list[engine.GenerationRequest]:
        return [
            request for request in self.requested if request.max_output_tokens == convergence.TOKENS
        ]


def test_two_probes_that_agree_end_a_trace_that_would_reach_its_limit(bench: Bench) -> None:
    right = bench.view(run_behavior(bench, "clean", temperature=0)).job.answer_text

    job_id = run_behavior(
        bench, "no_answer_at_length", tokens_per_second=500, temperature=0, convergence=True
    )

    job = bench.view(job_id).job
    assert found(bench, job_id) == [("converged", "forced")]
    [finding] = bench.view(job_id).findings
    assert finding.tokens_saved >= 0.8 * BUDGET
    assert finding.evidence["probes"] == 2
    assert finding.evidence["tokens"] < 2.1 * finding.evidence["earlier_tokens"]
    look, forced = bench.trace(job_id)
    assert (look.finish_reason, forced.continues, forced.valid_chars) == (
        "cut",
        0,
        finding.start_char,
    )
    assert (job.answer_forced, job.answer_text) == (True, right)
    assert (job.output_tokens or 0) < 0.2 * BUDGET


def test_probes_are_greedy_continue_the_trace_and_are_billed(bench: Bench) -> None:
    subject = RecordingEngine(OPTIONS.model_copy(update={"behavior": "no_answer_at_length"}))
    job_id = behaviors.submit(bench, convergence=True)

    behaviors.work(bench, subject)

    look, forced = bench.trace(job_id)
    first, second = subject.probes_requested
    assert first.rid != second.rid
    for probe in (first, second):
        assert probe.sampling.temperature == 0
        said, ask, _ = (probe.continuation or "").partition("\n\n**Final Answer**")
        assert ask
        assert look.text.startswith(said)
        assert (probe.salt, probe.images) == (
            subject.requested[0].salt,
            subject.requested[0].images,
        )
    assert len(second.continuation or "") > 1.5 * len(first.continuation or "")
    # The look's own prompt was new, and of the second probe's most had been the first one's.
    assert (look.cached_tokens or 0) > len(first.continuation or "") / 6
    job = bench.view(job_id).job
    assert job.input_tokens == (look.input_tokens or 0) + (forced.input_tokens or 0)


def test_a_trace_that_reaches_its_answer_is_not_cut(bench: Bench) -> None:
    job_id = run_behavior(bench, "clean", tokens_per_second=2000, convergence=True)

    assert found(bench, job_id) == []
    assert len(bench.trace(job_id)) == 1


def test_a_budget_with_room_for_one_probe_has_none(bench: Bench) -> None:
    subject = RecordingEngine(OPTIONS.model_copy(update={"behavior": "no_answer_at_length"}))
    behaviors.submit(bench, convergence=True, max_output_tokens=100)

    behaviors.work(bench, subject)

    assert len(subject.requested) == 1


def test_a_fault_of_a_probe_does_not_affect_the_trace(bench: Bench) -> None:
    class Sparing(RecordingEngine):
        def stream(self, request: engine.GenerationRequest) -> ScriptedStream:
            if request.max_output_tokens == convergence.TOKENS:
                raise errors.EngineBusy("Full.")
            return super().stream(request)

    job_id = behaviors.submit(bench, convergence=True)

    behaviors.work(bench, Sparing())

    job = bench.view(job_id).job
    assert (job.status, job.failures, found(bench, job_id)) == (Status.SUCCEEDED, 0, [])


def test_a_cancel_leaves_no_probe_at_the_engine(
    bench: Bench, wait_for: Callable[[Callable[[], bool]], bool]
) -> None:
    """Prefill is slow here, so that the probe is still at it when the cancel comes."""
    subject = RecordingEngine(
        ScriptedOptions(
            tokens_per_second=2000, prefill_tokens_per_second=40, behavior="no_answer_at_length"
        )
    )
    job_id = behaviors.submit(bench, convergence=True)
    thread = threading.Thread(target=behaviors.work, args=(bench, subject))
    thread.start()
    assert subject.probed.wait(30)
    assert wait_for(lambda: subject.load().running == 2)

    commands.cancel(bench.database, job_id, account_id=None, actor="key:test")
    bench.leases.look()
    thread.join(60)

    assert not thread.is_alive()
    assert bench.status(job_id) is Status.CANCELLED
    assert subject.load().running == 0
    assert set(subject.aborted) == {request.rid for request in subject.requested}
    [look] = bench.trace(job_id)
    assert look.finish_reason == "cancel"
