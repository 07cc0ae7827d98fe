"""A job as OpenAI's Response object."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from api.openai import options
from core import ids
from jobs.lifecycle import Status
from jobs.records.jobs import Job, ResponseEntry
from jobs.store import settle

Json = dict[str, Any]

QUEUED, IN_PROGRESS, COMPLETED = "queued", "in_progress", "completed"
FAILED, INCOMPLETE, CANCELLED = "failed", "incomplete", "cancelled"
#: The code of an error that clients need not tell from others.
SERVER_ERROR = "server_error"
#: The statuses that never change.
ENDED: Final = frozenset({COMPLETED, FAILED, INCOMPLETE, CANCELLED})
#: The codes of errors that OpenAI's clients know, and one that is ours.
_CODES: Final = frozenset(
    {
        SERVER_ERROR,
        "rate_limit_exceeded",
        "invalid_prompt",
        "invalid_image",
        "invalid_image_format",
        "invalid_base64_image",
        "invalid_image_url",
        "image_too_large",
        "image_too_small",
        "image_parse_error",
        "image_content_policy_violation",
        "invalid_image_mode",
        "image_file_too_large",
        "unsupported_image_media_type",
        "empty_image_file",
        "failed_to_download_image",
        "image_file_not_found",
        "deadline_exceeded",
    }
)


def status(job: Job) -> str:
    """Return the status of a job as a response: it never goes back from ``in_progress`` to ``queued``.

    A used-up token budget is ``incomplete`` if there is no answer.
    """
    match job.status:
        case Status.QUEUED:
            return QUEUED if job.started_at is None else IN_PROGRESS
        case Status.RUNNING:
            return IN_PROGRESS
        case Status.CANCELLED:
            return CANCELLED
        case Status.FAILED:
            return INCOMPLETE if job.error_message == settle.ANSWER_CUT else FAILED
        case _:
            return INCOMPLETE if not job.answered and job.finish_reason == "length" else COMPLETED


def requested(entry: ResponseEntry | None) -> Mapping[str, Any]:
    """Return what the client sent, as far as it is stored."""
    return (entry.requested if entry is not None else None) or {}


def bare(job_id: uuid.UUID, *, model: str, created: int) -> Json:
    """Return the response of a request of which nothing is known, before its job runs: it has all members.

    Args:
        job_id: its job.
        model: the served one.
        created: Unix time in seconds.
    """
    return {
        "id": ids.show("resp", job_id),
        "object": "response",
        "created_at": created,
        "completed_at": None,
        "status": QUEUED,
        "background": False,
        "model": model,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "previous_response_id": None,
        "parallel_tool_calls": False,
        "tool_choice": "none",
        "tools": [],
        "temperature": None,
        "top_p": None,
        "truncation": "disabled",
        "service_tier": "default",
        "store": True,
        "reasoning": {"effort": None, "summary": None},
        "text": {"format": {"type": "text"}},
        "user": None,
        "output": [],
        "usage": None,
    }


def queued(job: Job, entry: ResponseEntry | None) -> Json:
    """Return the response as it was when it was created: the same at any time."""
    sent = requested(entry)
    reasoning = sent.get("reasoning") or {}
    bare_one = bare(job.id, model=job.model, created=int(job.created_at.timestamp()))
    return bare_one | {
        "background": True if entry is None else entry.background,
        "instructions": sent.get("instructions"),
        "max_output_tokens": sent.get("max_output_tokens"),
        "metadata": dict(job.metadata_),
        "previous_response_id": sent.get("previous_response_id"),
        "temperature": job.options.get("temperature"),
        "top_p": options.shown_top_p(job.options.get("top_p")),
        "truncation": sent.get("truncation", "disabled"),
        "service_tier": sent.get("service_tier", "default"),
        "store": sent.get("store", True),
        "reasoning": {
            "effort": reasoning.get("effort"),
            "summary": reasoning.get("summary") or reasoning.get("generate_summary"),
        },
        "text": {"format": _format(sent, job)},
        "user": sent.get("user"),
    }


def current(
    job: Job, entry: ResponseEntry | None, output: Sequence[Json], *, answer_tokens: int = 0
) -> Json:
    """Return the response as it is now, with the items of its output.

    Args:
        job: the job.
        entry: what the client sent.
        output: the items.
        answer_tokens: the tokens that are of the answer alone.
    """
    state = status(job)
    shown = queued(job, entry) | {"status": state, "output": list(output)}
    if state not in ENDED:
        return shown
    return shown | {
        "completed_at": _seconds(job.finished_at) if state == COMPLETED else None,
        "error": _error(job) if state == FAILED else None,
        "incomplete_details": {"reason": "max_output_tokens"} if state == INCOMPLETE else None,
        "usage": usage(job, answer_tokens),
    }


def usage(job: Job, answer_tokens: int) -> Json | None:
    """Return the tokens of a finished job, None if no engine accepted it.

    The trace, which is the reasoning, has the tokens of the answer too, except for an answer in JSON.
    """
    if job.output_tokens is None and job.input_tokens is None:
        return None
    received, generated = job.input_tokens or 0, job.output_tokens or 0
    return {
        "input_tokens": received,
        "input_tokens_details": {
            "cached_tokens": job.cached_tokens or 0,
            "cache_write_tokens": 0,
        },
        "output_tokens": generated,
        "output_tokens_details": {"reasoning_tokens": max(0, generated - answer_tokens)},
        "total_tokens": received + generated,
    }


def fault(code: str, message: str, *, param: str | None = None, other: str = SERVER_ERROR) -> Json:
    """Return the error of a failed response.

    Args:
        code: of the native API. The response shows it as the ``type``.
        message: for the caller.
        param: what it is about.
        other: the code for clients, unless they know ``code``.
    """
    known = code if code in _CODES else other
    return {"code": known, "message": message, "type": code, "param": param}


def wants_summary(entry: ResponseEntry | None) -> bool:
    """Whether the client asked for summaries of the reasoning."""
    reasoning = requested(entry).get("reasoning") or {}
    return bool(reasoning.get("summary") or reasoning.get("generate_summary"))


def _format(sent: Mapping[str, Any], job: Job) -> Json:
    """Return the format of the answer as the client sent it, or in OpenAI's terms if it used another surface."""
    if shown := (sent.get("text") or {}).get("format"):
        return dict(shown)
    answer_format = job.options.get("answer_format") or {}
    match answer_format.get("type"):
        case "json_object":
            return {"type": "json_object"}
        case "json_schema":
            # Without a schema once the texts of the options are removed.
            schema = answer_format.get("schema", {})
            return {"type": "json_schema", "name": "answer", "schema": schema}
        case _:
            return {"type": "text"}


def _error(job: Job) -> Json:
    code = job.error_code or SERVER_ERROR
    return fault(code, job.error_message or "")


def _seconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())
