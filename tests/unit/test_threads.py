"""The threads of the API: places that requests give up and take again."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from api.serving.shares import Group
from api.serving.threads import Threads


@dataclass
class Task:
    """A task that runs until it is released."""

    group: Group
    due: float = 0.0
    running: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)


def run(task: Task) -> None:
    task.running.set()
    assert task.release.wait(60)


def test_a_part_of_a_request_that_outlives_it_costs_no_place() -> None:
    """A submission goes on in a thread of its own when its client has hung up."""
    ended = threading.Semaphore(0)

    def run_all(task: Task) -> None:
        run(task)
        ended.release()

    threads: Threads[Task] = Threads(1, waiting=4, run=run_all, name="test")
    for _ in range(3):
        task = Task("a")
        assert threads.submit(task)
        assert task.running.wait(60)
        assert threads.step_aside(task)
        task.release.set()
        # The only place is free again, so the next one runs, and the first one has ended when that has.
        following = Task("b")
        assert threads.submit(following)
        assert following.running.wait(60)
        following.release.set()
        for _ in range(2):
            assert ended.acquire(timeout=60)
        last = Task("c")
        last.release.set()
        assert threads.submit(last)
        assert ended.acquire(timeout=60)

        threads.step_back(task)
