"""Reruns: the submission of a new job with the input of another one."""

import uuid
from collections.abc import Sequence

from core import errors
from jobs.lifecycle import Priority
from jobs.records.jobs import Job
from jobs.store.images import ImageView
from jobs.store.submission import Submission


class RerunRefused(errors.Conflict):
    """A job cannot run again; ``reason`` is one word for it."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def prepare(
    job: Job,
    images: Sequence[ImageView],
    *,
    model: str,
    actor: str,
    highest: Priority,
    request_id: str,
    key: str | None = None,
    fingerprint: str | None = None,
) -> Submission:
    """Return the submission that runs ``job`` again, for the account of that job.

    Args:
        job: the job.
        images: its images.
        model: the model that is served now.
        actor: who requests it, as the timeline names it.
        highest: the highest priority that the actor may use.
        request_id: the id of the request.
        key: its Idempotency-Key.
        fingerprint: that of the request, with a key.

    Raises:
        RerunRefused: the input was removed, or the model of the job is not served now.
    """
    if job.question is None or any(image.image.removed_at for image in images):
        raise RerunRefused("The input of this job was removed.", reason="input_removed")
    if job.model != model:
        raise RerunRefused("The model of this job is not served now.", reason="model_not_served")
    sent: list[tuple[uuid.UUID, int]] = [(image.image.id, image.tokens) for image in images]
    return Submission(
        account_id=job.account_id,
        actor=actor,
        model=job.model,
        question=job.question,
        images=sent,
        options=job.options,
        metadata=job.metadata_,
        priority=highest if job.priority.exceeds(highest) else job.priority,
        deadline=job.deadline_at - job.created_at,
        max_attempts=job.max_attempts,
        request_id=request_id,
        idempotency_key=key,
        fingerprint=fingerprint if key is not None else None,
        rerun_of=job.id,
        webhook=job.webhook,
    )
