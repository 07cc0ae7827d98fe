"""What a bell starts, and how a process that hears bells lives under Celery. Tasks have no arguments and hold no rules.

Celery's own warm shutdown waits for the running tasks; the drain makes sure that they end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from celery import Celery, bootsteps, signals

from core import logs
from core.settings import Settings


class Runtime(Protocol):
    """All parts of a process that hears bells."""

    def start(self) -> None:
        """Start the threads."""

    def wake(self) -> None:
        """Do what a bell asks for."""

    def drain(self) -> None:
        """Begin to drain; safe in a signal handler."""

    def stop(self) -> None:
        """Take everything down."""


class RuntimeHolder:
    """The place of the process's runtime: empty until the worker starts, so that importing builds nothing."""

    def __init__(self) -> None:
        self.runtime: Runtime | None = None

    def wake(self) -> None:
        """Hand a bell on."""
        if self.runtime is not None:
            self.runtime.wake()

    def drain(self, **_: Any) -> None:  # noqa: ANN401 - Celery's own arguments
        """Hand a request to end on."""
        if self.runtime is not None:
            self.runtime.drain()

    def stop(self, **_: Any) -> None:  # noqa: ANN401 - same
        """Take the runtime down."""
        if self.runtime is not None:
            self.runtime.stop()


def install_runtime(
    app: Celery, settings: Settings, *, task: str, service: str, build: Callable[[], Runtime]
) -> None:
    """Give ``app`` its task, and a runtime that lives as long as its worker.

    Args:
        app: the Celery app.
        settings: of the process.
        task: the name of what a bell starts.
        service: the process's name in the log.
        build: makes the runtime, at the worker's start.
    """
    front = RuntimeHolder()
    app.task(name=task, ignore_result=True)(front.wake)

    class Life(bootsteps.StartStopStep):
        """The runtime as a part of Celery's worker: what cannot be built ends the process.

        A signal's receiver would not do: Celery logs what it raises and goes on, and a worker without a
        runtime hears every bell and answers none.
        """

        def start(self, parent: Any) -> None:  # noqa: ANN401, ARG002 - Celery's own argument
            """Build the runtime and start its threads."""
            front.runtime = build()
            front.runtime.start()

        def close(self, parent: Any) -> None:  # noqa: ANN401, ARG002 - same
            """Drain, whatever ends the worker: without its consumer nobody hears bells any more."""
            front.drain()

    def configure_logs(**_: Any) -> None:  # noqa: ANN401 - same
        logs.configure(settings, service=service)

    app.steps["worker"].add(Life)
    # Celery holds receivers weakly unless it is told not to.
    signals.setup_logging.connect(configure_logs, weak=False)
    signals.worker_shutting_down.connect(front.drain, weak=False)
    signals.worker_shutdown.connect(front.stop, weak=False)
