"""One run: a deployment, clients, a storm of faults, a calm period, and the checks."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import redis

from core.database import Database
from jobs import queue
from tests import children, webhooks
from tests.chaos import checks
from tests.chaos.callers import Api, Caller
from tests.chaos.deployment import CRASH_LIMIT, DELIVERIES, Deployment
from tests.chaos.figures import Figures, figures
from tests.chaos.storm import Fault, Storm
from tests.e2e.stack import eventually
from webhooks import claims

_CALLERS = 4
#: Maximum time until all jobs end after the storm: backoffs, deadlines and the longest waits add up to less.
CALM_SECONDS = 90
#: After the last job, until the engine is idle. A long generation that was not stopped takes longer.
_ENGINE_SECONDS = 5
#: Jobs that succeed at least before the clients submit no more, however slow the machine is.
_LEAST_SUCCESSES = 15
#: A few keys of Celery, and wakeups that no process must receive.
_REDIS_KEYS = 8
#: Log events of unexpected errors.
_UNFORESEEN = ("attempt_crashed", "delivery_crashed", "thread_died", "request_failed")
#: Until all notifications are sent: the ones of a killed sender wait for the end of its lease and the next poll.
NOTIFIED_SECONDS = 90


@dataclass(frozen=True)
class Plan:
    """The configuration of a run.

    Attributes:
        database: ``sqlite`` or ``postgresql``.
        seconds: duration of the storm.
        seed: seed of all random decisions.
        fenced: False for the control run, which must fail.
        logs: a folder for the logs of all processes, or None.
    """

    database: str
    seconds: float
    seed: int
    fenced: bool = True
    logs: Path | None = None


@dataclass(frozen=True)
class Report:
    """The result of a run; it is good if there are no violations.

    Attributes:
        calm: seconds from the end of the storm to the end of the last job.
        slowest: the longest wait of a client: seconds, operation, job.
        unasked: processes that exited without a request, and their status.
    """

    figures: Figures
    wrong: list[str]
    calm: float
    slowest: tuple[float, str, str]
    unasked: list[str]


def run(plan: Plan) -> Report:
    """Run ``plan`` to its end."""
    folder = children.short_folder()
    deployment = Deployment(folder, database=plan.database, fenced=plan.fenced)
    try:
        deployment.start()
        storm = Storm(deployment, rng=random.Random(plan.seed))

        def inject() -> None:
            storm.rage(plan.seconds)

        return report(deployment, storm, inject, seed=plan.seed)
    finally:
        deployment.close()
        if plan.logs is not None:
            shutil.copytree(folder, plan.logs, ignore=_only_logs, dirs_exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def _only_logs(_: str, names: list[str]) -> list[str]:
    return [name for name in names if name == "data" or name.endswith(".sock")]


class Faults(Protocol):
    """Faults that are injected into a deployment."""

    faults: list[Fault]

    def calm(self, seconds: float) -> None:
        """Inject no more faults for some seconds, and restart dead processes."""

    def end(self) -> None:
        """End all faults."""


def report(
    deployment: Deployment, faults: Faults, inject: Callable[[], None], *, seed: int
) -> Report:
    """Let clients use a deployment while ``inject`` runs, and check what happened after the last job has ended.

    Args:
        deployment: the processes; they have started.
        faults: those that ``inject`` injects.
        inject: injects faults; when it returns, the clients submit no more jobs.
        seed: of the clients' decisions.
    """
    callers = [
        Caller(
            f"caller-{number}",
            Api(deployment.api_url, key=deployment.stack.key),
            rng=random.Random(f"{seed}:{number}"),
        )
        for number in range(_CALLERS)
    ]
    with contextlib.ExitStack() as exits:
        for caller in callers:
            caller.start()
            # After any failure, the clients must not continue to call a deployment that is closed.
            exits.callback(caller.leave)
        inject()
        until = time.monotonic() + CALM_SECONDS
        while (
            sum(caller.succeeded for caller in callers) < _LEAST_SUCCESSES
            and time.monotonic() < until
        ):
            faults.calm(0.5)
        return _settled(deployment, faults, callers)


def _settled(deployment: Deployment, faults: Faults, callers: list[Caller]) -> Report:
    for caller in callers:
        caller.order_no_more()
    faults.end()
    ended = time.monotonic()
    while not all(caller.idle for caller in callers) and time.monotonic() < ended + CALM_SECONDS:
        faults.calm(0.5)
    calm = time.monotonic() - ended
    wrong = [*_noisy(deployment)]
    for caller in callers:
        caller.leave()
        wrong += caller.wrong
    # Always close it: an open connection fails the unrelated test that runs when it is garbage-collected.
    with contextlib.closing(Database(deployment.stack.database_url)) as database:
        lives = checks.lives(database)
        wrong += _missed_notifications(deployment, faults, database, lives)
        wrong += checks.miscounted(database)
    wrong += checks.broken(lives.values(), checks.Limits(crashes=CRASH_LIMIT))
    wrong += checks.unlike(lives, [order for caller in callers for order in caller.orders])
    events = [*_events(deployment)]
    wrong += [f"{event}: unexpected error" for event in events if event in _UNFORESEEN]
    failed_exits = [
        departure for departure in deployment.departures if departure.requested and departure.status
    ]
    wrong += [
        f"{departure.place} was drained and exited with {departure.status}"
        for departure in failed_exits
    ]
    return Report(
        figures=figures(lives.values(), faults.faults, refused=events.count("job_lost")),
        wrong=wrong,
        calm=calm,
        slowest=max(caller.slowest for caller in callers),
        unasked=[
            f"{departure.place}: {departure.status}"
            for departure in deployment.departures
            if not departure.requested and departure.status != -9
        ],
    )


def _noisy(deployment: Deployment) -> Iterator[str]:
    """Yield the processes that are still busy although there are no requests."""
    if not eventually(lambda: deployment.generations() == 0, seconds=_ENGINE_SECONDS):
        yield f"the engine still runs {deployment.generations()} generations"
    if not eventually(lambda: deployment.redis.length(queue.REASON) == 0):
        yield f"{deployment.redis.length(queue.REASON)} wakeups still wait"
    with redis.Redis.from_url(deployment.redis.url) as client:
        keys = int(str(client.dbsize()))
    if keys > _REDIS_KEYS:
        yield f"Redis holds {keys} keys"


def _missed_notifications(
    deployment: Deployment, faults: Faults, database: Database, lives: dict[uuid.UUID, checks.Life]
) -> list[str]:
    """Wait until all notifications are sent, without backoffs; return the ones that are missing or duplicate."""
    until = time.monotonic() + NOTIFIED_SECONDS
    while claims.backlog(database).pending and time.monotonic() < until:
        webhooks.hurry(database)
        faults.calm(0.5)
    return checks.unreported(lives.values(), deployment.receiver.took)


def _events(deployment: Deployment) -> Iterator[str]:
    """Yield the log events of the service's processes."""
    for line in deployment.logged("api", *deployment.worker_names, *DELIVERIES):
        with contextlib.suppress(
            ValueError, LookupError, TypeError
        ):  # A line of Celery, or of a process that was killed while it wrote.
            yield str(json.loads(line)["event"])
