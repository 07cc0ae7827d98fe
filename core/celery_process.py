"""Runs a process that receives wakeups under Celery. Tasks have no arguments and no logic.

Celery's warm shutdown waits for the running tasks; the drain makes sure that they end.
"""

import sys
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from celery import Celery, bootsteps, signals
from celery.worker import state
from celery.worker.consumer import Consumer

from core import logs, redis_check
from core.errors import SettingsError
from core.outage import Outage
from core.redis_url import RedisURL
from core.settings import Settings

#: How often a process that waits for Redis checks whether it must stop, in seconds.
_STOP_SECONDS: Final = 0.2
_CHECK_SECONDS: Final = 3.0
#: Exit status.
_BAD_SETTINGS: Final = 2


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


class RedisGate:
    """Lets Celery connect when Redis takes what it needs, and gives it the prefix of its keys.

    Without it, Celery connects to a server that only answers PING, fails at the first command, and starts again.

    Args:
        app: gets the prefix.
        settings: have the URL of Redis.
        prefix: returns the prefix of all keys.
    """

    def __init__(self, app: Celery, settings: Settings, prefix: Callable[[], str]) -> None:
        self._app = app
        self._address = RedisURL.parse(settings.redis_url)
        self._prefix = prefix
        self._outage = Outage("redis", use="celery")

    def refuse_cluster(self) -> None:
        """Exit with one sentence if Redis is a cluster: it would never work."""
        try:
            with self._address.client(seconds=_CHECK_SECONDS) as client:
                redis_check.refuse_cluster(client, self._prefix)
        except SettingsError as error:
            sys.stderr.write(f"{error}\n")
            sys.exit(_BAD_SETTINGS)

    def wait(self, give_up: Callable[[], object]) -> None:
        """Wait until Redis has no problem; ``give_up`` is called often and ends the wait by an exception."""
        while (problem := self._problem()) is not None:
            until = time.monotonic() + self._outage.lost(problem)
            while time.monotonic() < until:
                give_up()
                time.sleep(_STOP_SECONDS)
        self._outage.back()
        self._app.conf.broker_transport_options["global_keyprefix"] = self._prefix()

    def _problem(self) -> str | None:
        with self._address.client(seconds=_CHECK_SECONDS) as client:
            return redis_check.problem(client, self._prefix)


def install_runtime(
    app: Celery,
    settings: Settings,
    *,
    task: str,
    service: str,
    build: Callable[[], Runtime],
    prefix: Callable[[], str],
) -> None:
    """Give ``app`` its task, and a runtime with the lifetime of its worker.

    Args:
        app: the Celery app.
        settings: of the process.
        task: the name of the task that a wakeup starts.
        service: the process's name in the log.
        build: makes the runtime when the worker starts.
        prefix: returns the prefix of all keys in Redis; the process connects when the database has given it.
    """
    holder = RuntimeHolder()
    gate = RedisGate(app, settings, prefix)
    app.task(name=task, ignore_result=True)(holder.wake)

    class RuntimeStep(bootsteps.StartStopStep):
        """Runs the runtime as a step of Celery's worker: a runtime that cannot be built ends the process.

        A receiver of a signal would not: Celery logs its exception and goes on, and a worker without a
        runtime would drop every wakeup.
        """

        def start(self, parent: Any) -> None:  # noqa: ANN401, ARG002 - Celery's own argument
            """Build the runtime and start its threads, unless Redis is a cluster."""
            gate.refuse_cluster()
            holder.runtime = build()
            holder.runtime.start()

        def close(self, parent: Any) -> None:  # noqa: ANN401, ARG002 - same
            """Drain, whatever ends the worker: without its consumer it receives no wakeups."""
            holder.drain()

    class PatientConsumer(Consumer):
        """Waits at the gate before each connection."""

        def connect(self) -> Any:  # noqa: ANN401 - kombu's connection
            """Return a connection that works."""
            gate.wait(state.maybe_shutdown)
            return super().connect()

    app.conf.worker_consumer = PatientConsumer

    def configure_logs(**_: Any) -> None:  # noqa: ANN401 - same
        logs.configure(settings, service=service)

    app.steps["worker"].add(RuntimeStep)
    # By default Celery holds receivers weakly.
    signals.setup_logging.connect(configure_logs, weak=False)
    signals.worker_shutting_down.connect(holder.drain, weak=False)
    signals.worker_shutdown.connect(holder.stop, weak=False)
