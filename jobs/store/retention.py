"""The removal of a job's data and of an image's bytes. Counters, hashes and the timeline stay."""

import uuid
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

import sqlalchemy as sa

from core import errors
from core.database import Database, Transaction
from jobs.lifecycle import Status
from jobs.phrases import Part
from jobs.records import Attempt, Generation, Image, ImageBytes, Job, JobImage, TraceChunk, table
from jobs.store import search, timeline

#: The columns that are cleared with a job's question and answer.
NO_ANSWER = {
    "question": None,
    "answer_text": None,
    "answer_tex": None,
    "answer_rule": None,
    "answer_value": None,
    "answer_forced": None,
    "votes": None,
}
#: The condition of a job to need its images: it may run, or be run again.
NEEDING = sa.and_(Job.images_released_at.is_(None), Job.data_removed_at.is_(None))

_UNFINISHED = (Status.QUEUED, Status.RUNNING)


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
        remove_data(transaction, job, actor=actor, remove_copies=remove_copies)
        return True


def remove_data(
    transaction: Transaction,
    job: Job,
    *,
    actor: str,
    remove_copies: RemoveCopies | None = None,
    noted: Mapping[str, str] = MappingProxyType({}),
) -> bool:
    """Remove the data of a finished job, which must be locked; return False if that was done before."""
    if job.data_removed_at is not None:
        return False
    removed = timeline.Change(
        "data_removed",
        source=job.status,
        target=job.status,
        where=(table(Job).c.id == job.id, table(Job).c.data_removed_at.is_(None)),
        values={**NO_ANSWER, "data_removed_at": transaction.now()},
    )
    timeline.change(transaction, removed, actor=actor, noted=noted)
    remove_traces(transaction, [job.id])
    remove_answers(transaction, [job.id])
    if remove_copies is not None:
        remove_copies(transaction, [job.id])
    remove_orphans(transaction, [job.id])
    return True


def remove_traces(transaction: Transaction, job_ids: Collection[uuid.UUID]) -> None:
    """Remove the outputs and the prompts of all attempts of finished jobs."""
    transaction.delete(TraceChunk, TraceChunk.job_id.in_(job_ids))
    transaction.update(
        Generation, Generation.job_id.in_(job_ids), output=None, event_index=None, steps=sa.null()
    )
    search.remove(transaction, job_ids, parts=(Part.TRACE,))
    remove_prompts(transaction, job_ids)


def remove_answers(transaction: Transaction, job_ids: Collection[uuid.UUID]) -> None:
    """Remove all copies of question and answer of finished jobs; :data:`NO_ANSWER` clears their own columns."""
    search.remove(transaction, job_ids, parts=(Part.QUESTION, Part.ANSWER))
    remove_prompts(transaction, job_ids)


def remove_prompts(transaction: Transaction, job_ids: Collection[uuid.UUID]) -> None:
    """Remove the prompts of all attempts of finished jobs."""
    transaction.update(Attempt, Attempt.job_id.in_(job_ids), prompt=sa.null())


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
