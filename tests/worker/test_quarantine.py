"""An image that takes engines down, through a worker: counted, and in the end not asked about any more."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from core import errors
from jobs.engine import Chunk
from jobs.lifecycle import Status
from jobs.store import quarantine
from tests.databases import Age
from tests.worker.conftest import Bench, submitted

Wait = Callable[[Callable[[], bool]], bool]


def test_an_image_that_kills_engines_is_quarantined(bench: Bench, age: Age, wait_for: Wait) -> None:
    first = bench.submit(max_attempts=9)
    for _ in range(2):
        bench.engine.feed(Chunk(text="I see"), errors.EngineLost("The engine hung up."))
        # The engine rests after each death.
        assert wait_for(lambda: bench.runner.work() > 0)
        age(100)
    second = bench.submit()

    assert wait_for(lambda: bench.runner.work() > 0)

    for job_id in (first, second):
        job = bench.view(job_id).job
        assert (job.status, job.error_code) == (Status.FAILED, "image_quarantined")
    assert len(bench.engine.requests) == 2
    assert bench.view(second).job.attempt == 1
    held = quarantine.held(bench.database, bench.account_id, [submitted().key])
    assert held == {submitted().key}


@pytest.mark.parametrize(
    "fault",
    [
        errors.EngineFault("It failed."),
        errors.EngineBusy("No room."),
        errors.EngineUnavailable("Nothing answers."),
    ],
    ids=lambda fault: fault.code,
)
def test_other_faults_accuse_no_image(bench: Bench, age: Age, fault: errors.EngineError) -> None:
    bench.submit(max_attempts=9)
    for _ in range(3):
        bench.engine.feed(fault)
        bench.runner.work()
        age(100)
        bench.engines.refresh()

    assert quarantine.held(bench.database, bench.account_id, [submitted().key]) == set()
