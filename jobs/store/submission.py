"""A job comes in: image, job, idempotency key and timeline in one transaction. The 202 follows the commit."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from jobs import errors, ids
from jobs.database import Database, LockTimeout, Transaction
from jobs.lifecycle import Priority, Status
from jobs.records import Image, ImageBytes, Job, JobImage
from jobs.store import dispatch, idempotency, timeline

#: Under which a job's first event, that it is queued, is told.
_FIRST_NUMBER = 1


@dataclass(frozen=True)
class NewImage:
    """A canonical picture and the facts of its original, ready to be kept."""

    key: str
    detail: str
    pipeline: str
    media_type: str
    width: int
    height: int
    data: bytes = field(repr=False)
    original_sha256: str
    original_bytes: int
    original_media_type: str
    original_width: int
    original_height: int
    orientation: int
    frames: int


@dataclass(frozen=True)
class Submission:
    """A job to be. ``images`` pairs each picture (new, or the id of a kept one) with its visual tokens."""

    account_id: uuid.UUID
    actor: str
    model: str
    question: str = field(repr=False)
    images: Sequence[tuple[NewImage | uuid.UUID, int]]
    options: Mapping[str, Any]
    metadata: Mapping[str, str]
    priority: Priority
    deadline: timedelta
    max_attempts: int
    request_id: str
    idempotency_key: str | None = None
    fingerprint: str | None = None
    rerun_of: uuid.UUID | None = None


@dataclass(frozen=True)
class Submitted:
    """The job that a submission made, or had made before under the same key."""

    job_id: uuid.UUID
    replayed: bool


def submit(database: Database, submission: Submission, *, key_kept: timedelta) -> Submitted:
    """Keep a job, its images and its key; or return the job that the same key and request made before.

    The loser of two concurrent submissions with one key waits on the unique index and gets the replay:
    no reservation row is needed.

    Raises:
        jobs.errors.IdempotencyKeyReused: the key came with another request.
        jobs.errors.IdempotencyInProgress: the wait for the other request was too long.
        jobs.errors.NotFound: an image is gone or belongs to somebody else.
    """
    key = submission.idempotency_key
    try:
        with database.transaction("submit") as transaction:
            if key is not None:
                idempotency.forget_expired(
                    transaction, account_id=submission.account_id, key=key, kept=key_kept
                )
            return Submitted(job_id=_insert(transaction, submission), replayed=False)
    except sa.exc.IntegrityError:
        if key is None:
            raise
        job_id = idempotency.winner(
            database,
            account_id=submission.account_id,
            key=key,
            fingerprint=submission.fingerprint,
        )
        if job_id is None:
            raise
        return Submitted(job_id=job_id, replayed=True)
    except LockTimeout as error:
        if key is None:
            raise
        raise errors.IdempotencyInProgress(
            "Another request with this Idempotency-Key is still in progress.",
            param="Idempotency-Key",
            retry_after=1,
        ) from error


def keep_image(database: Database, *, account_id: uuid.UUID, image: NewImage) -> uuid.UUID:
    """Keep an image that was uploaded by itself; return its id, the same for the same original and detail."""
    with database.transaction() as transaction:
        image_id = _keep_facts(transaction, account_id, image, uploaded=True)
        _keep_bytes(transaction, account_id, image)
        return image_id


def _insert(transaction: Transaction, submission: Submission) -> uuid.UUID:
    job_id = ids.new()
    now = transaction.now()
    row = transaction.execute(
        sa.insert(Job)
        .values(
            {
                Job.id: job_id,
                Job.account_id: submission.account_id,
                Job.status: Status.QUEUED,
                Job.model: submission.model,
                Job.question: submission.question,
                Job.options: dict(submission.options),
                Job.metadata_: dict(submission.metadata),
                Job.priority: submission.priority,
                Job.rank_at: dispatch.rank_at(transaction, submission.priority),
                Job.not_before: now,
                Job.deadline_at: transaction.now(submission.deadline),
                Job.attempt: 0,
                Job.event_number: _FIRST_NUMBER,
                Job.crashes: 0,
                Job.failures: 0,
                Job.max_attempts: submission.max_attempts,
                Job.idempotency_key: submission.idempotency_key,
                Job.fingerprint: submission.fingerprint,
                Job.request_id: submission.request_id,
                Job.rerun_of: submission.rerun_of,
                Job.created_at: now,
            }
        )
        .returning(Job.created_at, Job.not_before)
    ).one()
    images = [image for image, _ in submission.images]
    image_ids = _image_ids(transaction, submission.account_id, images)
    for position, (image_id, (_, tokens)) in enumerate(
        zip(image_ids, submission.images, strict=True)
    ):
        transaction.execute(
            sa.insert(JobImage).values(
                job_id=job_id, position=position, image_id=image_id, tokens=tokens
            )
        )
    timeline.tell(
        transaction,
        [
            timeline.Entry(
                job_id=job_id,
                at=row.created_at,
                actor=submission.actor,
                event="submitted",
                changes={
                    "status": Status.QUEUED,
                    "attempt": 0,
                    "crashes": 0,
                    "failures": 0,
                    "not_before": row.not_before,
                },
                number=_FIRST_NUMBER,
            )
        ],
    )
    transaction.notes.append(
        timeline.Move(
            event="submitted",
            source=None,
            target=Status.QUEUED,
            at=row.created_at,
            priority=submission.priority,
            attempt=0,
            created_at=row.created_at,
        )
    )
    return job_id


#: What makes two pictures of an account the same: the original's sha256, detail, pipeline.
_Identity = tuple[str, str, str]


def _image_ids(
    transaction: Transaction, account_id: uuid.UUID, images: Sequence[NewImage | uuid.UUID]
) -> list[uuid.UUID]:
    """Return the ids of ``images``: new ones are kept, known ones held until the commit.

    All that touch several images lock facts in one order and then bytes in one order, so that
    no two of them wait for each other.

    Raises:
        jobs.errors.NotFound: an image is gone or belongs to somebody else.
    """
    known = _identities(transaction, account_id, images)
    identities = [
        known[image] if isinstance(image, uuid.UUID) else _identity(image) for image in images
    ]
    wanted = dict(zip(identities, images, strict=True))
    new = {_identity(image): image for image in images if isinstance(image, NewImage)}
    found: dict[_Identity, uuid.UUID] = {}
    for identity, image in sorted((wanted | new).items(), key=lambda item: item[0]):
        found[identity] = (
            _keep_facts(transaction, account_id, image, uploaded=False)
            if isinstance(image, NewImage)
            else _hold_facts(transaction, image)
        )
    for image in sorted(new.values(), key=lambda image: image.key):
        _keep_bytes(transaction, account_id, image)
    return [found[identity] for identity in identities]


def _identity(image: NewImage) -> _Identity:
    return (image.original_sha256, image.detail, image.pipeline)


def _identities(
    transaction: Transaction, account_id: uuid.UUID, images: Sequence[NewImage | uuid.UUID]
) -> dict[uuid.UUID, _Identity]:
    """Return the identities of those of ``images`` that are named by their ids."""
    wanted = {image for image in images if isinstance(image, uuid.UUID)}
    if not wanted:
        return {}
    rows = transaction.execute(
        sa.select(Image.id, Image.original_sha256, Image.detail, Image.pipeline).where(
            Image.account_id == account_id, Image.id.in_(wanted)
        )
    ).all()
    if len(rows) < len(wanted):
        raise _image_gone()
    return {row.id: (row.original_sha256, row.detail, row.pipeline) for row in rows}


def _hold_facts(transaction: Transaction, image_id: uuid.UUID) -> uuid.UUID:
    """Make a concurrent removal wait and then see this job's reference."""
    found: uuid.UUID | None = transaction.execute(
        sa.select(Image.id)
        .where(Image.id == image_id, Image.removed_at.is_(None))
        .with_for_update(read=True)
    ).scalar_one_or_none()
    if found is None:
        raise _image_gone()
    return found


