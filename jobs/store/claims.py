"""The running of a job: claim, begin, renew, settle; all fenced by the attempt and its owner.

A claim gives a :class:`Claim`. Whoever holds it may write only while the row still says so: each verb
returns False (or leaves the job out of its answer) when the job is no longer theirs, and then whatever
the holder has is discarded.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from jobs import lifecycle
from jobs.answers import Answer
from jobs.database import Database, Transaction
from jobs.lifecycle import Outcome, Status
from jobs.records import Attempt, Image, ImageBytes, Job, JobImage, Sample
from jobs.store import dispatch, timeline, traces

_SWEEP_LIMIT = 200


@dataclass(frozen=True)
class ClaimedImage:
    """A picture of a claimed job, without its bytes."""

    key: str
    media_type: str
    width: int
    height: int
    tokens: int


@dataclass(frozen=True)
class Claim:
    """A job that this owner runs now, as its ``attempt``-th attempt."""

    job_id: uuid.UUID
    attempt: int
    owner: str
    account_id: uuid.UUID
    model: str
    question: str = field(repr=False)
    options: Mapping[str, Any]
    images: tuple[ClaimedImage, ...]
    failures: int
    max_attempts: int
    request_id: str


@dataclass(frozen=True)
class Fault:
    """Why an attempt failed, as the caller sees it."""

    code: str
    message: str
    retryable: bool = False


@dataclass(frozen=True)
class Flags:
    """What has been asked of a running job since it was claimed."""

    cancel: bool
    overdue: bool


def claim(database: Database, *, owner: str, lease: timedelta) -> Claim | None:
    """Claim the best eligible job for ``owner``, or return None when there is none."""
    with database.transaction("claim") as transaction:
        changed = timeline.change(
            transaction,
            where=(Job.id == dispatch.best(transaction),),
            source=Status.QUEUED,
            target=Status.RUNNING,
            values={
                "attempt": Job.attempt + 1,
                "lease_owner": owner,
                "lease_expires_at": transaction.now(lease),
                "started_at": sa.func.coalesce(Job.started_at, transaction.now()),
            },
            event="claimed",
            actor=f"worker:{owner}",
        )
        if not changed:
            return None
        job = transaction.session.get_one(Job, changed[0].id)
        transaction.execute(
            sa.insert(Attempt).values(
                job_id=job.id, number=job.attempt, worker=owner, claimed_at=transaction.now()
            )
        )
        return Claim(
            job_id=job.id,
            attempt=job.attempt,
            owner=owner,
            account_id=job.account_id,
            model=job.model,
            question=job.question or "",
            options=job.options,
            images=_claimed_images(transaction, job.id),
            failures=job.failures,
            max_attempts=job.max_attempts,
            request_id=job.request_id,
        )


def _claimed_images(transaction: Transaction, job_id: uuid.UUID) -> tuple[ClaimedImage, ...]:
    rows = transaction.execute(
        sa.select(
            Image.image_key.label("key"),
            Image.media_type,
            Image.width,
            Image.height,
            JobImage.tokens,
        )
        .join(JobImage, JobImage.image_id == Image.id)
        .where(JobImage.job_id == job_id)
        .order_by(JobImage.position)
    )
    return tuple(ClaimedImage(**row) for row in rows.mappings())


def picture(database: Database, *, account_id: uuid.UUID, key: str) -> bytes | None:
    """Return the canonical bytes of a picture, or None when they have been removed."""
    with database.reading() as transaction:
        row = transaction.session.get(ImageBytes, (account_id, key))
        return None if row is None else row.data


def begin(
    database: Database,
    claim: Claim,
    *,
    rid: str,
    sample: int,
    engine: str,
    engine_version: str,
    prompt: Mapping[str, Any],
    sampling: Mapping[str, Any],
) -> datetime | None:
    """Note what is about to be asked of which engine; return the start by the database's clock, or None if lost."""
    with database.transaction("begin") as transaction:
        if not traces.hold(transaction, claim.owner, [(claim.job_id, claim.attempt)]):
            return None
        transaction.execute(
            sa.update(Attempt)
            .where(Attempt.job_id == claim.job_id, Attempt.number == claim.attempt)
            .values(
                engine=engine,
                engine_version=engine_version,
                model=claim.model,
                prompt=dict(prompt),
                sampling=dict(sampling),
            )
        )
        started_at: datetime = transaction.execute(
            sa.insert(Sample)
            .values(
                job_id=claim.job_id,
                attempt=claim.attempt,
                number=sample,
                rid=rid,
                output_tokens=0,
                started_at=transaction.now(),
            )
            .returning(Sample.started_at)
        ).scalar_one()
        return started_at


