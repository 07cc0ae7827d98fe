"""A job, the processes that die over it, and the one that finishes it."""

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
from jobs.records import Job, StorageChange, Worker
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
        """Submit a job that the scripted engine understands."""
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
        """Return the environment of a victim."""
        return {**self.environment, failpoints.VARIABLE: failpoint}

    def kill_worker(self, failpoint: str) -> None:
        """Run a worker until it dies at ``failpoint``."""
        with victims.running(victims.worker, self.armed(f"{failpoint}=kill")) as victim:
            assert killed(victim)
        self.let_leases_end()

    def kill_recount(self, failpoint: str) -> None:
        """Count what accounts store anew, in a process that dies at ``failpoint``."""
        with victims.running(victims.recount, self.armed(f"{failpoint}=kill")) as victim:
            assert killed(victim)

    def kill_api(self, failpoint: str, path: str, **request: object) -> None:
        """Send a request to an API that dies over it at ``failpoint``."""
        armed = self.armed(f"{failpoint}=kill")
        with victims.running(victims.api, armed, path, self.key, **request) as victim:
            assert killed(victim)

    def finish(self, job_id: uuid.UUID) -> checks.Life:
        """Let a fresh worker finish the job; return its life, which must be without fault."""
        brisk = {
            "LONGLOOK_LEASE_SECONDS": "0.8",
            # So slow that a loop that is cut leaves tokens for its answer.
            "LONGLOOK_ENGINE_URLS": "scripted:?tokens_per_second=2000&markers=true",
        }
        with victims.running(victims.worker, self.environment | brisk) as heir:
            assert eventually(lambda: self.hurry(job_id).terminal and self.present(heir))
            heir.terminate()
            heir.join(20)
            assert heir.exitcode == 0
        return self.life(job_id)

    def life(self, job_id: uuid.UUID) -> checks.Life:
        """Return what the database tells of a job that has ended."""
        lives = checks.lives(self.database)
        assert checks.broken(lives.values(), _LIMITS) == []
        assert checks.miscounted(self.database) == []
        return lives[job_id]

    def hurry(self, job_id: uuid.UUID) -> Status:
        """Return where a job stands, after telling it to wait no longer."""
        status = commands.run_now(self.database, job_id, account_id=None, actor="operator:test")
        assert status is not None
        return status

    def present(self, worker: BaseProcess) -> bool:
        """Whether a worker is up."""
        with self.database.reading() as transaction:
            return worker.pid in transaction.session.scalars(sa.select(Worker.pid)).all()

    def streams(self, job_id: uuid.UUID) -> bool:
        """Whether an engine runs the job now, and has said something."""
        running = factories.get_job(self.database, job_id).job.status is Status.RUNNING
        return running and any(trace.text for trace in traces.read(self.database, job_id))

    def stored(self, kind: StorageKind) -> int:
        """Return the bytes that the account is said to store."""
        return storage.usage(self.database, self.account_id, default_mb=0).by_kind[kind]

    def all_folded(self) -> bool:
        """Whether no change of what is stored is still to be folded."""
        with self.database.reading() as transaction:
            return transaction.session.query(StorageChange).first() is None

    def let_leases_end(self) -> None:
        """Let the leases of now be over."""
        with self.database.transaction() as transaction:
            transaction.execute(
                sa.update(Job)
                .where(Job.status == Status.RUNNING)
                .values(lease_expires_at=transaction.now(timedelta(seconds=-1)))
            )


def killed(victim: BaseProcess) -> bool:
    """Whether it died by the failpoint's own hand."""
    victim.join(30)
    return victim.exitcode == -signal.SIGKILL


def submitted() -> CanonicalImage:
    data = Path(IMAGES[0]).read_bytes()
    return factories.make_image(data, data=data, media_type="image/png")


def outcomes(life: checks.Life) -> list[str]:
    return [str(attempt.outcome) for attempt in life.attempts]
