"""Batches, as OpenAI's clients know them."""

from __future__ import annotations

import re
import uuid
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field

from api.schemas import cursors, fields
from api.schemas.files import ExpiresAfter, UnixTime
from api.schemas.parameters import ClientQuery, KeyHeaders
from api.schemas.parts import Page, ResponseModel
from api.schemas.requests import RequestModel
from core import ids
from jobs import records
from jobs.records.files import BatchStatus

_WINDOW = re.compile(r"([1-9][0-9]{0,3})(m|h|d)")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
LONGEST_WINDOW = timedelta(days=30)


def window_of(text: str) -> timedelta | None:
    """Return the length of a window such as ``24h``; None: it is not valid."""
    match = _WINDOW.fullmatch(text)
    window = None if match is None else int(match[1]) * _UNITS[match[2]]
    return None if window is None or window > LONGEST_WINDOW else window


def _window(text: str) -> str:
    if window_of(text) is None:
        raise ValueError("This must be a time such as `24h`, `90m` or `7d`, at most 30 days.")
    return text


class BatchRequest(RequestModel):
    """The requests in a file, and the route that they are for."""

    input_file_id: str = Field(description="A file of purpose `batch`.")
    endpoint: str = Field(
        description="The route of all requests: `/v1/responses` or `/v1/chat/completions`."
    )
    completion_window: Annotated[str, AfterValidator(_window)] = Field(
        description="The time until the batch expires, such as `24h`, `90m` or `7d`; at most 30 days."
    )
    metadata: fields.Metadata | None = None
    output_expires_after: ExpiresAfter | None = Field(
        default=None, description="When the files of the batch expire; the default is 30 days."
    )


class BatchHeaders(KeyHeaders):
    """The headers of the request for a batch."""


class BatchesQuery(ClientQuery):
    """A page of batches."""

    after: Annotated[uuid.UUID, cursors.of("batch")] | None = Field(
        default=None, description=cursors.DESCRIPTION
    )
    limit: int = Field(default=20, ge=1, le=100, description="Maximum number on a page.")


class BatchResultsQuery(ClientQuery):
    """A page of the results of a batch."""

    status: Literal["completed", "failed"] | None = Field(
        default=None, description="Only lines of the output file, or only those of the error file."
    )
    after: Annotated[str, cursors.like(r"batch_req_[0-9a-f]{32}[0-7][0-9a-f]{7}")] | None = Field(
        default=None, description=cursors.DESCRIPTION
    )
    limit: int = Field(default=20, ge=1, le=100, description="Maximum number on a page.")


class BatchFault(ResponseModel):
    """A fault of the input file."""

    code: str
    line: int | None = Field(description="From 1 on; null for a fault of the whole file.")
    message: str
    param: str | None


class BatchFaults(ResponseModel):
    """The first 1,000 faults of the input file, by line."""

    object: Literal["list"] = "list"
    data: list[BatchFault]
    total: int = Field(description="The number of all faults.")


class BatchCounts(ResponseModel):
    """The lines of a batch; `completed` and `failed` are those in the output file and in the error file."""

    total: int
    completed: int
    failed: int


class CachedTokens(ResponseModel):
    """Input tokens from the engine's cache."""

    cached_tokens: int


class ReasoningTokens(ResponseModel):
    """Output tokens of the reasoning."""

    reasoning_tokens: int


class BatchUsage(ResponseModel):
    """The sum of the usage of all lines; it grows while the files are written."""

    input_tokens: int
    input_tokens_details: CachedTokens
    output_tokens: int
    output_tokens_details: ReasoningTokens
    total_tokens: int


class Batch(ResponseModel):
    """The requests in a file, each of which becomes a job."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None
    errors: BatchFaults | None
    input_file_id: str
    completion_window: str
    status: Literal[
        "validating",
        "in_progress",
        "finalizing",
        "completed",
        "failed",
        "expired",
        "cancelling",
        "cancelled",
    ]
    output_file_id: str | None = Field(description="Null until the end, and without such lines.")
    error_file_id: str | None = Field(description="Null until the end, and without such lines.")
    created_at: UnixTime
    in_progress_at: UnixTime | None
    expires_at: UnixTime
    finalizing_at: UnixTime | None
    completed_at: UnixTime | None
    failed_at: UnixTime | None
    expired_at: UnixTime | None
    cancelling_at: UnixTime | None
    cancelled_at: UnixTime | None
    request_counts: BatchCounts
    usage: BatchUsage | None
    metadata: dict[str, str] | None
    retry_of: str | None = Field(description="The batch whose failed lines this one repeats.")
    waiting_for: str | None = Field(
        description="Why no more lines are submitted now, such as `queue_full`; the batch continues on its own."
    )

    @classmethod
    def of(cls, batch: records.files.BatchEntry) -> Self:
        """Return the response for a batch."""
        ended = {
            f"{status.value}_at": batch.finished_at if batch.status is status else None
            for status in BatchStatus
            if status.terminal
        }
        over = batch.status.terminal
        return cls.from_record(
            batch,
            id=ids.show("batch", batch.id),
            status=batch.status.value,
            errors=_faults(batch),
            input_file_id=ids.show("file", batch.input_file_id),
            output_file_id=_file(batch.output_file_id) if over else None,
            error_file_id=_file(batch.error_file_id) if over else None,
            request_counts=BatchCounts(
                total=batch.total, completed=batch.completed, failed=batch.failed
            ),
            usage=None if batch.usage is None else BatchUsage.model_validate(batch.usage),
            metadata=batch.metadata_,
            retry_of=None if batch.retry_of is None else ids.show("batch", batch.retry_of),
            **ended,
        )


class BatchList(Page[Batch, str]):
    """A page of batches, newest first."""


class BatchLineResponse(ResponseModel):
    """What the same request alone would have got."""

    status_code: int
    request_id: str
    body: dict[str, Any]


class BatchLineError(ResponseModel):
    """Why a request has no response."""

    code: str
    message: str | None


class BatchResult(ResponseModel):
    """A line of the output file or of the error file."""

    id: str
    custom_id: str
    response: BatchLineResponse | None
    error: BatchLineError | None


class BatchResultList(Page[BatchResult, str]):
    """A page of the lines that have ended so far, in the order of the input file."""


def _faults(batch: records.files.BatchEntry) -> BatchFaults | None:
    if not batch.faults:
        return None
    return BatchFaults(
        data=[BatchFault.model_validate(fault) for fault in batch.faults],
        total=batch.fault_count,
    )


def _file(file_id: Any) -> str | None:  # noqa: ANN401 - a UUID or None
    return None if file_id is None else ids.show("file", file_id)
