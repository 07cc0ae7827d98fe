"""The content of jobs: what callers and models wrote, in which columns it is, and how it is removed.

A deletion, retention and an erasure all remove content by these functions, so this is the one list of its copies:

* answer: question, answer, metadata, the texts in the options (choices, JSON Schema, system text), what a client of
  OpenAI's surface sent, the idempotency key with the fingerprint of its request, the job's own webhook, the texts for
  the search, and the prompts. Of a line of a batch, also the line
  of the input file and the result in the output file.
* trace: outputs with their events and steps, inserted texts, the texts for the search, and the prompts.

What remains are ids, hashes of images, the request id, states, times and counts. :mod:`webhooks.purge` removes the
copies in webhooks.
"""

import uuid
from collections.abc import Collection, Mapping
from typing import Any, Final

import sqlalchemy as sa

from core.database import Transaction
from jobs.phrases import Part
from jobs.records.attempts import Attempt, Generation, TraceChunk
from jobs.records.declarative import table
from jobs.records.jobs import Job
from jobs.records.timeline import OutboxEntry
from jobs.store import batch_copies, responses, search

#: The columns that are cleared with a job's question and answer. Whether there was one stays (``answer_forced``), so
#: that the end of a response does not change.
NO_ANSWER: Final[Mapping[str, Any]] = {
    "question": None,
    "answer_text": None,
    "answer_tex": None,
    "answer_rule": None,
    "answer_value": None,
    "votes": None,
    "idempotency_key": None,
    "fingerprint": None,
}
#: The same, with the column that must not be null.
CLEARED: Final[Mapping[str, Any]] = {**NO_ANSWER, "metadata": {}}

_JOB = table(Job).c


def remove_traces(transaction: Transaction, job_ids: Collection[uuid.UUID]) -> None:
    """Remove the outputs and the prompts of all attempts of finished jobs."""
    transaction.delete(TraceChunk, TraceChunk.job_id.in_(job_ids))
    transaction.update(
        Generation,
        Generation.job_id.in_(job_ids),
        output=None,
        event_index=None,
        steps=sa.null(),
        inserted=None,
    )
    search.remove(transaction, job_ids, parts=(Part.TRACE,))
    _remove_prompts(transaction, job_ids)


def remove_answers(transaction: Transaction, job_ids: Collection[uuid.UUID]) -> None:
    """Remove all copies of question and answer of finished jobs; :data:`CLEARED` clears their own columns."""
    search.remove(transaction, job_ids, parts=(Part.QUESTION, Part.ANSWER))
    _remove_prompts(transaction, job_ids)
    _remove_option_texts(transaction, job_ids)
    responses.remove_requested(transaction, job_ids)
    batch_copies.remove(transaction, job_ids)
    # The delivery process still reads it for moves that it has not seen, and then calls :func:`forget_webhooks`.
    unsent = sa.select(OutboxEntry.job_id).where(OutboxEntry.job_id.in_(job_ids))
    transaction.update(Job, Job.id.in_(job_ids), Job.id.not_in(unsent), webhook=sa.null())


def forget_webhooks(transaction: Transaction, job_ids: Collection[uuid.UUID]) -> None:
    """Remove the own webhooks of those of the jobs whose answers were removed."""
    removed = sa.or_(Job.data_removed_at.is_not(None), Job.answer_removed_at.is_not(None))
    unsent = sa.select(OutboxEntry.job_id).where(OutboxEntry.job_id.in_(job_ids))
    transaction.update(
        Job,
        Job.id.in_(job_ids),
        Job.webhook.is_not(None),
        removed,
        Job.id.not_in(unsent),
        webhook=sa.null(),
    )


def without_texts(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a job's options without the texts in them; only the type of an answer format stays."""
    stripped = {name: value for name, value in options.items() if name != "system"}
    if answer_format := options.get("answer_format"):
        stripped["answer_format"] = {"type": answer_format["type"]}
    return stripped


def _remove_prompts(transaction: Transaction, job_ids: Collection[uuid.UUID]) -> None:
    transaction.update(Attempt, Attempt.job_id.in_(job_ids), prompt=sa.null())


def _remove_option_texts(transaction: Transaction, job_ids: Collection[uuid.UUID]) -> None:
    rows = transaction.execute(sa.select(_JOB.id, _JOB.options).where(_JOB.id.in_(job_ids))).all()
    for row in rows:
        stripped = without_texts(row.options)
        if stripped != row.options:
            transaction.update(Job, Job.id == row.id, options=stripped)
