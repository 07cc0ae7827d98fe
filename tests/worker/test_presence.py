"""Heartbeats, shares of an engine's window, and the bells that a sweep rings."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta

import pytest

from core import errors
from core.database import Database, utcnow
from jobs import engine as seam
from jobs.store import claims, expiry, workers
from tests import factories
from tests.databases import Age
from tests.fakes import RecordingWakeup
from tests.worker.conftest import LEASE, Bench
from tests.worker.engine_fake import Conducted
from worker.engines.pool import EnginePool
from worker.heartbeat import Heartbeat
from worker.sweeper import Sweeper

ALIVE = timedelta(seconds=30)


class Away(Conducted):
    """An engine that is away until it is told to come."""

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


@pytest.mark.parametrize(
    ("jobs", "slots", "lying", "rung"),
    [
        (0, 4, 0, []),
        (3, 4, 0, [3]),
        (9, 4, 0, [4]),
        (9, 4, 3, [1]),
        (9, 4, 4, []),
        (3, 4, None, []),
    ],
    ids=["nothing due", "due", "no more than slots", "some lie", "enough lie", "redis is away"],
)
def test_a_sweep_rings_for_due_jobs_as_far_as_slots_hear(
    bench: Bench, jobs: int, slots: int, lying: int | None, rung: list[int]
) -> None:
    present(bench.database, "w", slots=slots)
    for _ in range(jobs):
        bench.submit()
    wakeup = RecordingWakeup(lying=lying)

    sweeper(bench.database, wakeup).sweep()

    assert wakeup.calls == rung


def test_without_a_live_worker_nobody_is_rung_for(bench: Bench) -> None:
    bench.submit()
    wakeup = RecordingWakeup()

    sweeper(bench.database, wakeup).sweep()

    assert wakeup.calls == []


def test_a_sweeper_that_has_just_come_up_ends_no_lease_on_a_server(bench: Bench) -> None:
    bench.submit()
    assert claims.claim(bench.database, owner="dead", lease=timedelta(seconds=-1)) is not None

    sweeper(bench.database, RecordingWakeup()).sweep()

    requeued = bench.database.dialect == "sqlite"
    assert expiry.due(bench.database, limit=1) == 0
    [view] = bench.queued_or_running()
    assert (view.job.crashes == 1) is requeued


def test_one_sweep_ends_more_jobs_than_a_batch_holds(bench: Bench) -> None:
    late = {"deadline_at": utcnow() - timedelta(seconds=1)}
    factories.insert_jobs(bench.database, bench.account_id, [late] * 450)

    sweeper(bench.database, RecordingWakeup()).sweep()

    assert bench.queued_or_running() == []


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_after_a_pause_owners_renew_before_leases_end(
    bench: Bench, age: Age, wait_for: Callable[[Callable[[], bool]], bool]
) -> None:
    lease = timedelta(seconds=0.1)
    sweeping = sweeper(bench.database, RecordingWakeup(), lease=lease)
    bench.submit()
    claimed = claims.claim(bench.database, owner="paused as well", lease=LEASE)
    assert claimed is not None

    def crashes() -> int:
        sweeping.sweep()
        [view] = bench.queued_or_running()
        return view.job.crashes

    assert crashes() == 0
    age(LEASE.total_seconds() + 1)

    assert crashes() == 0
    assert wait_for(lambda: crashes() == 1)


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


def test_an_engine_that_comes_back_has_the_bell_rung(
    database: Database, wait_for: Callable[[Callable[[], bool]], bool]
) -> None:
    engine = Away()
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


def test_the_workers_list_tells_how_the_engines_do(
    database: Database, wait_for: Callable[[Callable[[], bool]], bool]
) -> None:
    engine = Away()
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
