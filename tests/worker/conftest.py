"""A worker's parts around an engine that the test conducts, on a real database."""

from __future__ import annotations

import dataclasses
import functools
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from core import profiles
from core.database import Database
from jobs.engine import Engine
from jobs.images import CanonicalImage, OriginalFile
from jobs.lifecycle import Outcome, Priority, Role, Status
from jobs.records.jobs import Job
from jobs.store import accounts, claims, event_log, expiry, history, submission, traces
from tests import image_files
from tests.e2e.stack import eventually
from tests.fakes import NoSandbox, RecordingPublisher
from tests.worker.engine_fake import ControlledEngine
from worker import compilations, equality, leases
from worker.engines.pool import EnginePool
from worker.equality import Equality
from worker.leases import StopReason
from worker.run.slot import Slot
from worker.run.trace_buffer import TraceWriter

LEASE = timedelta(seconds=60)
NO_MATHEMATICS = Equality(NoSandbox(), equality.shares(most_waiting=64))
#: What becomes of a job and its attempt when its streams are stopped.
ENDS = {
    StopReason.CANCEL: (Status.CANCELLED, Outcome.CANCELLED),
    StopReason.DEADLINE: (Status.FAILED, Outcome.FAILED),
    StopReason.DRAIN: (Status.QUEUED, Outcome.RELEASED),
    StopReason.LOST: (Status.RUNNING, None),
}


def submitted(name: str = "a") -> CanonicalImage:
    return CanonicalImage(
        detail="standard",
        media_type="image/png",
        width=56,
        height=56,
        data=b"canonical " + name.encode(),
        original=OriginalFile(
            sha256=name * 64,
            size=9,
            media_type="image/png",
            width=56,
            height=56,
            orientation=1,
            frames=1,
        ),
    )


def real_image() -> CanonicalImage:
    """Return one that can be decoded, for engines that look at it."""
    return dataclasses.replace(submitted(), data=image_files.file_of(image_files.gradient(112, 84)))


def make_runner(
    database: Database,
    *,
    engines: EnginePool,
    leases_: leases.Leases,
    trace_writer: TraceWriter,
    profile: profiles.ModelProfile = profiles.TINY,
    quarantine_crashes: int = 2,
    mathematics: Equality = NO_MATHEMATICS,
    grammars: compilations.Compilations | None = None,
) -> Slot:
    return Slot(
        database,
        engines=engines,
        leases_=leases_,
        trace_writer=trace_writer,
        profile=profile,
        owner="me",
        lease=LEASE,
        rng=random.Random(1),
        quarantine_crashes=quarantine_crashes,
        equality=mathematics,
        grammars=grammars or compilations.Compilations(most_waiting=64, look_seconds=0.01),
    )


