"""The events of OpenAI's surface: how a response or a batch ended. Their ``data`` has the id alone, as OpenAI's have.

A job has events of its own type whichever routes created it. One that was created as a background response
(``/v1/responses``) has an event of the response besides, for the endpoints that subscribe to it: two events of
different types with different ids. Foreground responses, lines of batches, chat completions and native jobs have none:
their clients wait for the answer, or for the one event of the batch.
"""

import uuid
from collections.abc import Collection
from typing import Any, Final

import sqlalchemy as sa

from core import ids
from core.database import Transaction
from jobs.lifecycle import Status
from jobs.records.declarative import table
from jobs.records.files import BatchEntry, BatchStatus
from jobs.records.jobs import Job, ResponseEntry
from jobs.store import settle
from webhooks import notifications
from webhooks.policy import EventType

_JOB = table(Job).c
_RESPONSE = table(ResponseEntry).c

#: The outcomes of jobs as those of responses; see :func:`_type` for what is incomplete.
_OF_STATUS: Final = {
    Status.SUCCEEDED: EventType.RESPONSE_COMPLETED,
    Status.FAILED: EventType.RESPONSE_FAILED,
    Status.CANCELLED: EventType.RESPONSE_CANCELLED,
}
_OF_BATCH: Final = {
    BatchStatus.COMPLETED: EventType.BATCH_COMPLETED,
    BatchStatus.FAILED: EventType.BATCH_FAILED,
    BatchStatus.EXPIRED: EventType.BATCH_EXPIRED,
    BatchStatus.CANCELLED: EventType.BATCH_CANCELLED,
}

_ENDED = (
    sa.select(
        _JOB.id,
        _JOB.status,
        _JOB.answer_forced,
        _JOB.finish_reason,
        _JOB.error_message,
    )
    .join(ResponseEntry, _RESPONSE.job_id == _JOB.id)
    .where(
        _JOB.id.in_(sa.bindparam("ids", expanding=True)),
        _JOB.finished_at.is_not(None),
        _RESPONSE.surface == "responses",
        _RESPONSE.background.is_(sa.true()),
    )
)


def response_types(
    transaction: Transaction, job_ids: Collection[uuid.UUID]
) -> dict[uuid.UUID, EventType]:
    """Return how those of the jobs that are responses ended, by the ids of the jobs."""
    rows = transaction.execute(_ENDED, {"ids": list(job_ids)})
    return {row.id: _type(row) for row in rows}


def _type(job: sa.Row[Any]) -> EventType:
    """Return the type of the end of a job: a used-up token budget without a whole answer is incomplete."""
    cut = job.finish_reason == "length" and job.answer_forced is None
    if (job.status is Status.SUCCEEDED and cut) or (
        job.status is Status.FAILED and job.error_message == settle.ANSWER_CUT
    ):
        return EventType.RESPONSE_INCOMPLETE
    return _OF_STATUS[job.status]


def response_data(job_id: uuid.UUID) -> dict[str, Any]:
    """Return the ``data`` of an event of a response."""
    return {"id": ids.show("resp", job_id)}


def batch_ended(transaction: Transaction, batch: BatchEntry) -> None:
    """Write the notification of the end of a batch, in the transaction that ends it."""
    notifications.of_account(
        transaction,
        account_id=batch.account_id,
        event_type=_OF_BATCH[batch.status],
        data={"id": ids.show("batch", batch.id)},
    )
