"""The removal of a job's data and of an image's bytes. :mod:`jobs.store.contents` says what that is, and what stays."""

import itertools
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import sqlalchemy as sa

from core import errors
from core.database import Database, Transaction
from jobs.lifecycle import Status
from jobs.records.declarative import table
from jobs.records.images import Image, ImageBytes, JobImage
from jobs.records.jobs import Job
from jobs.store import contents, responses, timeline

#: The condition of a job to need its images: it may run, or be run again.
NEEDING = sa.and_(Job.images_released_at.is_(None), Job.data_removed_at.is_(None))

_UNFINISHED = (Status.QUEUED, Status.RUNNING)
_JOB = table(Job).c


@dataclass(frozen=True)
class DataRemoved:
    """What a batch removed: the content of jobs, and the bytes of images."""

    jobs: int = 0
    images: int = 0


#: Removes what another room has copied of the answers of jobs, in the transaction that removes them.
RemoveCopies = Callable[[Transaction, Collection[uuid.UUID]], None]


def remove_job(
    database: Database,
    job_id: uuid.UUID,
    *,
    account_id: uuid.UUID | None,
    actor: str,
    remove_copies: RemoveCopies | None = None,
) -> bool:
    """Remove question, answer and traces of a finished job, and images that no other job needs.

    Args:
        database: where it is kept.
        job_id: the job.
        account_id: the account it must belong to; None: any.
        actor: who removes it, as the timeline names it.
        remove_copies: called in the same transaction.

    Returns:
        False when there is no such job (in this account).

    Raises:
        core.errors.Conflict: the job has not finished.
    """
    with database.transaction() as transaction:
        job = transaction.session.get(Job, job_id, with_for_update=True)
        if job is None or (account_id is not None and job.account_id != account_id):
            return False
        if not job.status.terminal:
            raise errors.Conflict("The job has not finished; cancel it first.")
        remove_data(transaction, [job_id], actor=actor, remove_copies=remove_copies)
        return True


def remove_data(
    transaction: Transaction,
    job_ids: Collection[uuid.UUID],
    *,
    actor: str,
    remove_copies: RemoveCopies | None = None,
    noted: Mapping[str, str] = MappingProxyType({}),
) -> DataRemoved:
    """Remove the content of those jobs of a batch that have finished and still have it; the others do not change.

    Args:
        transaction: the open transaction, which should be short: a few dozen jobs.
        job_ids: the jobs.
        actor: who removes it, as the timeline names it.
        noted: further facts for the timeline.
        remove_copies: called in the same transaction with the ids of the jobs that are changed.

    Returns:
        How many jobs lost their content, and how many images had no other job.
    """
    rows = transaction.execute(
        sa.select(_JOB.id, _JOB.status)
        .where(_JOB.id.in_(job_ids), _JOB.data_removed_at.is_(None), _JOB.finished_at.is_not(None))
        .order_by(_JOB.id)
        .with_for_update()
    )
    by_status: dict[Status, list[uuid.UUID]] = {}
    for row in rows:
        by_status.setdefault(row.status, []).append(row.id)
    chosen = sorted(itertools.chain(*by_status.values()))
    if not chosen:
        return DataRemoved()
    # Before the columns: a copy is found by what they say.
    contents.remove_traces(transaction, chosen)
    contents.remove_answers(transaction, chosen)
    for status, of_status in by_status.items():
        removed = timeline.Change(
            "data_removed",
            source=status,
            target=status,
            where=(_JOB.id.in_(of_status),),
            values={**contents.CLEARED, "data_removed_at": transaction.now()},
        )
        timeline.change(transaction, removed, actor=actor, noted=noted)
    if remove_copies is not None:
        remove_copies(transaction, chosen)
    return DataRemoved(jobs=len(chosen), images=remove_orphans(transaction, chosen))


def discard(database: Database, *, actor: str, remove_copies: RemoveCopies, limit: int = 50) -> int:
    """Remove the content of ended jobs that is not to be stored and that no request has removed; return how many.

    Args:
        database: where it is stored.
        actor: who removes it, as the timeline names it.
        remove_copies: called in the same transaction.
        limit: the most jobs.
    """
    job_ids = responses.to_discard(database, limit=limit)
    if not job_ids:
        return 0
    with database.transaction() as transaction:
        return remove_data(transaction, job_ids, actor=actor, remove_copies=remove_copies).jobs


def remove_orphans(transaction: Transaction, job_ids: Collection[uuid.UUID]) -> int:
    """Remove the jobs' images that were not uploaded without a job and that no other job needs; return how many.

    Facts and bytes are locked in the order in which a submission locks them.
    """
    used = sa.select(JobImage.image_id).where(JobImage.job_id.in_(job_ids))
    rows = transaction.session.scalars(
        sa.select(Image)
        .where(Image.id.in_(used), Image.uploaded_at.is_(None), Image.removed_at.is_(None))
        .order_by(Image.original_sha256, Image.detail, Image.pipeline)
        .with_for_update()
    )
    # Only with the images locked does the last of several jobs see that it is the last one.
    orphans = [image for image in rows if not referenced(transaction, image.id, NEEDING)]
    for image in sorted(orphans, key=lambda image: image.image_key):
        drop_image(transaction, image)
    return len(orphans)


def remove_image(database: Database, image_id: uuid.UUID, *, account_id: uuid.UUID) -> bool:
    """Remove an image's bytes, whether it was uploaded or came with a job.

    Returns:
        False when there is no such image in this account.

    Raises:
        core.errors.Conflict: an unfinished job uses it.
    """
    with database.transaction() as transaction:
        image = transaction.session.get(Image, image_id, with_for_update=True)
        if image is None or image.account_id != account_id or image.removed_at is not None:
            return False
        if referenced(transaction, image.id, Job.status.in_(_UNFINISHED)):
            raise errors.Conflict("An unfinished job uses this image.")
        drop_image(transaction, image)
        return True


def referenced(
    transaction: Transaction, image_id: uuid.UUID, condition: sa.ColumnElement[bool]
) -> bool:
    """Return whether a job that meets ``condition`` has the image; the newest jobs are read first."""
    statement = (
        sa.select(JobImage.job_id)
        .join(Job, Job.id == JobImage.job_id)
        .where(JobImage.image_id == image_id, condition)
        .order_by(JobImage.job_id.desc())
        .limit(1)
    )
    return transaction.execute(statement).first() is not None


def drop_image(transaction: Transaction, image: Image) -> None:
    """Set the image's ``removed_at``, and delete its bytes when no other image of the account shares them."""
    transaction.update(Image, Image.id == image.id, removed_at=transaction.now(), uploaded_at=None)
    # A transaction that stores or removes another image with these bytes waits here, so one of the two sees the other.
    transaction.execute(
        sa.select(ImageBytes.image_key)
        .where(ImageBytes.account_id == image.account_id, ImageBytes.image_key == image.image_key)
        .with_for_update()
    )
    others = (
        sa.select(Image.id)
        .where(
            Image.account_id == image.account_id,
            Image.image_key == image.image_key,
            Image.removed_at.is_(None),
        )
        .limit(1)
    )
    if transaction.execute(others).first() is None:
        transaction.delete(
            ImageBytes,
            ImageBytes.account_id == image.account_id,
            ImageBytes.image_key == image.image_key,
        )