def renew(
    database: Database, *, owner: str, held: Iterable[tuple[uuid.UUID, int]], lease: timedelta
) -> set[tuple[uuid.UUID, int]]:
    """Renew the leases of ``held`` (job, attempt) in one statement; return those that are still the owner's."""
    pairs = sorted(held)
    if not pairs:
        return set()
    # Rows are locked in the order in which the recorder locks them: else the two could wait for each other.
    mine = (
        sa.select(Job.id)
        .where(*traces.held_by(owner, pairs))
        .order_by(Job.id)
        .with_for_update()
        .cte("mine")
    )
    with database.transaction("renew") as transaction:
        rows = transaction.execute(
            sa.update(Job)
            .where(Job.id.in_(sa.select(mine.c.id)))
            .values(lease_expires_at=transaction.now(lease))
            .returning(Job.id, Job.attempt)
        ).all()
        return {(row.id, row.attempt) for row in rows}


def watch(
    database: Database, *, owner: str, held: Iterable[tuple[uuid.UUID, int]]
) -> dict[tuple[uuid.UUID, int], Flags]:
    """Return what is asked of ``held``; a job that is missing from the answer is no longer the owner's."""
    pairs = sorted(held)
    if not pairs:
        return {}
    with database.reading() as transaction:
        rows = transaction.execute(
            sa.select(
                Job.id,
                Job.attempt,
                Job.cancel_requested_at.is_not(None).label("cancel"),
                (Job.deadline_at <= transaction.now()).label("overdue"),
            ).where(*traces.held_by(owner, pairs))
        ).all()
        return {
            (row.id, row.attempt): Flags(cancel=bool(row.cancel), overdue=bool(row.overdue))
            for row in rows
        }


def succeed(
    database: Database, claim: Claim, *, answer: Answer | None, sample: traces.Ended
) -> bool:
    """End the job with its answer (None: the trace holds none), usage and trace; False when it is lost."""
    with database.transaction("succeed") as transaction:
        return _settle_in(
            transaction,
            claim,
            target=Status.SUCCEEDED,
            outcome=Outcome.SUCCEEDED,
            sample=sample,
            values={
                "answer_text": answer.text if answer else None,
                "answer_rule": answer.rule if answer else None,
                "finish_reason": sample.finish_reason,
                "first_token_at": sample.first_token_at,
            },
        )


def fail(database: Database, claim: Claim, fault: Fault, *, sample: traces.Ended | None) -> bool:
    """End the job as failed, its partial trace kept; False when it is lost."""
    with database.transaction("fail") as transaction:
        return _settle_in(
            transaction,
            claim,
            target=Status.FAILED,
            outcome=Outcome.FAILED,
            sample=sample,
            fault=fault,
            values=_error_columns(fault),
        )


def stop(database: Database, claim: Claim, *, sample: traces.Ended | None) -> bool:
    """End the job as cancelled, after its engine has stopped; False when it is lost."""
    with database.transaction("stop") as transaction:
        return _stop(transaction, claim, sample=sample)


def retry(
    database: Database,
    claim: Claim,
    fault: Fault,
    *,
    sample: traces.Ended | None,
    rng: random.Random,
) -> bool:
    """Put the job back for another try after a counted fault, with backoff; False when it is lost.

    A job whose cancel was asked for meanwhile does not go back: it ends as cancelled.
    """
    with database.transaction("retry") as transaction:
        if _cancel_requested(transaction, claim):
            return _stop(transaction, claim, sample=sample)
        wait = lifecycle.backoff(claim.failures + 1, rng=rng)
        return _settle_in(
            transaction,
            claim,
            target=Status.QUEUED,
            outcome=Outcome.RETRIED,
            sample=sample,
            fault=fault,
            values={"failures": Job.failures + 1, "not_before": transaction.now(wait)},
        )


