"""One run: a house, clients, a storm, a calm, and the reckoning."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import redis

from core.database import Database
from jobs import queue
from tests import children, webhooks
from tests.chaos import checks
from tests.chaos.callers import Api, Caller
from tests.chaos.deployment import CRASH_LIMIT, DELIVERIES, WORKERS, Deployment
from tests.chaos.figures import Figures, figures
from tests.chaos.storm import Storm
from tests.e2e.stack import eventually, running
from webhooks import claims

_CALLERS = 4
#: Nothing should take longer once the storm is over: backoffs, deadlines and the worst waits add up to less.
CALM_SECONDS = 90
#: After the last job: until the engine has nothing to do. A long answer that nobody stopped takes longer.
_ENGINE_SECONDS = 5
#: Until all bells have been heard.
_WAKEUPS_SECONDS = 10
#: Celery's own few keys, and bells that nobody has to hear.
_REDIS_KEYS = 8
#: What a process logs when something happened that nobody foresaw.
_UNFORESEEN = ("attempt_crashed", "delivery_crashed", "thread_died", "request_failed")
#: Until all is told: what a killed sender held waits for the end of its lease, and then for a look.
REPORTED_SECONDS = 90


@dataclass(frozen=True)
class Plan:
    """What a run is to be.

    Attributes:
        database: ``sqlite`` or ``postgresql``.
        seconds: how long the storm rages.
        seed: of everything that chance decides.
        fenced: False for the control, which must not pass.
        logs: a folder for the logs of all processes, or None.
    """

    database: str
    seconds: float
    seed: int
    fenced: bool = True
    logs: Path | None = None


@dataclass(frozen=True)
class Report:
    """What came of a run; it is good when nothing is wrong.

    Attributes:
        calm: seconds from the end of the storm to the end of the last job.
        slowest: what a client waited for longest: seconds, what, for which job.
        unasked: processes that ended by themselves, and their status.
    """

    figures: Figures
    wrong: list[str]
    calm: float
    slowest: tuple[float, str, str]
    unasked: list[str]


def run(plan: Plan) -> Report:
    """Run ``plan`` to its end."""
    folder = children.short_folder()
    house = Deployment(folder, database=plan.database, fenced=plan.fenced)
    try:
        house.start()
        return _report(house, plan)
    finally:
        house.close()
        if plan.logs is not None:
            shutil.copytree(folder, plan.logs, ignore=_only_logs, dirs_exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def _only_logs(_: str, names: list[str]) -> list[str]:
    return [name for name in names if name == "data" or name.endswith(".sock")]


def _report(house: Deployment, plan: Plan) -> Report:
    callers = [
        Caller(
            f"caller-{number}",
            Api(house.api_url, key=house.stack.key),
            rng=random.Random(f"{plan.seed}:{number}"),
        )
        for number in range(_CALLERS)
    ]
    storm = Storm(house, rng=random.Random(plan.seed))
    with contextlib.ExitStack() as exits:
        for caller in callers:
            caller.start()
            # Whatever happens here, nobody goes on asking a house that is gone.
            exits.callback(caller.leave)
        return _reported(house, plan, storm, callers)


def _reported(house: Deployment, plan: Plan, storm: Storm, callers: list[Caller]) -> Report:
    storm.rage(plan.seconds)
    for caller in callers:
        caller.order_no_more()
    storm.end()
    ended = time.monotonic()
    while not all(caller.idle for caller in callers) and time.monotonic() < ended + CALM_SECONDS:
        storm.calm(0.5)
    calm = time.monotonic() - ended
    wrong = [*_noisy(house)]
    for caller in callers:
        caller.leave()
        wrong += caller.wrong
    # Closed whatever happens: a connection that is left open accuses whichever test runs when it is collected.
    with contextlib.closing(Database(house.stack.database_url)) as database:
        lives = checks.lives(database)
        wrong += _unreported(house, storm, database, lives)
        wrong += checks.miscounted(database)
    wrong += checks.broken(lives.values(), checks.Limits(crashes=CRASH_LIMIT))
    wrong += checks.unlike(lives, [order for caller in callers for order in caller.orders])
    events = [*_events(house)]
    wrong += [f"{event}: nobody foresaw it" for event in events if event in _UNFORESEEN]
    left = [one for one in house.departures if one.requested and one.status]
    wrong += [f"{one.place} was drained and exited with {one.status}" for one in left]
    return Report(
        figures=figures(lives.values(), storm.faults, refused=events.count("job_lost")),
        wrong=wrong,
        calm=calm,
        slowest=max(caller.slowest for caller in callers),
        unasked=[
            f"{one.place}: {one.status}"
            for one in house.departures
            if not one.requested and one.status != -9
        ],
    )


def _noisy(house: Deployment) -> Iterator[str]:
    """Tell who still has something to do though nobody wants anything."""
    if not eventually(lambda: running(house.engine_url) == 0, seconds=_ENGINE_SECONDS):
        yield f"the engine still runs {running(house.engine_url)} streams"
    if not eventually(lambda: house.redis.length(queue.REASON) == 0, seconds=_WAKEUPS_SECONDS):
        yield f"{house.redis.length(queue.REASON)} bells still wait"
    with redis.Redis.from_url(house.redis.url) as client:
        keys = int(str(client.dbsize()))
    if keys > _REDIS_KEYS:
        yield f"Redis holds {keys} keys"


def _unreported(
    house: Deployment, storm: Storm, database: Database, lives: dict[uuid.UUID, checks.Life]
) -> list[str]:
    """Wait until all is told, with nobody waiting for a retry; return what the receiver missed or got twice by name."""
    until = time.monotonic() + REPORTED_SECONDS
    while claims.backlog(database).pending and time.monotonic() < until:
        webhooks.hurry(database)
        storm.calm(0.5)
    return checks.unreported(lives.values(), house.receiver.took)


def _events(house: Deployment) -> Iterator[str]:
    """Yield the events that our processes have logged."""
    for line in house.logged("api", *WORKERS, *DELIVERIES):
        with contextlib.suppress(
            ValueError, LookupError, TypeError
        ):  # Celery's own, or one whose writer was killed.
            yield str(json.loads(line)["event"])
