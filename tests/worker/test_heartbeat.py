"""Heartbeats of workers, and the shares of an engine's window."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta

from core import errors
from core.database import Database
from jobs import engine as seam
from jobs.store import workers
from tests.fakes import RecordingWakeup
from tests.worker.conftest import LEASE, Bench
from tests.worker.engine_fake import ControlledEngine
from worker.engines.pool import EnginePool
from worker.heartbeat import Heartbeat
from worker.sweeper import Sweeper

ALIVE = timedelta(seconds=30)


class AbsentEngine(ControlledEngine):
    """An engine that does not answer until ``here`` is set."""

    here = False

    def facts(self) -> seam.EngineFacts:
        if not self.here:
            raise errors.EngineUnavailable("It is away.")
        return super().facts()


def sweeper(database: Database, wakeup: RecordingWakeup, *, lease: timedelta = LEASE) -> Sweeper:
    return Sweeper(
        database,
        wakeup=wakeup,
        owner="me",
        lease=lease,
        interval_seconds=10,
        alive=ALIVE,
        crash_limit=3,
        rng=random.Random(1),
    )


def present(database: Database, name: str, *, slots: int = 4) -> workers.WorkerHeartbeat:
    worker_heartbeat = workers.WorkerHeartbeat(id=name, host="h", pid=1, version="1", slots=slots)
    workers.beat(database, worker_heartbeat, alive=ALIVE)
    return worker_heartbeat


def test_the_window_is_shared_among_the_workers_that_live(bench: Bench) -> None:
    alone = bench.engines.window()
    present(bench.database, "other")
    mine = workers.WorkerHeartbeat(id="me", host="h", pid=1, version="1", slots=4)

    Heartbeat(
        bench.database,
        engines=bench.engines,
        heartbeat=mine,
        interval_seconds=10,
        alive=ALIVE,
        on_room=lambda: None,
    ).beat()

    assert bench.engines.window() == alone // 2


def test_an_engine_that_comes_back_causes_wakeups(
    database: Database, wait_for: Callable[[Callable[[], bool]], bool]
) -> None:
    engine = AbsentEngine()
    engines = EnginePool([engine])
    rooms: list[int] = []
    worker_heartbeat = Heartbeat(
        database,
        engines=engines,
        heartbeat=workers.WorkerHeartbeat(id="me", host="h", pid=1, version="1", slots=4),
        interval_seconds=0.01,
        alive=ALIVE,
        on_room=lambda: rooms.append(engines.window()),
    )
    worker_heartbeat.start()
    try:
        assert wait_for(lambda: workers.workforce(database, alive=ALIVE).processes == 1)
        assert rooms == []
        engine.here = True
        assert wait_for(lambda: bool(rooms))
    finally:
        worker_heartbeat.stop()

    assert rooms[0] > 0
    assert workers.workforce(database, alive=ALIVE).processes == 0


def test_the_list_of_workers_shows_the_states_of_engines(
    database: Database, wait_for: Callable[[Callable[[], bool]], bool]
) -> None:
    engine = AbsentEngine()
    engines = EnginePool([engine], now=lambda: 0.0)
    mine = workers.WorkerHeartbeat(id="me", host="h", pid=1, version="1", slots=4)
    worker_heartbeat = Heartbeat(
        database,
        engines=engines,
        heartbeat=mine,
        interval_seconds=0.01,
        alive=ALIVE,
        on_room=lambda: None,
    )

    def reported() -> list[str] | None:
        [seen] = workers.seen(database, alive=ALIVE)
        states = seen.heartbeat.engines
        return None if states is None else [state.state for state in states]

    worker_heartbeat.beat()
    assert reported() is None
    worker_heartbeat.start()
    try:
        assert wait_for(lambda: reported() == ["away"])
        engine.here = True
        assert wait_for(lambda: reported() == ["ok"])
        engines.report(engine, errors.EngineBusy("It is full."))
        assert wait_for(lambda: reported() == ["resting"])
    finally:
        worker_heartbeat.stop()

    assert workers.seen(database, alive=ALIVE) == []
