"""The Celery app of a worker: ``celery -A worker.app worker``. The one module whose import builds something.

Celery's own warm shutdown waits for the running tasks; the drain makes sure that they end.
"""

from __future__ import annotations

from typing import Any

from celery import signals

from jobs import logs, queue
from jobs.settings import Settings
from worker import tasks
from worker.runtime import Runtime

settings = Settings.read()
app = queue.make_celery(settings)
front = tasks.Front()
tasks.register(app, front)


@signals.setup_logging.connect
def _configure_logs(**_: Any) -> None:  # noqa: ANN401 - Celery's own arguments
    logs.configure(settings, service="worker")


@signals.worker_init.connect
def _start(**_: Any) -> None:  # noqa: ANN401 - same
    front.runtime = Runtime(settings)
    front.runtime.start()


@signals.worker_shutting_down.connect
def _drain(**_: Any) -> None:  # noqa: ANN401 - same
    if front.runtime is not None:
        front.runtime.drain()


@signals.worker_shutdown.connect
def _stop(**_: Any) -> None:  # noqa: ANN401 - same
    if front.runtime is not None:
        front.runtime.stop()
