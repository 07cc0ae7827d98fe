"""Retention: the removal of old data. Counters, hashes and results stay.

Retention has four classes of data, each with its own period from the end of a job:

* image: the job releases its images; an image that no other job needs, and that was not uploaded without a job within
  the period, loses its bytes.
* trace: the raw output of all attempts, and the prompts.
* answer: question and answer with what else the caller wrote, such as metadata, and the prompts, which contain the
  question. (A trace that is stored longer still ends with the answer.)
* timeline: the timeline, except one entry with the state of the job. Operations and their lists of jobs have the same
  period, from the end of the operation.

A batch has metadata and ids of the caller next to the states of its lines: it is removed with its lines at the end of
the shorter of the periods of answers and timelines, from the end of the batch.

:mod:`webhooks.purge` applies the same periods to webhooks.

A column of the job per class states when its data was removed. Due jobs are found by that column, so a purge may be
interrupted: each batch is a transaction of its own, and any number of processes may purge at once.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

import sqlalchemy as sa

from core.database import Database, Transaction
from core.settings import Settings
from jobs.lifecycle import Status
from jobs.records.declarative import table
from jobs.records.images import Image
from jobs.records.jobs import Job
from jobs.records.timeline import TimelineEntry
from jobs.store import batches, contents, operation_removal, retention, timeline


@dataclass(frozen=True)
class Periods:
    """How long each class of data is stored after the end of its job; None: without limit."""

    image: timedelta | None = None
    trace: timedelta | None = None
    answer: timedelta | None = None
    timeline: timedelta | None = None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the periods of the settings."""
        return cls(
            image=_days(settings.retention_image_days),
            trace=_days(settings.retention_trace_days),
            answer=_days(settings.retention_answer_days),
            timeline=_days(settings.retention_timeline_days),
        )


NO_RETENTION = Periods()


@dataclass(frozen=True)
class Purged:
    """What one batch of each class removed: images, jobs by the data that they lost, and operations."""

    images: int = 0
    traces: int = 0
    answers: int = 0
    timelines: int = 0
    operations: int = 0
    #: Whether there may be more to do.
    more: bool = False


def batch(database: Database, periods: Periods, *, actor: str, limit: int = 50) -> Purged:
    """Remove data that is older than ``periods``, up to ``limit`` of each class, oldest first.

    Raises:
        core.database_faults.DatabaseUnavailable: the database does not answer; committed removals remain.
    """
    images = traces = answers = timelines = operations = 0
    full = False
    if periods.image is not None:
        released, images = _purge_images(database, periods.image, actor=actor, limit=limit)
        uploads, unused = _purge_uploads(database, periods.image, limit=limit)
        images += unused
        full |= limit in (released, uploads)
    if periods.trace is not None:
        traces = _purge_traces(database, periods.trace, actor=actor, limit=limit)
    if periods.answer is not None:
        answers = _purge_answers(database, periods.answer, actor=actor, limit=limit)
    if periods.timeline is not None:
        timelines = _purge_timelines(database, periods.timeline, actor=actor, limit=limit)
        operations, unfinished = operation_removal.purge(database, periods.timeline, limit=limit)
        full |= unfinished
    ending = [period for period in (periods.answer, periods.timeline) if period is not None]
    if ending:
        _, unfinished = batches.purge(database, min(ending))
        full |= unfinished
    return Purged(
        images=images,
        traces=traces,
        answers=answers,
        timelines=timelines,
        operations=operations,
        more=full or limit in (traces, answers, timelines),
    )


def _purge_images(
    database: Database, period: timedelta, *, actor: str, limit: int
) -> tuple[int, int]:
    """Release the images of old jobs; return how many jobs these were, and how many images were removed."""
    with database.transaction() as transaction:
        due = _due(transaction, period, retention.NEEDING, limit=limit)
        values = {"images_released_at": transaction.now()}
        _mark(transaction, due, values, action="images_released", actor=actor)
        return len(due), retention.remove_orphans(transaction, due)


def _purge_uploads(database: Database, period: timedelta, *, limit: int) -> tuple[int, int]:
    """Treat old uploads like other images; return how many these were, and how many were removed as unused."""
    with database.transaction() as transaction:
        rows = transaction.session.scalars(
            sa.select(Image)
            .where(Image.uploaded_at < transaction.now(-period))
            .order_by(Image.uploaded_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        old = rows.all()
        transaction.update(Image, Image.id.in_([image.id for image in old]), uploaded_at=None)
        unused = [
            image
            for image in old
            if not retention.referenced(transaction, image.id, retention.NEEDING)
        ]
        for image in sorted(unused, key=lambda image: image.image_key):
            retention.drop_image(transaction, image)
        return len(old), len(unused)


def _purge_traces(database: Database, period: timedelta, *, actor: str, limit: int) -> int:
    with database.transaction() as transaction:
        stored = sa.and_(Job.trace_removed_at.is_(None), Job.data_removed_at.is_(None))
        due = _due(transaction, period, stored, limit=limit)
        values = {"trace_removed_at": transaction.now()}
        _mark(transaction, due, values, action="trace_removed", actor=actor)
        contents.remove_traces(transaction, due)
        return len(due)


def _purge_answers(database: Database, period: timedelta, *, actor: str, limit: int) -> int:
    with database.transaction() as transaction:
        stored = sa.and_(Job.answer_removed_at.is_(None), Job.data_removed_at.is_(None))
        due = _due(transaction, period, stored, limit=limit)
        values = {**contents.CLEARED, "answer_removed_at": transaction.now()}
        _mark(transaction, due, values, action="answer_removed", actor=actor)
        contents.remove_answers(transaction, due)
        return len(due)


def _purge_timelines(database: Database, period: timedelta, *, actor: str, limit: int) -> int:
    """Replace the entries of old jobs by one with all columns, from which the row can still be rebuilt."""
    with database.transaction() as transaction:
        due = _due(transaction, period, Job.timeline_removed_at.is_(None), limit=limit)
        transaction.delete(TimelineEntry, TimelineEntry.job_id.in_(due))
        values = {name: table(Job).c[name] for name in timeline.REPORTED} | {
            "timeline_removed_at": transaction.now()
        }
        _mark(transaction, due, values, action="timeline_removed", actor=actor)
        return len(due)


def _due(
    transaction: Transaction, period: timedelta, stored: sa.ColumnElement[bool], *, limit: int
) -> dict[uuid.UUID, Status]:
    """Return and lock the oldest unlocked jobs that ended more than ``period`` ago and meet ``stored``."""
    rows = transaction.execute(
        sa.select(Job.id, Job.status)
        .where(Job.finished_at < transaction.now(-period), stored)
        .order_by(Job.finished_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return {row.id: row.status for row in rows}


def _mark(
    transaction: Transaction,
    jobs: Mapping[uuid.UUID, Status],
    values: Mapping[str, Any],
    *,
    action: str,
    actor: str,
) -> None:
    for status in set(jobs.values()):
        job_ids = [job_id for job_id in jobs if jobs[job_id] is status]
        change = timeline.Change(
            action,
            source=status,
            target=status,
            where=(table(Job).c.id.in_(job_ids),),
            values=values,
        )
        timeline.change(transaction, change, actor=actor)


def _days(days: float) -> timedelta | None:
    return timedelta(days=days) if days else None
