"""The messages that receivers of webhooks get: documented here, written by :mod:`webhooks.notifications`."""

from typing import Any, Literal

from pydantic import Field

from api.schemas.fields import Time
from api.schemas.parts import JobError, ResponseModel
from jobs.answers.values import Value


class EventAnswer(ResponseModel):
    """The final answer of a job, and the rule that extracted it from the trace."""

    text: str
    tex: str | None = Field(
        description="The original of the text, where it differs; null where it does not."
    )
    value: Value = Field(
        description="The text as a value of the job's `answer_format`; null without a format, if the text has no such "
        "value, and if `omitted` names `answer.value`."
    )
    rule: str
    confidence: float | None = Field(
        description="As in the job: the share of the votes, or of the verifications, that agree with the answer."
    )


class EventUsage(ResponseModel):
    """The usage of the job."""

    input_tokens: int | None
    cached_tokens: int | None
    image_tokens: int | None
    output_tokens: int
    engine_seconds: float | None


class EventUrls(ResponseModel):
    """Paths of the service."""

    self: str
    trace: str


class JobNotificationData(ResponseModel):
    """A job at the time of the event. A message is smaller than 20 kB."""

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
    omitted: list[Literal["answer.value", "answer.tex", "answer", "metadata"]] = Field(
        description="What is left out, because the message would be too long or the data has been removed."
    )
    urls: EventUrls


class _Event(ResponseModel):
    id: str = Field(description="The `webhook-id`: the same for all attempts.")
    object: Literal["event"] = "event"
    created_at: int = Field(description="Unix seconds.")
    timestamp: Time


class JobNotification(_Event):
    """An event of a job."""

    type: Literal["job.started", "job.succeeded", "job.failed", "job.cancelled"]
    data: JobNotificationData


class EndpointNotificationData(ResponseModel):
    """The disabled endpoint."""

    id: str
    object: Literal["webhook_endpoint"]
    name: str
    origin: str
    reason: str
    omitted: list[Any]


class EndpointNotification(_Event):
    """A webhook endpoint was disabled; the account's others get this event."""

    type: Literal["endpoint.disabled"]
    data: EndpointNotificationData


class ThinEventData(ResponseModel):
    """The id alone: read the object for the rest."""

    id: str


class ResponseNotification(_Event):
    """A response has ended, as an event of OpenAI."""

    type: Literal[
        "response.completed", "response.failed", "response.cancelled", "response.incomplete"
    ]
    data: ThinEventData


class BatchNotification(_Event):
    """A batch has ended, as an event of OpenAI."""

    type: Literal["batch.completed", "batch.failed", "batch.expired", "batch.cancelled"]
    data: ThinEventData
