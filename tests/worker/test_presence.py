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
from tests.worker.conftest import LEASE, Bench
from tests.worker.engine_fake import Conducted
from worker.engines.pool import EnginePool
from worker.heartbeat import Heartbeat
from worker.sweeper import Sweeper

ALIVE = timedelta(seconds=30)


class RecordingBell:
    """Counts what is rung; ``lying`` bells wait in Redis, None: Redis does not answer."""

    def __init__(self, lying: int | None = 0) -> None:
        self.lying = lying
        self.rung: list[int] = []

    def ring(self, times: int = 1) -> None:
        if times > 0:
            self.rung.append(times)

    def waiting(self) -> int | None:
        return self.lying


class Away(Conducted):
    """An engine that is away until it is told to come."""

    here = False

    def facts(self) -> seam.EngineFacts:
        if not self.here:
            raise errors.EngineUnavailable("It is away.")
        return super().facts()


def sweeper(database: Database, bell: RecordingBell, *, lease: timedelta = LEASE) -> Sweeper:
    return Sweeper(
        database,
        bell=bell,
        owner="me",
        lease=lease,
        interval_seconds=10,
        alive=ALIVE,
        crash_limit=3,
        rng=random.Random(1),
    )


def present(database: Database, name: str, *, slots: int = 4) -> workers.WorkerHeartbeat:
    presence = workers.WorkerHeartbeat(id=name, host="h", pid=1, version="1", slots=slots)
    workers.beat(database, presence, alive=ALIVE)
    return presence


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
    bell = RecordingBell(lying)

    sweeper(bench.database, bell).sweep()

    assert bell.rung == rung


def test_without_a_live_worker_nobody_is_rung_for(bench: Bench) -> None:
    bench.submit()
    bell = RecordingBell()

    sweeper(bench.database, bell).sweep()

    assert bell.rung == []


def test_a_sweeper_that_has_just_come_up_ends_no_lease_on_a_server(bench: Bench) -> None:
    bench.submit()
    assert claims.claim(bench.database, owner="dead", lease=timedelta(seconds=-1)) is not None

    sweeper(bench.database, RecordingBell()).sweep()

    requeued = bench.database.dialect == "sqlite"
    assert expiry.due(bench.database, limit=1) == 0
    [view] = bench.queued_or_running()
    assert (view.job.crashes == 1) is requeued


def test_one_sweep_ends_more_jobs_than_a_batch_holds(bench: Bench) -> None:
    late = {"deadline_at": utcnow() - timedelta(seconds=1)}
    factories.insert_jobs(bench.database, bench.account_id, [late] * 450)

    sweeper(bench.database, RecordingBell()).sweep()

    assert bench.queued_or_running() == []


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_after_a_pause_owners_renew_before_leases_end(
    bench: Bench, age: Age, wait_for: Callable[[Callable[[], bool]], bool]
) -> None:
    lease = timedelta(seconds=0.1)
    sweeping = sweeper(bench.database, RecordingBell(), lease=lease)
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
        presence=mine,
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
    presence = Heartbeat(
        database,
        engines=engines,
        presence=workers.WorkerHeartbeat(id="me", host="h", pid=1, version="1", slots=4),
        interval_seconds=0.01,
        alive=ALIVE,
        on_room=lambda: rooms.append(engines.window()),
    )
    presence.start()
    try:
        assert wait_for(lambda: workers.workforce(database, alive=ALIVE).processes == 1)
        assert rooms == []
        engine.here = True
        assert wait_for(lambda: bool(rooms))
    finally:
        presence.stop()

    assert rooms[0] > 0
    assert workers.workforce(database, alive=ALIVE).processes == 0


def test_the_workers_list_tells_how_the_engines_do(
    database: Database, wait_for: Callable[[Callable[[], bool]], bool]
) -> None:
    engine = Away()
    engines = EnginePool([engine], now=lambda: 0.0)
    mine = workers.WorkerHeartbeat(id="me", host="h", pid=1, version="1", slots=4)
    presence = Heartbeat(
        database,
        engines=engines,
        presence=mine,
        interval_seconds=0.01,
        alive=ALIVE,
        on_room=lambda: None,
    )

    def told() -> list[str] | None:
        [seen] = workers.seen(database, alive=ALIVE)
        states = seen.presence.engines
        return None if states is None else [state.state for state in states]

    presence.beat()
    assert told() is None
    presence.start()
    try:
        assert wait_for(lambda: told() == ["away"])
        engine.here = True
        assert wait_for(lambda: told() == ["ok"])
        engines.report(engine, errors.EngineBusy("It is full."))
        assert wait_for(lambda: told() == ["resting"])
    finally:
        presence.stop()

    assert workers.seen(database, alive=ALIVE) == []
