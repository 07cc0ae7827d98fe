"""A scene: a job, processes that die while they work on it, and a process that finishes it."""

from __future__ import annotations

import signal
import uuid
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path

import sqlalchemy as sa

from core import failpoints
from core.database import Database
from jobs.images import CanonicalImage
from jobs.lifecycle import Status
from jobs.records.accounts import StorageChange
from jobs.records.fleet import Worker
from jobs.records.jobs import Job
from jobs.store import commands, storage, traces
from jobs.store.storage import StorageKind
from tests import factories
from tests.chaos import checks, victims
from tests.chaos.callers import IMAGES
from tests.e2e.stack import eventually

QUESTION = "How many shapes are there?"
_LIMITS = checks.Limits(crashes=3)


@dataclass
class Scene:
    """A database, and the processes of a test on it."""

    database: Database
    account_id: uuid.UUID
    key: str
    environment: dict[str, str]

    def submit(self, question: str = QUESTION, *, samples: int = 1, **facts: object) -> uuid.UUID:
        """Submit a job for the scripted engine."""
        options = {
            "max_output_tokens": 1500,
            "temperature": 0 if samples == 1 else 1,
            "samples": samples,
            "top_p": 1,
            "seed": None,
            "guards": {"loop": True},
        }
        return factories.make_job(
            self.database,
            self.account_id,
            question=question,
            images=[(submitted(), 4)],
            options=options,
            max_attempts=2,
            **facts,
        )

    def armed(self, failpoint: str) -> dict[str, str]:
        """Return the environment of a process with an armed failpoint."""
        return {**self.environment, failpoints.VARIABLE: failpoint}

    def kill_worker(self, failpoint: str, **more: str) -> None:
        """Run a worker, with ``more`` settings, until it dies at ``failpoint``."""
        with victims.running(victims.worker, self.armed(f"{failpoint}=kill") | more) as victim:
            assert killed(victim)
        self.let_leases_end()

    def kill_recount(self, failpoint: str) -> None:
        """Count what accounts store anew, in a process that dies at ``failpoint``."""
        with victims.running(victims.recount, self.armed(f"{failpoint}=kill")) as victim:
            assert killed(victim)

    def kill_api(self, failpoint: str, path: str, **request: object) -> None:
        """Send a request to an API that dies at ``failpoint``."""
        armed = self.armed(f"{failpoint}=kill")
        with victims.running(victims.api, armed, path, self.key, **request) as victim:
            assert killed(victim)

    def finish(self, job_id: uuid.UUID) -> checks.Life:
        """Finish the job with a new worker; return its rows, which must satisfy all invariants."""
        brisk = {
            # With PostgreSQL it waits for so long before it ends the lease of the dead one. Shorter, a busy machine
            # could make it lose its own.
            "LONGLOOK_LEASE_SECONDS": "2",
            # Slow enough that a truncated loop leaves tokens for the answer.
            "LONGLOOK_ENGINE_URLS": "scripted:?tokens_per_second=2000&markers=true",
        }
        with victims.running(victims.worker, self.environment | brisk) as heir:
            assert eventually(lambda: self.hurry(job_id).terminal and self.present(heir))
            heir.terminate()
            heir.join()
            assert heir.exitcode == 0
        return self.life(job_id)

    def life(self, job_id: uuid.UUID) -> checks.Life:
        """Return the rows of a job that has ended."""
        lives = checks.lives(self.database)
        assert checks.broken(lives.values(), _LIMITS) == []
        assert checks.miscounted(self.database) == []
        return lives[job_id]

    def hurry(self, job_id: uuid.UUID) -> Status:
        """End the job's backoff, and return its status."""
        status = commands.run_now(self.database, job_id, account_id=None, actor="operator:test")
        assert status is not None
        return status

    def present(self, worker: BaseProcess) -> bool:
        """Whether a worker is up."""
        with self.database.reading() as transaction:
            return worker.pid in transaction.session.scalars(sa.select(Worker.pid)).all()

    def streams(self, job_id: uuid.UUID) -> bool:
        """Whether an engine currently runs the job and has produced output."""
        running = factories.get_job(self.database, job_id).job.status is Status.RUNNING
        return running and any(trace.text for trace in traces.read(self.database, job_id))

    def stored(self, kind: StorageKind) -> int:
        """Return the account's storage total in bytes."""
        return storage.usage(self.database, self.account_id, default_mb=0).by_kind[kind]

    def all_folded(self) -> bool:
        """Whether all storage changes are folded."""
        with self.database.reading() as transaction:
            return transaction.session.query(StorageChange).first() is None

    def let_leases_end(self) -> None:
        """Expire all current leases."""
        with self.database.transaction() as transaction:
            transaction.execute(
                sa.update(Job)
                .where(Job.status == Status.RUNNING)
                .values(lease_expires_at=transaction.now(timedelta(seconds=-1)))
            )


def killed(victim: BaseProcess) -> bool:
    """Whether the failpoint killed it. It ends in any case: see :func:`tests.chaos.victims.begin`."""
    victim.join()
    return victim.exitcode == -signal.SIGKILL


def submitted() -> CanonicalImage:
    data = Path(IMAGES[0]).read_bytes()
    return factories.make_image(data, data=data, media_type="image/png")


def outcomes(life: checks.Life) -> list[str]:
    return [str(attempt.outcome) for attempt in life.attempts]
