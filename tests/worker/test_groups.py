"""A group on a worker with many slots: the engine computes the image once."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from core.database import Database
from jobs.lifecycle import Status
from jobs.store import groups, history, submission
from scripted import Clock, Scripted
from scripted.options import ScriptedOptions
from tests import factories, image_files
from tests.fakes import RecordingPublisher
from tests.worker.conftest import LEASE, make_runner
from worker import leases
from worker.engines.pool import EnginePool
from worker.run.slot import Slot
from worker.run.trace_buffer import TraceWriter

QUESTIONS = 16
#: Of 280 by 280 pixels.
IMAGE_TOKENS = 100


class HeldTime(Clock):
    """Time of an engine that a test can hold, so that no prompt is computed before all have arrived."""

    def __init__(self) -> None:
        self._passing = threading.Event()
        self._passing.set()
        self._lost = 0.0
        self._held_at = 0.0

    def hold(self) -> None:
        """Let no time pass."""
        self._held_at = self.now()
        self._passing.clear()

    def go_on(self) -> None:
        """Let time pass again."""
        self._lost = super().now() - self._held_at
        self._passing.set()

    def now(self) -> float:
        return super().now() - self._lost if self._passing.is_set() else self._held_at

    def wait(self, event: threading.Event, seconds: float | None) -> None:
        # Not longer: the time that it waits for may be held or go on meanwhile.
        event.wait(0.05 if seconds is None else min(seconds, 0.05))


@dataclass
class Deployment:
    """A worker whose slots receive wakeups, around the scripted engine with its prefix cache."""

    database: Database
    account_id: uuid.UUID
    runner: Slot
    wakeups: threading.Semaphore
    engine: Scripted
    time: HeldTime

    def submit(self, *, grouped: bool) -> list[uuid.UUID]:
        """Submit questions about one image, and ring as the door does."""
        image = factories.make_image(
            data=image_files.file_of(image_files.gradient(280, 280)), width=280, height=280
        )
        about: dict[str, object] = {"images": [(image, IMAGE_TOKENS)]}
        followers = [
            submission.Follower(f"How many shapes of kind {number}?", {"max_output_tokens": 64})
            for number in range(1, QUESTIONS)
        ]
        if grouped:
            first = factories.make_job(self.database, self.account_id, followers=followers, **about)
            self.wakeups.release()
            return [view.job.id for view in history.group(self.database, first, account_id=None)]
        made = [factories.make_job(self.database, self.account_id, **about)]
        made += [
            factories.make_job(self.database, self.account_id, question=follower.question, **about)
            for follower in followers
        ]
        self.wakeups.release(QUESTIONS)
        return made

    def done(self, jobs: list[uuid.UUID]) -> bool:
        return set(history.status(self.database, jobs).values()) == {Status.SUCCEEDED}

    def prefilled(self, jobs: list[uuid.UUID]) -> list[int]:
        """Return the prompt tokens of each job that the engine had to compute."""
        rows = [factories.get_job(self.database, job).job for job in jobs]
        return [(row.input_tokens or 0) - (row.cached_tokens or 0) for row in rows]


@pytest.fixture
def dialect() -> str:
    """The order is SQL's and tried on both; here one is enough."""
    return "sqlite"


@pytest.fixture
def house(database: Database) -> Iterator[Deployment]:
    """Return a worker with a slot for each question."""
    options = ScriptedOptions(tokens_per_second=200.0, prefill_tokens_per_second=400.0)
    time = HeldTime()
    engine = Scripted(options=options, clock=time)
    engines = EnginePool([engine])
    engines.refresh()
    leases_ = leases.Leases(database, owner="me", lease=LEASE, renew_seconds=15, watch_seconds=1)
    trace_writer = TraceWriter(
        database,
        publisher=RecordingPublisher(),
        owner="me",
        flush_seconds=0.05,
        on_lost=lambda _: None,
    )
    runner = make_runner(database, engines=engines, leases_=leases_, trace_writer=trace_writer)
    wakeups = threading.Semaphore(0)
    database.listen(
        lambda note: (
            wakeups.release(note.jobs) if isinstance(note, groups.FollowersReleased) else None
        )
    )
    over = threading.Event()

    def slot() -> None:
        while True:
            wakeups.acquire()
            if over.is_set():
                return
            runner.work()

    slots = [threading.Thread(target=slot, daemon=True) for _ in range(QUESTIONS)]
    trace_writer.start()
    for thread in slots:
        thread.start()
    account_id = factories.make_account(database)
    yield Deployment(database, account_id, runner, wakeups, engine, time)
    time.go_on()
    over.set()
    wakeups.release(QUESTIONS)
    for thread in slots:
        thread.join(60)
    trace_writer.stop()
    leases_.stop()


def test_followers_find_their_leaders_prefix_and_single_jobs_do_not(
    house: Deployment, wait_for: Callable[[Callable[[], bool]], bool]
) -> None:
    group = house.submit(grouped=True)
    assert wait_for(lambda: house.done(group))
    # The control: another account has another cache, and no job waits there.
    house.account_id = factories.make_account(house.database)
    house.time.hold()
    alone = house.submit(grouped=False)
    assert wait_for(lambda: house.engine.load().running == QUESTIONS)
    house.time.go_on()
    assert wait_for(lambda: house.done(alone))

    leader, *followers = house.prefilled(group)
    rows = [factories.get_job(house.database, job).job for job in group[1:]]

    assert all((row.cached_tokens or 0) > (row.image_tokens or 0) for row in rows)
    assert max(followers) < leader
    assert sum(house.prefilled(group)) < sum(house.prefilled(alone)) / 2
