"""What receivers of webhooks get, as :mod:`webhooks.notifications` writes it. Documented here, built there."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from api.schemas.fields import Time
from api.schemas.parts import JobError, ResponseModel
from jobs.answers.values import Value


class EventAnswer(ResponseModel):
    """The final answer of a job, and the rule by which it was found in the trace."""

    text: str
    value: Value = Field(
        description="The text as the job's `answer_format` asks for it; null without one, when it says no such value, "
        "and when `omitted` names `answer.value`."
    )
    rule: str
    confidence: float | None = Field(
        description="As the job's own: the share of the votes, or of the looks, that stand for the answer."
    )


class EventUsage(ResponseModel):
    """What the job cost."""

    input_tokens: int | None
    cached_tokens: int | None
    image_tokens: int | None
    output_tokens: int
    engine_seconds: float | None


class EventUrls(ResponseModel):
    """Where there is more: paths at the service."""

    self: str
    trace: str


class JobEventData(ResponseModel):
    """A job as it was at that moment; a message stays below 20 kB."""

    id: str
    object: Literal["job"]
    status: Literal["running", "succeeded", "failed", "cancelled"]
    model: str
    attempt: int
    answer: EventAnswer | None
    finish_reason: str | None
    error: JobError | None
    usage: EventUsage | None
    metadata: dict[str, str] | None
    rerun_of: str | None
    created_at: Time
    started_at: Time | None
    finished_at: Time | None
    omitted: list[Literal["answer.value", "answer", "metadata"]] = Field(
        description="What was left out because the message would be too long, or the data is gone."
    )
    urls: EventUrls


class _Event(ResponseModel):
    id: str = Field(description="The `webhook-id`: the same at every try.")
    object: Literal["event"] = "event"
    created_at: int = Field(description="Unix seconds.")
    timestamp: Time


class JobEvent(_Event):
    """Something happened to a job."""

    type: Literal["job.started", "job.succeeded", "job.failed", "job.cancelled"]
    data: JobEventData


class EndpointEventData(ResponseModel):
    """The endpoint that is told of no longer."""

    id: str
    object: Literal["webhook_endpoint"]
    name: str
    origin: str
    reason: str
    omitted: list[Any]


class EndpointEvent(_Event):
    """A webhook endpoint was disabled; the account's others are told."""

    type: Literal["endpoint.disabled"]
    data: EndpointEventData
