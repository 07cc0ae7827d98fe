"""The parts that several answers have."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field


class ResponseModel(BaseModel):
    """The base of all answers. A fault in one must not quote what it holds."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class JobError(ResponseModel):
    """Why a job or an attempt failed."""

    code: str
    message: str
    retryable: bool | None = Field(default=None, description="Whether a rerun may succeed.")


class Usage(ResponseModel):
    """Tokens. `input_tokens` includes the cached and the image tokens."""

    input_tokens: int
    cached_tokens: int | None
    image_tokens: int | None
    output_tokens: int


def fault(
    code: str | None, message: str | None, *, retryable: bool | None = None
) -> JobError | None:
    """Return an error, or None when there was none."""
    return None if code is None else JobError(code=code, message=message or "", retryable=retryable)


def seconds(start: datetime | None, end: datetime | None) -> float | None:
    """Return the time between two moments in seconds, if both are known."""
    return None if start is None or end is None else round((end - start).total_seconds(), 3)


def rate(tokens: int | None, start: datetime | None, end: datetime | None) -> float | None:
    """Return tokens per second; the first token began the time, so it is not counted."""
    elapsed = seconds(start, end)
    return round((tokens - 1) / elapsed, 1) if tokens and elapsed else None
