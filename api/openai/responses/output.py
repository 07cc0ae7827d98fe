"""The items of a response's output: the reasoning of each sample, and the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from api.openai.responses import response_object
from jobs.answers import model_refusals
from jobs.lifecycle import Status
from jobs.records.jobs import Job
from jobs.store.sample_texts import SampleText

Json = dict[str, Any]

_ANSWER: Final[Json] = {
    "type": "output_text",
    "text": "",
    "annotations": [],
    "logprobs": [],
}
_REFUSAL: Final[Json] = {"type": "refusal", "refusal": ""}


def of(job: Job, samples: Sequence[SampleText], *, summarized: bool) -> list[Json]:
    """Return the items as the last typed event of the response has them, or has them so far.

    Args:
        job: its row.
        samples: its samples in the order of their first events; those of later attempts are left out.
        summarized: whether the trace is a summary, too.
    """
    state = response_object.status(job)
    items = [
        reasoning(
            reasoning_id(job.id.hex, sample.attempt, sample.number),
            sample.text,
            _status(job, state, sample.attempt),
            summarized=summarized,
        )
        for sample in samples
        if sample.attempt <= job.attempt
    ]
    texts = [sample.text for sample in samples if sample.attempt == job.attempt]
    part = said(job.answer_text, texts) if state == response_object.COMPLETED else None
    if part is not None:
        items.append(message(job.id.hex, part))
    return items


def _status(job: Job, state: str, attempt: int) -> str:
    """Return the status of a sample's item."""
    # A job that waits for another attempt has lost the last one.
    lost = attempt < job.attempt or job.status is Status.QUEUED
    if not lost and state in (response_object.IN_PROGRESS, response_object.COMPLETED):
        return state
    return response_object.INCOMPLETE


def reasoning_id(digits: str, attempt: int, sample: int) -> str:
    """Return the id of the item of a sample; ``digits`` are those of the job's id."""
    return f"rs_{digits}_{attempt}_{sample}"


def message_id(digits: str) -> str:
    """Return the id of the item of the answer; ``digits`` are those of the job's id."""
    return f"msg_{digits}"


def reasoning(item_id: str, text: str, status: str, *, summarized: bool) -> Json:
    """Return the item of a sample."""
    return {
        "id": item_id,
        "type": "reasoning",
        "status": status,
        "summary": [{"type": "summary_text", "text": text}] if summarized else [],
        "content": [{"type": "reasoning_text", "text": text}],
    }


def said(answer: str | None, texts: Sequence[str]) -> Json | None:
    """Return the part of the message of a completed response, None without a message.

    Args:
        answer: of the job.
        texts: of the samples of the last attempt: without an answer, they may all refuse to give one.
    """
    if answer is not None:
        return _ANSWER | {"text": answer}
    refusal = model_refusals.of(texts)
    return None if refusal is None else _REFUSAL | {"refusal": refusal}


def empty(part: Json) -> Json:
    """Return a part of a message as it begins."""
    return _REFUSAL if part["type"] == _REFUSAL["type"] else _ANSWER


def message(digits: str, part: Json | None) -> Json:
    """Return the item of the message; without its part it has just begun."""
    return {
        "id": message_id(digits),
        "type": "message",
        "role": "assistant",
        "status": response_object.IN_PROGRESS if part is None else response_object.COMPLETED,
        "content": [] if part is None else [part],
    }
