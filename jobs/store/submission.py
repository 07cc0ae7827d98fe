"""Submissions: images, jobs, idempotency key and timeline in one transaction. The 202 follows the commit."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa

from core import errors, ordered_ids
from core.database import Database, Now, Seconds, Transaction
from core.database_faults import LockTimeout
from jobs.images import CanonicalImage
from jobs.lifecycle import Priority, Status
from jobs.phrases import Part
from jobs.records.declarative import table
from jobs.records.images import JobImage
from jobs.records.jobs import Job
from jobs.store import (
    dispatch,
    erased_accounts,
    holds,
    idempotency,
    responses,
    search,
    storage,
    timeline,
    turns,
)
from jobs.store import images as submitted_images

#: The sequence number of a job's first event, ``job.queued``.
_FIRST_NUMBER = 1
#: The columns that the timeline reports of a new job.
_SUBMITTED = ("status", "attempt", "crashes", "failures", "not_before")


@dataclass(frozen=True)
class Follower:
    """A further question about the same images, and its options."""

    question: str = field(repr=False)
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Submission:
    """A job to submit, or (with ``followers``) the leader of a group.

    ``images`` pairs each image (a new one, or the id of a stored one) with its visual tokens.
    """

    account_id: uuid.UUID
    actor: str
    model: str
    question: str = field(repr=False)
    images: Sequence[tuple[CanonicalImage | uuid.UUID, int]]
    options: Mapping[str, Any]
    metadata: Mapping[str, str]
    priority: Priority
    deadline: timedelta
    max_attempts: int
    request_id: str
    idempotency_key: str | None = None
    fingerprint: str | None = None
    rerun_of: uuid.UUID | None = None
    #: Its own webhook as JSON, stored as it is.
    webhook: Mapping[str, Any] | None = None
    #: None: a job by itself.
    followers: Sequence[Follower] | None = None
    #: Whether its client waits for the answer on an open connection.
    held: bool = False
    #: What a client of OpenAI's surface sent; None: the job comes from the native routes.
    response: responses.NewResponse | None = None


@dataclass(frozen=True)
class Submitted:
    """The job (of a group: the leader) of a submission, or the one that an earlier request with its key submitted."""

    job_id: uuid.UUID
    #: The new job, detached from any session; None: an earlier request submitted it.
    job: Job | None = field(default=None, compare=False, repr=False)
    #: The new job's images.
    images: tuple[submitted_images.ImageView, ...] = field(default=(), compare=False, repr=False)

    @property
    def replayed(self) -> bool:
        """Whether an earlier request submitted the job."""
        return self.job is None


def submit(
    database: Database,
    submission: Submission,
    *,
    key_lifetime: timedelta,
    storage_limit: int | None = None,
    joined: Callable[[Transaction, uuid.UUID], None] = lambda _transaction, _job_id: None,
) -> Submitted:
    """Store a job, its images and its key; or return the job that an earlier request with the same key submitted.

    The later of two concurrent submissions with one key waits on the unique index and gets the replay, so no
    reservation row is needed.

    Args:
        database: where jobs are stored.
        submission: the job.
        key_lifetime: how long its Idempotency-Key is valid.
        storage_limit: the most bytes that the account may store, as :meth:`jobs.store.storage.Quota.check` returns it.
        joined: called with the new job at the end of its transaction; what it raises undoes the submission.

    Raises:
        core.errors.StorageQuotaExceeded: the account would store more than ``storage_limit``; nothing is stored.
        core.errors.IdempotencyKeyReused: the key was used with a different request.
        core.errors.IdempotencyInProgress: the wait for the other request took too long.
        core.errors.NotFound: an image was removed, or belongs to another account.
    """
    key = submission.idempotency_key
    try:
        with database.transaction("submit") as transaction:
            if key is not None:
                idempotency.forget_expired(
                    transaction, account_id=submission.account_id, key=key, stored=key_lifetime
                )
            stored = insert(transaction, submission, storage_limit=storage_limit)
            joined(transaction, stored.job_id)
            return stored
    except sa.exc.IntegrityError:
        if key is None:
            raise
        # A concurrent request submitted the job with the same key, or the conflict was another one.
        job_id = idempotency.replay(
            database,
            account_id=submission.account_id,
            key=key,
            fingerprint=submission.fingerprint,
            stored=None,
        )
        if job_id is None:
            raise
        return Submitted(job_id=job_id)
    except LockTimeout as error:
        if key is None:
            raise
        raise errors.IdempotencyInProgress(
            "Another request with this Idempotency-Key is still in progress.",
            param="Idempotency-Key",
            retry_after=1,
        ) from error


def insert(
    transaction: Transaction,
    submission: Submission,
    *,
    storage_limit: int | None,
    noted: Mapping[str, str] = MappingProxyType({}),
) -> Submitted:
    """Store a job as part of ``transaction``; ``noted`` is what else the timeline says of it.

    Raises:
        core.errors.StorageQuotaExceeded: the account would store more than ``storage_limit``.
        core.errors.NotFound: an image was removed, or belongs to another account.
        core.errors.Unauthenticated: the account is erased.
    """
    job, images = _insert(transaction, submission, noted)
    erased_accounts.refuse(transaction, submission.account_id)
    if storage_limit is not None:
        storage.enforce(transaction, submission.account_id, storage_limit)
    return Submitted(job_id=job.id, job=job, images=images)


def store_image(
    database: Database,
    *,
    account_id: uuid.UUID,
    image: CanonicalImage,
    storage_limit: int | None = None,
) -> uuid.UUID:
    """Store an image that was uploaded without a job; return its id, the same for the same original and detail.

    Raises:
        core.errors.StorageQuotaExceeded: the account would store more than ``storage_limit``; nothing is stored.
    """
    with database.transaction("upload") as transaction:
        image_id = submitted_images.store_upload(transaction, account_id, image)
        erased_accounts.refuse(transaction, account_id)
        if storage_limit is not None:
            storage.enforce(transaction, account_id, storage_limit)
        return image_id


def _insert(
    transaction: Transaction, submission: Submission, noted: Mapping[str, str]
) -> tuple[Job, tuple[submitted_images.ImageView, ...]]:
    """Insert the job of ``submission``, then its followers; return the job and its images."""
    job_id = ordered_ids.new(transaction)
    group_id = None if submission.followers is None else job_id
    # The key comes first: a second request with the same key waits here, before it locks an image.
    keyed = {"idempotency_key": submission.idempotency_key, "fingerprint": submission.fingerprint}
    jobs = [_insert_job(transaction, submission, id=job_id, group_id=group_id, **keyed)]
    images = [image for image, _ in submission.images]
    stored = submitted_images.store(transaction, submission.account_id, images)
    views = tuple(
        submitted_images.ImageView(facts, tokens)
        for facts, (_, tokens) in zip(stored, submission.images, strict=True)
    )
    jobs += [
        _insert_job(
            transaction,
            submission,
            id=ordered_ids.new(transaction),
            group_id=group_id,
            question=follower.question,
            options=dict(follower.options),
        )
        for follower in submission.followers or ()
    ]
    if views:
        transaction.execute(
            _JOB_IMAGE,
            [
                {
                    "job_id": job.id,
                    "position": position,
                    "image_id": view.image.id,
                    "tokens": view.tokens,
                }
                for job in jobs
                for position, view in enumerate(views)
            ],
        )
    if submission.response is not None:
        responses.add(transaction, job_id, submission.response)
    if submission.held:
        holds.begin(transaction, job_id)
    _record(transaction, submission, jobs, noted)
    # Last, after the waits for the key and the images: so no two submissions deadlock.
    turns.enter(transaction, submission.account_id, submission.priority)
    return jobs[0], views


_JOB_IMAGE = sa.insert(table(JobImage))
#: The columns that are the same in all new jobs, and those that the database's clock sets.
_NEW = {
    "status": Status.QUEUED,
    "ordering_at": dispatch.ordering_at(sa.bindparam("b_ordering", type_=Seconds())),
    "not_before": Now(),
    "deadline_at": Now(sa.bindparam("b_deadline", type_=Seconds())),
    "attempt": 0,
    "last_sequence_number": _FIRST_NUMBER,
    "crashes": 0,
    "failures": 0,
    "created_at": Now(),
}
_JOB = sa.insert(table(Job)).values(_NEW).returning(*(table(Job).c[name] for name in _NEW))


def _insert_job(
    transaction: Transaction,
    submission: Submission,
    **columns: Any,  # noqa: ANN401 - any column's value goes in
) -> Job:
    """Insert a queued job of ``submission`` with the given ``columns``; return it, detached from any session."""
    values: dict[str, Any] = {
        "account_id": submission.account_id,
        "model": submission.model,
        "question": submission.question,
        "options": dict(submission.options),
        "priority": submission.priority,
        "max_attempts": submission.max_attempts,
        "request_id": submission.request_id,
        "rerun_of": submission.rerun_of,
        "webhook": submission.webhook and dict(submission.webhook),
        **columns,
    }
    metadata = dict(submission.metadata)
    bound = {
        "metadata": metadata,
        "b_ordering": dispatch.ordering_delta(submission.priority),
        "b_deadline": submission.deadline,
    }
    inserted = transaction.execute(_JOB, values | bound).mappings().one()
    job = Job(**values, **inserted, metadata_=metadata)
    search.add(transaction, job.id, Part.QUESTION, job.question)
    return job


def _record(
    transaction: Transaction,
    submission: Submission,
    jobs: Sequence[Job],
    noted: Mapping[str, str],
) -> None:
    """Add the submission to the timelines of ``jobs``, and a note for the metrics."""
    timeline.record(
        transaction,
        [
            {
                "job_id": job.id,
                "at": job.created_at,
                "actor": submission.actor,
                "action": "submitted",
                "changes": timeline.plain({name: getattr(job, name) for name in _SUBMITTED})
                | dict(noted),
                "sequence_number": _FIRST_NUMBER,
            }
            for job in jobs
        ],
    )
    transaction.notes += [
        timeline.Move(
            action="submitted",
            source=None,
            target=Status.QUEUED,
            at=job.created_at,
            priority=submission.priority,
            attempt=0,
            created_at=job.created_at,
        )
        for job in jobs
    ]
