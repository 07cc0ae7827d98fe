"""Jobs are claimed without wakeups if none has arrived for a while."""

from __future__ import annotations

import threading
from collections.abc import Callable

from jobs.lifecycle import Status
from tests.worker.conftest import Bench
from worker.polling import PollingFallback

TRACE = "**Final Answer** \\boxed{6}"


class Watch:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def fallback(
    bench: Bench, watch: Watch, *, work: Callable[[], int] | None = None
) -> PollingFallback:
    return PollingFallback(
        bench.database,
        work=work or bench.runner.work,
        slots=2,
        held=lambda: bench.leases.held,
        silence_seconds=30,
        now=watch,
    )


def busy() -> int:
    """Return how many slots run without a wakeup."""
    return [thread.name for thread in threading.enumerate()].count("polling-slot")


def test_after_a_silence_due_jobs_run_without_a_wakeup(
    bench: Bench, wait_for: Callable[[Callable[[], bool]], bool]
) -> None:
    watch = Watch()
    waiting = fallback(bench, watch)
    job_id = bench.submit()
    bench.engine.answer(TRACE)

    waiting.look()
    assert bench.status(job_id) is Status.QUEUED
    watch.now += 30
    waiting.look()

    assert wait_for(lambda: bench.status(job_id) is Status.SUCCEEDED)
    assert wait_for(lambda: busy() == 0)


def test_a_wakeup_postpones_polling(bench: Bench) -> None:
    watch = Watch()
    waiting = fallback(bench, watch)
    job_id = bench.submit()

    watch.now += 29
    waiting.woken()
    watch.now += 29
    waiting.look()

    assert busy() == 0
    assert bench.status(job_id) is Status.QUEUED


def test_polling_never_runs_more_jobs_than_slots(
    bench: Bench, wait_for: Callable[[Callable[[], bool]], bool]
) -> None:
    watch = Watch()
    go = threading.Event()
    started: list[int] = []

    def work() -> int:
        started.append(1)
        go.wait(60)
        return 0

    waiting = fallback(bench, watch, work=work)
    for _ in range(5):
        bench.submit()
    watch.now += 31

    waiting.look()
    waiting.look()

    assert wait_for(lambda: len(started) == 2)
    assert busy() == 2
    go.set()
    assert wait_for(lambda: busy() == 0)


def test_busy_slots_receive_no_wakeups_and_need_no_polling(
    bench: Bench, wait_for: Callable[[Callable[[], bool]], bool]
) -> None:
    watch = Watch()
    waiting = fallback(bench, watch)
    for _ in range(5):
        bench.submit()
    slots = [bench.run_in_thread() for _ in range(2)]
    assert wait_for(lambda: bench.leases.held == 2)
    watch.now += 31

    waiting.look()

    assert busy() == 0
    bench.runner.drain()
    for _ in slots:
        bench.engine.answer(TRACE)
    for slot in slots:
        slot.join(60)


def test_the_end_of_polling_waits_for_its_slots(
    bench: Bench, wait_for: Callable[[Callable[[], bool]], bool]
) -> None:
    watch = Watch()
    go = threading.Event()
    waiting = fallback(bench, watch, work=lambda: int(go.wait(60)))
    bench.submit()
    watch.now += 31
    waiting.look()
    ending = threading.Thread(target=waiting.stop)
    ending.start()
    assert wait_for(lambda: busy() == 1)
    assert ending.is_alive()

    go.set()

    ending.join(60)
    assert not ending.is_alive()
    assert wait_for(lambda: busy() == 0)


def test_with_nothing_due_silence_starts_no_slots(bench: Bench) -> None:
    watch = Watch()
    waiting = fallback(bench, watch)
    watch.now += 1000

    waiting.look()

    assert busy() == 0