def _image_gone() -> errors.NotFound:
    return errors.NotFound("An image of this job no longer exists.", param="images")


def _keep_facts(
    transaction: Transaction, account_id: uuid.UUID, image: NewImage, *, uploaded: bool
) -> uuid.UUID:
    """Insert the image's facts, or find (and if its bytes were removed, revive) the same one of this account."""
    row = transaction.insert(Image).values(
        id=ids.new(),
        account_id=account_id,
        image_key=image.key,
        detail=image.detail,
        pipeline=image.pipeline,
        media_type=image.media_type,
        width=image.width,
        height=image.height,
        original_sha256=image.original_sha256,
        original_bytes=image.original_bytes,
        original_media_type=image.original_media_type,
        original_width=image.original_width,
        original_height=image.original_height,
        orientation=image.orientation,
        frames=image.frames,
        created_at=transaction.now(),
        uploaded_at=transaction.now() if uploaded else None,
    )
    # A conflict updates the row rather than passing by: that locks it against a concurrent removal.
    image_id: uuid.UUID = transaction.execute(
        row.on_conflict_do_update(
            index_elements=["account_id", "original_sha256", "detail", "pipeline"],
            set_={
                "removed_at": None,
                "uploaded_at": sa.func.coalesce(row.excluded.uploaded_at, Image.uploaded_at),
            },
        ).returning(Image.id)
    ).scalar_one()
    return image_id


def _keep_bytes(transaction: Transaction, account_id: uuid.UUID, image: NewImage) -> None:
    """Keep the canonical bytes, which other images of the account may share."""
    row = transaction.insert(ImageBytes).values(
        account_id=account_id, image_key=image.key, data=image.data
    )
    if transaction.dialect == "sqlite":
        transaction.execute(row.on_conflict_do_nothing())
        return
    # Setting the key to itself locks the row: a removal that does not see this image yet must wait for it.
    transaction.execute(
        row.on_conflict_do_update(
            index_elements=["account_id", "image_key"], set_={"image_key": row.excluded.image_key}
        )
    )
