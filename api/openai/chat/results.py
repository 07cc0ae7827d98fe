"""What a finished job says in a chat: pure functions of its row and its trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from api.openai.chat.objects import (
    ChatCompletion,
    ChatMessage,
    Choice,
    CompletionTokensDetails,
    CompletionUsage,
    FinishReason,
    PromptTokensDetails,
)
from core import errors
from jobs.answers import json_schema, model_refusals
from jobs.lifecycle import Status
from jobs.records.jobs import Job
from jobs.store.traces import GenerationTrace

_UNMET = "answer_format_unmet"
_LENGTH = "length"


class JobFailed(errors.Unavailable):
    """A job that has ended without a result, for a response that has begun.

    Args:
        message: what the caller reads.
        code: of the job's error.
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.specific_code = code


def completion(
    job: Job, generations: Sequence[GenerationTrace], *, stop: Sequence[str] = ()
) -> ChatCompletion:
    """Return the chat completion of a finished job.

    Args:
        job: its row.
        generations: of its last attempt, in order.
        stop: texts before which the answer ends.

    Raises:
        JobFailed: it has no result.
    """
    reason = finish_reason(job, generations)
    return ChatCompletion(
        id=completion_id(job),
        created=created(job),
        model=job.model,
        choices=[
            Choice(
                finish_reason=reason,
                message=ChatMessage(
                    content=content(job, stop),
                    refusal=refusal(job, generations),
                    reasoning_content=reasoning(job, generations),
                ),
            )
        ],
        usage=usage(job, generations),
    )


def completion_id(job: Job) -> str:
    """Return the id of the chat completion of ``job``."""
    return f"chatcmpl-{job.id.hex}"


def created(job: Job) -> int:
    """Return when the job was created, in Unix seconds."""
    return int(job.created_at.timestamp())


def content(job: Job, stop: Sequence[str] = ()) -> str | None:
    """Return the answer up to the first text of ``stop``; None without an answer."""
    text = job.answer_text
    if text is None:
        return None
    ends = [text.find(sequence) for sequence in stop if sequence in text]
    return text[: min(ends)] if ends else text


def refusal(job: Job, generations: Sequence[GenerationTrace]) -> str | None:
    """Return what the model says instead of an answer if it refuses to give one, None otherwise."""
    if job.status is not Status.SUCCEEDED or job.answer_text is not None:
        return None
    roots = _roots(generations)
    samples = dict.fromkeys(roots.values())
    return model_refusals.of(
        [
            "".join(one.text for one in generations if roots[one.number] == sample)
            for sample in samples
        ]
    )


def finish_reason(job: Job, generations: Sequence[GenerationTrace]) -> FinishReason:
    """Return ``length`` if the job has no answer because it ran out of tokens, else ``stop``.

    Raises:
        JobFailed: the job has no result.
    """
    if job.status is Status.SUCCEEDED:
        return "length" if job.answer_text is None and job.finish_reason == _LENGTH else "stop"
    last = generations[-1].finish_reason if generations else None
    if job.error_code == _UNMET and last == _LENGTH:
        return "length"
    if job.status is Status.CANCELLED:
        raise JobFailed("The job was cancelled.", code="cancelled")
    raise JobFailed(job.error_message or "The job failed.", code=job.error_code or "server_error")


def reasoning(job: Job, generations: Sequence[GenerationTrace]) -> str:
    """Return the trace of the sample with the answer: the texts of its generations, in order."""
    roots = _roots(generations)
    chosen = roots.get(_voted(job.votes), 0)
    return "".join(one.text for one in generations if roots[one.number] == chosen)


def usage(job: Job, generations: Sequence[GenerationTrace]) -> CompletionUsage:
    """Return the tokens of a job, with those of all samples.

    The trace, which is the reasoning, has the tokens of the answer too, except for an answer in JSON.
    """
    prompt, output = job.input_tokens or 0, job.output_tokens or 0
    in_json = json_schema.is_json(job.options.get("answer_format"))
    ends = {root: number for number, root in sorted(_roots(generations).items())}
    answered = sum(
        one.output_tokens
        for one in generations
        if in_json and one.continues is not None and one.number in ends.values()
    )
    return CompletionUsage(
        prompt_tokens=prompt,
        completion_tokens=output,
        total_tokens=prompt + output,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=job.cached_tokens or 0),
        completion_tokens_details=CompletionTokensDetails(
            reasoning_tokens=max(0, output - answered)
        ),
    )


def _voted(votes: dict[str, Any] | None) -> int:
    """Return the number of the generation whose answer won the vote; 0 without a vote."""
    classes = (votes or {}).get("classes")
    if not classes:
        return 0
    number: int = (votes or {}).get("look", classes[0]["generations"][0])
    return number


def _roots(generations: Sequence[GenerationTrace]) -> dict[int, int]:
    """Return, for the number of each generation, that of the one with which its sample began."""
    roots: dict[int, int] = {}
    for one in generations:
        roots[one.number] = (
            one.number if one.continues is None else roots.get(one.continues, one.number)
        )
    return roots
