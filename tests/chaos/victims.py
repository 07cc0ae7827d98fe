"""Processes that a test kills: a worker, and an API with one request; a fork server with all modules starts them.

Each runs the service's code with the test's settings, without Celery and gunicorn, which are
killed by the storm instead.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.process import BaseProcess
from typing import Any

from api.app import create_app, service_of
from core import logs
from core.database import Database
from core.settings import Settings
from jobs.store import storage
from worker.runtime import WorkerRuntime

#: Maximum lifetime of a process, even if its test fails: as long as the test may take.
_SECONDS = 180
_PAUSE_SECONDS = 0.02
Environment = Mapping[str, str]


def worker(environment: Environment) -> None:
    """Run the slots of a worker until SIGTERM."""
    settings = begin(environment, "worker")
    runtime = WorkerRuntime(settings)
    leaving: list[int] = []

    def leave(number: int, _: object) -> None:
        leaving.append(number)
        runtime.drain()

    signal.signal(signal.SIGTERM, leave)
    runtime.start()
    pause = threading.Event()
    while not leaving:
        runtime.runner.work()
        pause.wait(_PAUSE_SECONDS)
    runtime.stop()


def api(environment: Environment, path: str, key: str, **request: Any) -> None:  # noqa: ANN401 - what Werkzeug's client takes
    """Answer one POST and exit; send the wakeup before the exit."""
    app = create_app(begin(environment, "api"))
    headers = {"Authorization": f"Bearer {key}", **request.pop("headers", {})}
    answer = app.test_client().post(path, headers=headers, **request)
    service_of(app).close()
    raise SystemExit(0 if answer.status_code < 300 else 1)


def recount(environment: Environment) -> None:
    """Count anew what each account stores, as ``longlook db recount`` does."""
    database = Database(begin(environment, "cli").database)
    for account in storage.accounts(database, default_mb=0):
        storage.recount(database, account.account_id)


def begin(environment: Environment, service: str) -> Settings:
    """Read the settings, and limit the lifetime of the process."""
    signal.alarm(_SECONDS)
    os.environ.update(environment)
    settings = Settings.read(environment)
    logs.configure(settings, service=service)
    return settings


@contextlib.contextmanager
def running(target: Callable[..., None], *args: object, **rest: object) -> Iterator[BaseProcess]:
    """Run ``target`` in its own process while the block runs."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=target, args=args, kwargs=rest, daemon=True)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()
        process.close()


def batches(environment: Environment) -> None:
    """Work on batches as an API does, without requests, until SIGTERM."""
    app = create_app(begin(environment, "api"))
    leaving = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: leaving.set())
    service_of(app).start()
    leaving.wait()
    service_of(app).close()
