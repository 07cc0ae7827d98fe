"""The lines of output files and error files, and of the pages of results."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import structlog

from api.openai.batches.endpoints import BatchEndpoint, LineAnswer
from core import errors, ids
from core.database import Database
from jobs.records.files import BatchEntry, BatchLine, LineState
from jobs.store import batch_copies, history

_log = structlog.get_logger(__name__)

_SERVER_ERROR: Final = 500
#: The number in the id of a line, which the column of the numbers holds.
_NUMBER: Final = re.compile(r"[0-7][0-9a-f]{7}", re.ASCII)


def line_id(batch: BatchEntry, number: int) -> str:
    """Return the id of a line."""
    return f"batch_req_{batch.id.hex}{number:08x}"


def number_of(batch: BatchEntry, text: str) -> int | None:
    """Return the number in the id of a line of this batch; None: it is not one."""
    start = f"batch_req_{batch.id.hex}"
    digits = text.removeprefix(start)
    if digits == text or not _NUMBER.fullmatch(digits):
        return None
    return int(digits, 16)


def result(
    database: Database, batch: BatchEntry, line: BatchLine, endpoint: BatchEndpoint
) -> dict[str, Any]:
    """Return what a line that has ended came to, as the files of the batch have it."""
    shown: dict[str, Any] = {
        "id": line_id(batch, line.number),
        "custom_id": line.custom_id,
        "response": None,
        "error": None,
    }
    if line.error_code is not None and line.error_status is None:
        return shown | {"error": {"code": line.error_code, "message": line.error_message}}
    answer = _refusal(batch, line) or _answer(database, line, endpoint)
    if answer is None:
        return shown | {"error": dict(batch_copies.DELETED)}
    return shown | {
        "response": {
            "status_code": answer.status,
            "request_id": answer.request_id,
            "body": dict(answer.body),
        }
    }


def is_deleted(shown: Mapping[str, Any]) -> bool:
    """Return whether the answer of this line was deleted."""
    return bool(shown["error"] == batch_copies.DELETED)


def _refusal(batch: BatchEntry, line: BatchLine) -> LineAnswer | None:
    if line.error_status is None:
        return None
    kind = "server_error" if line.error_status >= _SERVER_ERROR else "invalid_request_error"
    return LineAnswer(
        line.error_status,
        error_body(line.error_code, line.error_message, kind, param=line.error_param),
        batch.request_id,
    )


def _answer(database: Database, line: BatchLine, endpoint: BatchEndpoint) -> LineAnswer | None:
    """Return the answer to a line, None if it was deleted."""
    job = None if line.job_id is None else history.job(database, line.job_id, account_id=None)
    if job is None:
        message = "The job of this request is not stored any more."
        return LineAnswer(_SERVER_ERROR, error_body("server_error", message, "server_error"), "")
    if line.state is LineState.COMPLETED and job.answer_removed:
        return None
    try:
        return endpoint.answer(job)
    except errors.Unavailable:
        raise
    except errors.RequestError as error:
        body = error_body(error.specific_code, error.message, "invalid_request_error")
        return LineAnswer(error.status, body, job.request_id)
    except Exception:  # noqa: BLE001 - the boundary of one line
        # One line must not stop the batch, nor the process that would meet it again and again.
        _log.exception("line_not_shown", job=ids.show("job", job.id))
        message = "The service failed to show the answer to this request."
        body = error_body("server_error", message, "server_error")
        return LineAnswer(_SERVER_ERROR, body, job.request_id)


def error_body(
    code: str | None, message: str | None, kind: str, *, param: str | None = None
) -> dict[str, Any]:
    """Return the body of an error as OpenAI's clients read it."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def added(
    total: Mapping[str, Any] | None, usage: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """Return the sum of two usages, either of which may be missing."""
    if usage is None:
        return None if total is None else dict(total)
    total = total or {}
    summed: dict[str, Any] = {
        name: (total.get(name) or 0) + usage.get(name, 0)
        for name in ("input_tokens", "output_tokens", "total_tokens")
    }
    for details, member in (
        ("input_tokens_details", "cached_tokens"),
        ("output_tokens_details", "reasoning_tokens"),
    ):
        counts: Counter[str] = Counter()
        for each in (total, usage):
            counts[member] += (each.get(details) or {}).get(member) or 0
        summed[details] = {member: counts[member]}
    return summed