def release(
    database: Database,
    claim: Claim,
    *,
    sample: traces.Ended | None,
    wait: timedelta = timedelta(0),
    fault: Fault | None = None,
) -> bool:
    """Give the job back uncounted: a drain, or (``fault``) an engine that is full or away; False when it is lost.

    An engine that took no request sends no bill: the job keeps the one it has.

    A job whose cancel was asked for meanwhile does not go back: it ends as cancelled.
    """
    with database.transaction("release") as transaction:
        if _cancel_requested(transaction, claim):
            return _stop(transaction, claim, sample=sample)
        return _settle_in(
            transaction,
            claim,
            target=Status.QUEUED,
            outcome=Outcome.RELEASED,
            sample=sample,
            fault=fault,
            billed=fault is None,
            values={"not_before": transaction.now(wait)},
        )


def landed(database: Database, claim: Claim) -> Outcome | None:
    """Return how the attempt ended, if it did: the answer after a commit whose outcome is unknown."""
    with database.reading() as transaction:
        attempt = transaction.session.get(Attempt, (claim.job_id, claim.attempt))
        return attempt.outcome if attempt else None


def _error_columns(fault: Fault) -> dict[str, Any]:
    return {
        "error_code": fault.code,
        "error_message": fault.message,
        "error_retryable": fault.retryable,
    }


def _fence(claim: Claim) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        Job.id == claim.job_id,
        Job.attempt == claim.attempt,
        Job.lease_owner == claim.owner,
    )


def _cancel_requested(transaction: Transaction, claim: Claim) -> bool:
    """Whether somebody asked for the job's end; until the commit nobody else can."""
    requested = transaction.execute(
        sa.select(Job.cancel_requested_at).where(*_fence(claim)).with_for_update()
    )
    return requested.scalar_one_or_none() is not None


def _stop(transaction: Transaction, claim: Claim, *, sample: traces.Ended | None) -> bool:
    return _settle_in(
        transaction,
        claim,
        target=Status.CANCELLED,
        outcome=Outcome.CANCELLED,
        sample=sample,
        values={"engine_stopped_at": transaction.now()} if sample is not None else {},
    )


def _settle_in(
    transaction: Transaction,
    claim: Claim,
    *,
    target: Status,
    outcome: Outcome,
    sample: traces.Ended | None,
    values: dict[str, Any],
    fault: Fault | None = None,
    billed: bool = True,
) -> bool:
    """End the attempt: the job by one fenced UPDATE, and only then the attempt, its sample and its bill."""
    if sample is not None and billed:
        values = values | _usage(transaction, claim, sample)
    changed = timeline.change(
        transaction,
        where=_fence(claim),
        source=Status.RUNNING,
        target=target,
        values=values,
        event=str(outcome),
        actor=f"worker:{claim.owner}",
    )
    if not changed:
        return False
    _end_attempt(transaction, claim.job_id, claim.attempt, outcome=outcome, fault=fault)
    if sample is not None:
        traces.finish(transaction, claim.job_id, claim.attempt, sample=0, ended=sample)
    else:
        traces.fold(transaction, claim.job_id, claim.attempt, finish_reason="error")
    return True


def _usage(transaction: Transaction, claim: Claim, sample: traces.Ended) -> dict[str, Any]:
    """Return the job's bill, the last attempt's that an engine took; engine seconds add up over all of them."""
    started: datetime | None = transaction.execute(
        sa.select(Sample.started_at).where(
            Sample.job_id == claim.job_id, Sample.attempt == claim.attempt, Sample.number == 0
        )
    ).scalar_one_or_none()
    seconds = (sample.ended_at - started).total_seconds() if started else 0.0
    return {
        "input_tokens": sample.input_tokens,
        "cached_tokens": sample.cached_tokens,
        "image_tokens": sample.image_tokens,
        "output_tokens": sample.output_tokens,
        "engine_seconds": sa.func.coalesce(Job.engine_seconds, 0.0) + seconds,
    }


def _end_attempt(
    transaction: Transaction,
    job_id: uuid.UUID,
    attempt: int,
    *,
    outcome: Outcome,
    fault: Fault | None,
) -> None:
    transaction.execute(
        sa.update(Attempt)
        .where(Attempt.job_id == job_id, Attempt.number == attempt)
        .values(
            ended_at=transaction.now(),
            outcome=outcome,
            error_code=fault.code if fault else None,
            error_message=fault.message if fault else None,
        )
    )


