"""Valid things to begin from. A test names only what it is about; the rest is right by default."""

from __future__ import annotations

import dataclasses
import hashlib
import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from core import ids
from core.database import Database, Transaction, utcnow
from jobs.images import CanonicalImage, OriginalFile
from jobs.lifecycle import Priority, Role, Status
from jobs.records.attempts import Generation
from jobs.records.jobs import Job
from jobs.store import accounts, claims, history, submission, traces, turns

PEPPER = b"pepper"
KEY_LIFETIME = timedelta(hours=24)
LEASE = timedelta(seconds=60)


def make_account(database: Database, name: str | None = None) -> uuid.UUID:
    """Make an account and return its id."""
    name = name or f"account-{uuid.uuid4().hex}"
    make_key(database, account=name)
    return accounts.account_id(database, name)


def make_key(
    database: Database,
    *,
    account: str = "default",
    role: Role = Role.SUBMIT,
    requests_per_minute: int | None = None,
    max_body_mb: int | None = None,
    max_priority: Priority | None = None,
) -> str:
    """Make a key and return it."""
    key = accounts.new_key()
    accounts.create_key(
        database,
        key,
        pepper=PEPPER,
        account=account,
        role=role,
        name="test",
        requests_per_minute=requests_per_minute,
        max_body_mb=max_body_mb,
        max_priority=max_priority,
    )
    return key


def make_image(original: bytes = b"an original", **facts: Any) -> CanonicalImage:  # noqa: ANN401 - any field
    """Return a picture as the image pipeline would for ``original``."""
    known = CanonicalImage(
        detail="standard",
        media_type="image/png",
        width=56,
        height=56,
        data=b"canonical " + original,
        original=OriginalFile(
            sha256=hashlib.sha256(original).hexdigest(),
            size=len(original),
            media_type="image/png",
            width=60,
            height=60,
            orientation=1,
            frames=1,
        ),
    )
    return dataclasses.replace(known, **facts)


def make_submission(account_id: uuid.UUID, **facts: Any) -> submission.Submission:  # noqa: ANN401 - any field
    """Return a question about one picture."""
    known = submission.Submission(
        account_id=account_id,
        actor=f"key:{ids.show('key', ids.new())}",
        model="tiny-qvq",
        question="How many circles are there?",
        images=[(make_image(), 4)],
        options={"max_output_tokens": 64, "temperature": 0.5, "top_p": None, "seed": 7},
        metadata={},
        priority=Priority.NORMAL,
        deadline=timedelta(hours=1),
        max_attempts=5,
        request_id="req_test",
    )
    return dataclasses.replace(known, **facts)


def make_job(database: Database, account_id: uuid.UUID, **facts: Any) -> uuid.UUID:  # noqa: ANN401 - any field
    """Submit a job and return its id."""
    wanted = make_submission(account_id, **facts)
    return submission.submit(database, wanted, key_lifetime=KEY_LIFETIME).job_id


def insert_jobs(database: Database, account_id: uuid.UUID, rows: Sequence[dict[str, Any]]) -> None:
    """Insert many jobs at once, and the turns of those that are queued."""
    jobs = job_rows(account_id, rows)
    with database.transaction() as transaction:
        transaction.execute(sa.insert(Job), jobs)
        enter_turns(transaction, jobs)


def enter_turns(transaction: Transaction, jobs: Iterable[dict[str, Any]]) -> None:
    """Insert the turns of those of ``jobs``, as :func:`job_rows` returns them, that are queued."""
    queued = (row for row in jobs if row["status"] is Status.QUEUED)
    turns.enter_all(transaction, ((row["account_id"], row["priority"]) for row in queued))


def job_rows(account_id: uuid.UUID, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return whole rows of jobs, queued and without images unless a row says otherwise."""
    now = utcnow()
    default = {
        "account_id": account_id,
        "status": Status.QUEUED,
        "model": "tiny-qvq",
        "question": "How many circles are there?",
        "options": {},
        "metadata_": {},
        "priority": Priority.NORMAL,
        "ordering_at": now,
        "not_before": now,
        "deadline_at": now + timedelta(hours=1),
        "attempt": 0,
        "crashes": 0,
        "failures": 0,
        "max_attempts": 5,
        "request_id": "req_test",
        "created_at": now,
    }
    return [default | {"id": ids.new()} | row for row in rows]


def claim(database: Database, owner: str = "worker-1", *, lease: timedelta = LEASE) -> claims.Claim:
    """Claim the next job, which must be there."""
    claimed = claims.claim(database, owner=owner, lease=lease)
    assert claimed is not None, "there is no job to claim"
    return claimed


def postpone(database: Database) -> None:
    """Let jobs that wait for another attempt wait for ten minutes: on a slow machine, seconds pass within a test."""
    with database.transaction() as transaction:
        transaction.execute(
            sa.update(Job)
            .where(Job.status == Status.QUEUED, Job.attempt > 0)
            .values(not_before=transaction.now(timedelta(minutes=10)))
        )


def begin(database: Database, claimed: claims.Claim, *, generation: int = 0) -> datetime | None:
    """Begin a stream of a claimed job."""
    return claims.begin(
        database,
        claimed,
        rid=uuid.uuid4().hex,
        generation=generation,
        engine="http://engine",
        engine_version="1.0",
        prompt={"messages": [{"role": "user", "content": claimed.question}]},
        sampling={"temperature": 0.5},
    )


def make_piece(claimed: claims.Claim, text: str, *, position: int = 0) -> traces.TracePart:
    """Return what a stream produced between two flushes."""
    return traces.TracePart(
        job_id=claimed.job_id,
        attempt=claimed.attempt,
        generation=0,
        position=position,
        text=text,
        output_tokens=(position + 1) * 10,
        first_token_at=utcnow(),
    )


def make_ended(output: str = "It is 6.", **facts: Any) -> traces.GenerationEnd:  # noqa: ANN401 - any field
    """Return what a stream left behind that stopped by itself."""
    now = utcnow()
    known = traces.GenerationEnd(
        output=output,
        finish_reason="stop",
        input_tokens=50,
        cached_tokens=40,
        image_tokens=4,
        output_tokens=11,
        first_token_at=now,
        ended_at=now,
    )
    return dataclasses.replace(known, **facts)


def forget_steps(database: Database) -> None:
    """Take the steps of all traces away, as if workers from before there were any had ended them."""
    with database.transaction() as transaction:
        transaction.execute(sa.update(Generation).values(steps=sa.null()))


def get_job(database: Database, job_id: uuid.UUID) -> history.JobView:
    """Return a job, which must be there."""
    view = history.get(database, job_id, account_id=None)
    assert view is not None, "there is no such job"
    return view
