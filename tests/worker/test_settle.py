"""A job over which an engine falls silent, through a worker: given up, counted, and in the end its own fault."""

from __future__ import annotations

import dataclasses
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from jobs.images import CanonicalImage
from jobs.lifecycle import Outcome, Status
from jobs.store import history, quarantine
from tests import image_files
from tests.databases import Age
from tests.engines import asking
from tests.engines.conftest import connect
from tests.engines.quiet_engine import Watch
from tests.engines.subjects import OPTIONS, Connect
from tests.fakes import HandTimer
from tests.scripted_server import BackgroundServer
from tests.worker.conftest import Bench, real_image, submitted
from worker.engines.watchdog import WatchedEngine

__all__ = ["connect"]

Wait = Callable[[Callable[[], bool]], bool]
SILENT = 60.0


@dataclass
class Deployment:
    """A worker at a scripted engine over HTTP, whose silence costs no time."""

    bench: Bench
    watched: WatchedEngine
    clock: Watch
    #: By which the engine rests after a failure.
    rest: HandTimer
    wait_for: Wait
    age: Age

    def work(self) -> int:
        """Run the due jobs; the engine has rested."""
        self.rest.seconds += 30
        return self.bench.runner.work()

    def submit(self, question: str, *, max_attempts: int = 3) -> uuid.UUID:
        options = {"max_output_tokens": 1000}
        return self.bench.submit(
            question=question, max_attempts=max_attempts, options=options, image=real_image()
        )

    def begin(self) -> threading.Thread:
        """Have a slot claim the due job; return when its stream waits for its first token."""
        worked = threading.Event()

        def work() -> None:
            while not worked.is_set() and self.work() == 0:
                worked.wait(0.05)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        assert self.wait_for(lambda: self.watched.waiting > 0)
        return thread

    def give_up(self, *threads: threading.Thread, answering: bool = False) -> None:
        """Let the time pass after which silence is not believed, with or without an answer to another job."""
        self.watched.look()
        self.clock.seconds += SILENT - 5
        self.watched.look()
        if answering:
            self.bench.submit(options={"max_output_tokens": 1000}, image=other_image())
            assert self.wait_for(lambda: self.work() == 1)
        self.clock.seconds += 15
        self.watched.look()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()


def other_image() -> CanonicalImage:
    data = image_files.file_of(image_files.gradient(112, 112))
    return dataclasses.replace(submitted("b"), data=data)


@pytest.fixture
def deployment(bench: Bench, connect: Connect, wait_for: Wait, age: Age) -> Iterator[Deployment]:
    clock = Watch()
    with BackgroundServer(OPTIONS) as server:
        watched = WatchedEngine(
            connect(server.url), silent_seconds=SILENT, now=clock, period_seconds=0
        )
        rest = HandTimer()
        bench = bench.with_engine(watched, quarantine_crashes=3, now=rest)
        yield Deployment(bench, watched, clock, rest, wait_for, age)


def test_a_job_over_which_the_engine_falls_silent_is_retried_once_and_then_fails(
    deployment: Deployment,
) -> None:
    bench = deployment.bench
    job_id = deployment.submit("[[behavior:mute]] How many?", max_attempts=20)
    room = bench.engines.window()

    deployment.give_up(deployment.begin())

    job, attempt = bench.view(job_id).job, bench.attempt(job_id).attempt
    assert (job.status, job.failures) == (Status.QUEUED, 1)
    assert (attempt.outcome, attempt.error_code) == (Outcome.RETRIED, "engine_silent")
    assert "streams running and 0 waiting" in (attempt.error_message or "")
    assert bench.engines.acquire() is None, "the engine rests"
    deployment.age(100)

    deployment.give_up(deployment.begin())

    job = bench.view(job_id).job
    assert (job.status, job.error_code, job.error_retryable) == (
        Status.FAILED,
        "engine_silent",
        True,
    )
    assert job.attempt == 2
    assert [trace.text for trace in bench.trace(job_id)] == ["", ""]
    assert deployment.wait_for(lambda: deployment.watched.load().running == 0)
    # One stream at a time until one goes well: then all of them.
    deployment.rest.seconds += 30
    trial = bench.engines.acquire()
    assert trial is not None
    assert bench.engines.acquire() is None
    bench.engines.report(trial.engine, None)
    trial.release()
    assert sum(1 for _ in iter(bench.engines.acquire, None)) == room


def test_an_engine_that_answers_other_jobs_keeps_getting_them(deployment: Deployment) -> None:
    bench = deployment.bench
    stuck = deployment.submit("[[behavior:mute]] How many?")
    thread = deployment.begin()
    deployment.watched.look()
    deployment.clock.seconds += SILENT - 5
    deployment.watched.look()
    well = deployment.submit("How many circles?")
    assert bench.runner.work() == 1

    deployment.clock.seconds += 15
    deployment.watched.look()

    thread.join(30)
    assert bench.view(well).job.status is Status.SUCCEEDED
    assert bench.attempt(stuck).attempt.error_code == "engine_silent"
    permit = bench.engines.acquire()
    assert permit is not None


def test_an_image_over_which_engines_fall_silent_is_quarantined(deployment: Deployment) -> None:
    bench = deployment.bench
    for attempts in (2, 1):
        job_id = deployment.submit("[[behavior:mute]] How many?", max_attempts=20)
        for _ in range(attempts):
            deployment.give_up(deployment.begin(), answering=True)
            deployment.age(100)

    assert bench.view(job_id).job.error_code == "image_quarantined"
    keys = [real_image().key, other_image().key]
    assert quarantine.held(bench.database, bench.account_id, keys) == {real_image().key}


def test_an_engine_that_is_silent_to_all_accuses_no_image(deployment: Deployment) -> None:
    bench = deployment.bench
    for _ in range(2):
        job_id = deployment.submit("[[behavior:mute]] How many?")
        for _ in range(2):
            deployment.give_up(deployment.begin())
            deployment.age(100)
        assert bench.view(job_id).job.error_code == "engine_silent"

    assert not quarantine.held(bench.database, bench.account_id, [real_image().key])


def test_an_engine_that_is_silent_to_other_jobs_too_is_at_fault(deployment: Deployment) -> None:
    bench = deployment.bench
    job_id = deployment.submit("[[behavior:mute]] How many?", max_attempts=3)
    for attempt in (1, 2):
        # The engine is on trial the second time: this stream needs no permit.
        other = asking.Reader(deployment.watched, asking.ask("[[behavior:mute]] How many?"))
        thread = deployment.begin()
        assert deployment.wait_for(lambda: deployment.watched.waiting == 2)

        deployment.give_up(thread)

        other.join()
        job = bench.view(job_id).job
        assert (job.status, job.failures) == (Status.QUEUED, attempt)
        assert bench.attempt(job_id).attempt.error_code == "engine_fault"
        deployment.age(100)


def test_other_failures_of_a_job_do_not_count_as_silence(deployment: Deployment) -> None:
    bench = deployment.bench
    job_id = deployment.submit("[[behavior:fault]] How many?", max_attempts=3)

    for _ in range(3):
        assert deployment.wait_for(lambda: deployment.work() > 0)
        deployment.age(100)

    codes = [view.attempt.error_code for view in history.attempts(bench.database, job_id)]
    assert codes == ["engine_fault"] * 3
