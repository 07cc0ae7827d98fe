"""Threads that begin at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def race(*runners: Callable[[], T]) -> list[T]:
    """Run all at once, each in a thread of its own, and return what they return, in their order."""
    barrier = threading.Barrier(len(runners))

    def run(runner: Callable[[], T]) -> T:
        barrier.wait(30)
        return runner()

    with ThreadPoolExecutor(len(runners)) as pool:
        futures = [pool.submit(run, runner) for runner in runners]
        return [future.result(60) for future in futures]
