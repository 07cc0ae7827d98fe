"""What a sweep ends, and the wakeups that it sends."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta

import pytest

from core.database import Database, utcnow
from jobs.store import claims, expiry, workers
from tests import factories
from tests.databases import Age
from tests.fakes import RecordingWakeup
from tests.worker.conftest import LEASE, Bench
from worker.sweeper import Sweeper

ALIVE = timedelta(seconds=30)


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
    ("jobs", "slots", "pending", "sent"),
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
def test_a_sweep_sends_wakeups_for_due_jobs_up_to_the_number_of_free_slots(
    bench: Bench, jobs: int, slots: int, pending: int | None, sent: list[int]
) -> None:
    present(bench.database, "w", slots=slots)
    for _ in range(jobs):
        bench.submit()
    wakeup = RecordingWakeup(lying=pending)

    sweeper(bench.database, wakeup).sweep()

    assert wakeup.calls == sent


def test_without_a_live_worker_no_wakeups_are_sent(bench: Bench) -> None:
    bench.submit()
    wakeup = RecordingWakeup()

    sweeper(bench.database, wakeup).sweep()

    assert wakeup.calls == []


def test_a_sweeper_that_has_just_started_ends_no_lease_on_a_server(bench: Bench) -> None:
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