@dataclass(frozen=True)
class Swept:
    """What a sweep did: jobs by what became of them."""

    requeued: int = 0
    failed: int = 0
    cancelled: int = 0
    overdue: int = 0


def sweep(
    database: Database, *, actor: str, crash_limit: int, rng: random.Random, leases: bool = True
) -> Swept:
    """End dead leases (if ``leases``) and the deadlines of queued jobs, up to 200 of each."""
    requeued = failed = cancelled = 0
    with database.transaction("expire") as transaction:
        for job_id, attempt in _dead(transaction) if leases else ():
            status = _expire(
                transaction, job_id, attempt, actor=actor, crash_limit=crash_limit, rng=rng
            )
            requeued += status is Status.QUEUED
            failed += status is Status.FAILED
            cancelled += status is Status.CANCELLED
    with database.transaction("overdue") as transaction:
        overdue = timeline.change(
            transaction,
            where=(Job.id.in_(_overdue(transaction)),),
            source=Status.QUEUED,
            target=Status.FAILED,
            values=_error_columns(
                Fault(code="deadline_exceeded", message="The deadline passed while the job waited.")
            ),
            event="overdue",
            actor=actor,
        )
    return Swept(requeued=requeued, failed=failed, cancelled=cancelled, overdue=len(overdue))


def due(database: Database, *, limit: int) -> int:
    """Return how many jobs could be claimed now, counted up to ``limit``."""
    with database.reading() as transaction:
        found = sa.select(Job.id).where(*dispatch.eligible(transaction)).limit(limit).subquery()
        counted: int = transaction.execute(
            sa.select(sa.func.count()).select_from(found)
        ).scalar_one()
        return counted


def uptime(database: Database) -> timedelta:
    """Return for how long the PostgreSQL server has been up."""
    with database.reading() as transaction:
        up: timedelta = transaction.execute(
            sa.select(
                sa.type_coerce(
                    transaction.now() - sa.func.pg_postmaster_start_time(), sa.Interval()
                )
            )
        ).scalar_one()
        return up


def _dead(transaction: Transaction) -> list[tuple[uuid.UUID, int]]:
    """Return (and on PostgreSQL lock) the running jobs whose lease has run out."""
    rows = transaction.execute(
        sa.select(Job.id, Job.attempt)
        .where(
            timeline.standing(Status.RUNNING),
            Job.lease_expires_at < transaction.now(),
        )
        .order_by(Job.lease_expires_at)
        .limit(_SWEEP_LIMIT)
        .with_for_update(skip_locked=True)
    )
    return [(row.id, row.attempt) for row in rows]


def _overdue(transaction: Transaction) -> sa.Select[uuid.UUID]:
    choice = (
        sa.select(Job.id)
        .where(timeline.standing(Status.QUEUED), Job.deadline_at <= transaction.now())
        .limit(_SWEEP_LIMIT)
        .with_for_update(skip_locked=True)
        .cte("overdue")
    )
    return sa.select(choice.c.id)


def _expire(
    transaction: Transaction,
    job_id: uuid.UUID,
    attempt: int,
    *,
    actor: str,
    crash_limit: int,
    rng: random.Random,
) -> Status | None:
    """End one dead lease; return what became of the job, or None when its owner was quicker."""
    job = transaction.session.get_one(Job, job_id, populate_existing=True)
    fault = Fault(code="worker_lost", message="The worker was lost while it ran the job.")
    values: dict[str, Any] = {"crashes": Job.crashes + 1}
    if job.cancel_requested_at is not None:
        target = Status.CANCELLED
    elif job.crashes + 1 >= crash_limit:
        target = Status.FAILED
        values |= _error_columns(fault)
    else:
        target = Status.QUEUED
        values["not_before"] = transaction.now(lifecycle.backoff(job.crashes + 1, rng=rng))
    changed = timeline.change(
        transaction,
        where=(
            Job.id == job_id,
            Job.attempt == attempt,
            Job.lease_expires_at < transaction.now(),
        ),
        source=Status.RUNNING,
        target=target,
        values=values,
        event=str(Outcome.LOST),
        actor=actor,
    )
    if not changed:
        return None
    _end_attempt(transaction, job_id, attempt, outcome=Outcome.LOST, fault=fault)
    traces.fold(transaction, job_id, attempt, finish_reason="lost")
    return target
