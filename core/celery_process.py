"""Runs a process that receives wakeups under Celery. Tasks have no arguments and no logic.

Celery's warm shutdown waits for the running tasks; the drain makes sure that they end.
"""

from collections.abc import Callable
from typing import Any, Protocol

from celery import Celery, bootsteps, signals

from core import logs
from core.settings import Settings


class Runtime(Protocol):
    """All parts of a process that receives wakeups."""

    def start(self) -> None:
        """Start the threads."""

    def wake(self) -> None:
        """Handle a wakeup."""

    def drain(self) -> None:
        """Begin to drain; safe in a signal handler."""

    def stop(self) -> None:
        """Stop everything."""


class RuntimeHolder:
    """Holds the runtime of the process: None until the worker starts, so that importing builds nothing."""

    def __init__(self) -> None:
        self.runtime: Runtime | None = None

    def wake(self) -> None:
        """Pass a wakeup to the runtime."""
        if self.runtime is not None:
            self.runtime.wake()

    def drain(self, **_: Any) -> None:  # noqa: ANN401 - Celery's own arguments
        """Pass a request to end to the runtime."""
        if self.runtime is not None:
            self.runtime.drain()

    def stop(self, **_: Any) -> None:  # noqa: ANN401 - same
        """Stop the runtime."""
        if self.runtime is not None:
            self.runtime.stop()


def install_runtime(
    app: Celery, settings: Settings, *, task: str, service: str, build: Callable[[], Runtime]
) -> None:
    """Give ``app`` its task, and a runtime with the lifetime of its worker.

    Args:
        app: the Celery app.
        settings: of the process.
        task: the name of the task that a wakeup starts.
        service: the process's name in the log.
        build: makes the runtime when the worker starts.
    """
    holder = RuntimeHolder()
    app.task(name=task, ignore_result=True)(holder.wake)

    class RuntimeStep(bootsteps.StartStopStep):
        """Runs the runtime as a step of Celery's worker: a runtime that cannot be built ends the process.

        A receiver of a signal would not: Celery logs its exception and goes on, and a worker without a
        runtime would drop every wakeup.
        """

        def start(self, parent: Any) -> None:  # noqa: ANN401, ARG002 - Celery's own argument
            """Build the runtime and start its threads."""
            holder.runtime = build()
            holder.runtime.start()

        def close(self, parent: Any) -> None:  # noqa: ANN401, ARG002 - same
            """Drain, whatever ends the worker: without its consumer it receives no wakeups."""
            holder.drain()

    def configure_logs(**_: Any) -> None:  # noqa: ANN401 - same
        logs.configure(settings, service=service)

    app.steps["worker"].add(RuntimeStep)
    # By default Celery holds receivers weakly.
    signals.setup_logging.connect(configure_logs, weak=False)
    signals.worker_shutting_down.connect(holder.drain, weak=False)
    signals.worker_shutdown.connect(holder.stop, weak=False)
