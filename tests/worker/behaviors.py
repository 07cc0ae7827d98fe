"""Runs one job on the scripted engine as a chosen behavior, with chosen guards."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from typing import Any

from core import profiles
from jobs import engine
from scripted import Clock, Scripted, ScriptedOptions
from scripted.engine import ScriptedStream
from tests.worker.conftest import Bench, real_image
from worker.guards import convergence

BUDGET = 8000
#: The guards that are on by default.
ON = dict.fromkeys(("loop", "budget", "language"), True)


class SkippingTime(Clock):
    """Time that passes as soon as a thread waits for it: a stream has the tokens that its reader has had time for."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def now(self) -> float:
        return self._seconds

    def wait(self, event: threading.Event, seconds: float | None) -> None:
        if seconds is None:
            event.wait(30)
        elif not event.is_set():
            self._seconds += seconds


class PatientStream(ScriptedStream):
    """Gives no further token while a probe runs."""

    def __iter__(self) -> Iterator[engine.Chunk]:
        pause = threading.Event()
        for chunk in super().__iter__():
            while any(thread.name == "probe" for thread in threading.enumerate()):
                pause.wait(0.001)
            yield chunk


class PatientEngine(Scripted):
    """Waits for each probe: a busy machine, whose probes come late, would send more tokens meanwhile."""

    def stream(self, request: engine.GenerationRequest) -> ScriptedStream:
        """Open a stream."""
        probes = request.max_output_tokens == convergence.TOKENS
        kind = ScriptedStream if probes else PatientStream
        return kind(request, self._scheduler, self._clock)


def run_behavior(
    bench: Bench,
    behavior: str,
    *,
    tokens_per_second: float = 0,
    temperature: float = 0.5,
    stream_interval: int = 1,
    **switched: bool,
) -> uuid.UUID:
    """Run one job on a scripted engine of its own to its end; return its id."""
    engine_options = ScriptedOptions(
        tokens_per_second=tokens_per_second,
        prefill_tokens_per_second=0,
        behavior=behavior,
        stream_interval=stream_interval,
    )
    options: dict[str, Any] = {"temperature": temperature, **switched}
    job_id = submit(bench, **options)
    subject = PatientEngine(options=engine_options, profile=profiles.QVQ, clock=SkippingTime())
    work(bench, subject)
    return job_id


def submit(bench: Bench, *, question: str = "How many circles?", **options: Any) -> uuid.UUID:  # noqa: ANN401 - any option
    """Submit a job about a real image; Boolean ``options`` switch guards."""
    switched = {name: value for name, value in options.items() if isinstance(value, bool)}
    others = {name: value for name, value in options.items() if name not in switched}
    return bench.submit(
        question=question,
        options={"max_output_tokens": BUDGET, "guards": ON | switched} | others,
        image=real_image(),
    )


def work(bench: Bench, engine_: engine.Engine, *, jobs: int | None = 1) -> None:
    """Run the due jobs on an engine; there must be ``jobs`` of them, unless that is None."""
    own_bench = bench.with_engine(engine_, profile=profiles.QVQ, quarantine_crashes=3)
    done = own_bench.runner.work()
    assert jobs is None or done == jobs


def found(bench: Bench, job_id: uuid.UUID) -> list[tuple[str, str]]:
    """Return kind and action of all findings of a job."""
    return [(finding.kind, finding.action) for finding in bench.view(job_id).findings]
