"""The Celery app of a worker: ``celery -A worker.app worker``. The one module whose import builds something.

Celery's own warm shutdown waits for the running tasks; the drain makes sure that they end.
"""

from __future__ import annotations

from typing import Any

from celery import bootsteps, signals

from jobs import logs, queue
from jobs.settings import Settings
from worker import tasks
from worker.runtime import Runtime

settings = Settings.read()
app = queue.make_celery(settings)
front = tasks.Front()
tasks.register(app, front)


class Life(bootsteps.StartStopStep):
    """The runtime as a part of Celery's worker: what cannot be built ends the process.

    A signal's receiver would not do: Celery logs what it raises and goes on, and a worker without a
    runtime hears every bell and answers none.
    """

    def start(self, parent: Any) -> None:  # noqa: ANN401, ARG002 - Celery's own argument
        """Build the runtime and start its threads."""
        front.runtime = Runtime(settings)
        front.runtime.start()

    def close(self, parent: Any) -> None:  # noqa: ANN401, ARG002 - same
        """Drain, whatever ends the worker: without its consumer nobody hears bells any more."""
        _drain()


app.steps["worker"].add(Life)


@signals.setup_logging.connect
def _configure_logs(**_: Any) -> None:  # noqa: ANN401 - same
    logs.configure(settings, service="worker")


@signals.worker_shutting_down.connect
def _drain(**_: Any) -> None:  # noqa: ANN401 - same
    if front.runtime is not None:
        front.runtime.drain()


@signals.worker_shutdown.connect
def _stop(**_: Any) -> None:  # noqa: ANN401 - same
    if front.runtime is not None:
        front.runtime.stop()