@dataclass
class Bench:
    """One worker process's parts and the verbs a test needs."""

    database: Database
    engine: ControlledEngine
    engines: EnginePool
    leases: leases.Leases
    trace_writer: TraceWriter
    runner: Slot
    account_id: uuid.UUID

    def with_engine(
        self,
        other: Engine,
        *,
        margin: int = 4,
        profile: profiles.ModelProfile = profiles.TINY,
        quarantine_crashes: int = 2,
        mathematics: Equality = NO_MATHEMATICS,
        grammars: compilations.Compilations | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> Bench:
        """Return the same with another engine; by the clock ``now`` it rests after a failure."""
        engines = EnginePool([other], margin=margin, now=now)
        engines.refresh()
        runner = make_runner(
            self.database,
            engines=engines,
            leases_=self.leases,
            trace_writer=self.trace_writer,
            profile=profile,
            quarantine_crashes=quarantine_crashes,
            mathematics=mathematics,
            grammars=grammars,
        )
        return dataclasses.replace(self, engines=engines, runner=runner)

    def submit(
        self,
        *,
        question: str = "How many?",
        max_attempts: int = 3,
        deadline: float = 3600,
        options: Mapping[str, Any] | None = None,
        image: CanonicalImage | None = None,
    ) -> uuid.UUID:
        return submission.submit(
            self.database,
            submission.Submission(
                account_id=self.account_id,
                actor="key:test",
                model="tiny-qvq",
                question=question,
                images=[(image or submitted(), 4)],
                options={"max_output_tokens": 64, "temperature": 0.5, "top_p": None, "seed": 7}
                | dict(options or {}),
                metadata={},
                priority=Priority.NORMAL,
                deadline=timedelta(seconds=deadline),
                max_attempts=max_attempts,
                request_id="req_test",
            ),
            key_lifetime=timedelta(hours=24),
        ).job_id

    def view(self, job_id: uuid.UUID) -> history.JobView:
        found = history.get(self.database, job_id, account_id=None)
        assert found is not None
        return found

    def status(self, job_id: uuid.UUID) -> Status:
        return self.view(job_id).job.status

    def trace(self, job_id: uuid.UUID) -> list[traces.GenerationTrace]:
        return traces.read(self.database, job_id)

    def attempt(self, job_id: uuid.UUID) -> history.AttemptView:
        return history.attempts(self.database, job_id)[-1]

    def outcome(self, job_id: uuid.UUID) -> tuple[Status, Outcome | None]:
        """Return what became of a job and of its last attempt."""
        return self.status(job_id), self.attempt(job_id).attempt.outcome

    def reported(self, job_id: uuid.UUID) -> list[event_log.JobEvent]:
        """Return a job's events, in their order; their deltas must be the texts that are kept."""
        events = event_log.read(self.database, job_id, after=0, limit=10_000).events
        numbers = [event.number for event in events]
        assert numbers == sorted(set(numbers))
        for trace in self.trace(job_id):
            said = [event.delta or "" for event in events if event.generation == trace.number]
            assert "".join(said) == trace.text
        return list(events)

    def stop_second(self, job_id: uuid.UUID, reason: StopReason) -> None:
        """Run the job until its second stream is read, stop it for ``reason``, and await its end."""
        thread = self.run_in_thread()
        assert self.engine.second.wait(60)
        self.runner.drain()
        self.leases.end((job_id, 1), reason)
        thread.join(60)
        assert not thread.is_alive()
        assert self.engine.aborted[-1] == self.engine.requests[1].rid

    def steal(self) -> expiry.Expired:
        """End all leases, as a sweeper does when their owner has been silent."""
        claims.renew(
            self.database,
            owner="me",
            held=[(job.id, job.attempt) for job in self._running()],
            lease=timedelta(seconds=-1),
        )
        return expiry.sweep(
            self.database, actor="sweeper:test", crash_limit=3, rng=random.Random(1)
        )

    def queued_or_running(self) -> list[history.JobView]:
        """Return the jobs that have not ended."""
        filters = history.Filter(account_id=None, statuses=[Status.QUEUED, Status.RUNNING])
        return history.page(self.database, filters, limit=100)[0]

    def _running(self) -> list[Job]:
        filters = history.Filter(account_id=None, statuses=[Status.RUNNING])
        return [view.job for view in history.page(self.database, filters, limit=100)[0]]

    def run_in_thread(self) -> threading.Thread:
        """Start a slot; return its thread, after the stream has begun and processed what it was fed."""
        thread = threading.Thread(target=self.runner.work, daemon=True)
        thread.start()
        assert self.engine.reading.wait(60)
        return thread


@pytest.fixture
def engine() -> ControlledEngine:
    return ControlledEngine()


@pytest.fixture
def bench(database: Database, engine: ControlledEngine) -> Iterator[Bench]:
    key = accounts.new_key()
    accounts.create_key(
        database, key, pepper=b"p", account="default", role=Role.SUBMIT, name="test"
    )
    engines = EnginePool([engine])
    engines.refresh()
    leases_ = leases.Leases(database, owner="me", lease=LEASE, renew_seconds=15, watch_seconds=1)
    trace_writer = TraceWriter(
        database,
        publisher=RecordingPublisher(),
        owner="me",
        flush_seconds=1,
        on_lost=lambda key: leases_.end(key, StopReason.LOST),
    )
    yield Bench(
        database=database,
        engine=engine,
        engines=engines,
        leases=leases_,
        trace_writer=trace_writer,
        runner=make_runner(database, engines=engines, leases_=leases_, trace_writer=trace_writer),
        account_id=accounts.account_id(database, "default"),
    )
    leases_.stop()


@pytest.fixture
def wait_for() -> Callable[[Callable[[], bool]], bool]:
    """Return what waits until something comes true, a minute at the most."""
    return functools.partial(eventually, every=0.005)
