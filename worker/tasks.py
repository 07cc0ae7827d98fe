"""What a bell starts. Tasks have no arguments and hold no rules."""

from __future__ import annotations

from celery import Celery

from jobs import queue
from worker.runtime import Runtime


class Front:
    """The place of the process's runtime: empty until the worker starts, so that importing builds nothing."""

    def __init__(self) -> None:
        self.runtime: Runtime | None = None


def register(app: Celery, front: Front) -> None:
    """Give ``app`` its tasks, working on what ``front`` holds when they are called."""

    @app.task(name=queue.REASON, ignore_result=True)
    def reason() -> None:
        """Run jobs until none is left for this slot."""
        if front.runtime is not None:
            front.runtime.hear()
