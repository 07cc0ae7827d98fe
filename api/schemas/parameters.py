"""Query parameters and headers of requests."""

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.schemas import fields
from core import profiles
from jobs.store.consumption import MOST_DAYS

_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*([0-9]{1,6})(?=$|[,;\s])", re.ASCII | re.IGNORECASE)
#: Common proxies give up a response after 60 seconds.
MAX_WAIT_SECONDS = 55


class ParameterModel(BaseModel):
    """The base of query parameters and headers, whose values are strings."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class ClientQuery(ParameterModel):
    """The base of the query parameters of routes that OpenAI's clients call."""

    api_version: Annotated[str, Field(max_length=255)] | None = Field(
        default=None,
        alias="api-version",
        description="Has no effect. Clients that are set up for Azure send it with every request.",
    )


class UploadQuery(ParameterModel):
    """Options of an upload."""

    detail: profiles.Detail = Field(
        default="standard", description="Detail tier; it cannot change later."
    )


class TraceQuery(ParameterModel):
    """A part of a trace."""

    attempt: int | None = Field(default=None, ge=1, description="Only the samples of this attempt.")


class TimelineQuery(ParameterModel):
    """A page of the timeline."""

    after: int = Field(
        default=0, ge=0, le=2**63 - 1, description="The `last_id` of the previous page."
    )
    limit: int = Field(
        default=100, ge=1, le=1000, description="Maximum number of entries on a page."
    )


class QueueQuery(ParameterModel):
    """The account of a queue."""

    account: Annotated[fields.Text, Field(max_length=255)] | None = Field(
        default=None,
        description="The name or id of an account, for operators; the default is all accounts.",
    )


class UsageQuery(ParameterModel):
    """The account of the usage, and the report about its jobs."""

    account: Annotated[fields.Text, Field(max_length=255)] | None = Field(
        default=None,
        description="The name or id of an account, for operators; the default is that of the key. The report of an "
        "operator is about all accounts by default.",
    )
    since: fields.Moment | None = Field(
        default=None,
        description="The start of a report about submitted jobs, RFC 3339 or Unix seconds; the default is no report.",
    )
    until: fields.Moment | None = Field(
        default=None, description=f"Its end, at most {MOST_DAYS} days later; the default is now."
    )
    by: list[Literal["day", "model", "account"]] = Field(
        default=["day"],
        max_length=8,
        description="What makes a row of the report; give it several times for several of them.",
    )


class WaitHeaders(ParameterModel):
    """How long the response may be delayed."""

    prefer: str | None = Field(
        default=None,
        alias="Prefer",
        description=f"`wait=n` delays the response until the job has finished, at most n seconds (up to "
        f"{MAX_WAIT_SECONDS}; RFC 7240).",
        json_schema_extra={"example": "wait=30"},
    )

    @property
    def wait(self) -> int:
        """Seconds to wait, or 0. An unknown preference is ignored (RFC 7240)."""
        match = _WAIT.search(self.prefer or "")
        return min(int(match[1]), MAX_WAIT_SECONDS) if match else 0


class KeyHeaders(ParameterModel):
    """The key that makes a request safe to repeat."""

    idempotency_key: fields.IdempotencyKey | None = Field(
        default=None,
        alias="Idempotency-Key",
        description="A repeated request with the same key creates nothing: the response is the job that the first one "
        "created, with `Idempotent-Replayed: true`. 1 to 255 printable ASCII characters, quoted or not.",
        json_schema_extra={"example": "8e03978e-40d5-43e8-bc93-6894a57f9324"},
    )


class RerunHeaders(KeyHeaders, WaitHeaders):
    """The headers of a rerun."""


class GroupHeaders(KeyHeaders):
    """The headers of the submission of a group."""

    cancel_after: fields.Duration | None = Field(
        default=None,
        alias="Cancel-After",
        description="A deadline such as `30s`, `10m`, `2h`; the earlier of this and `deadline_seconds` applies.",
        json_schema_extra={"example": "10m"},
    )


class SubmitHeaders(GroupHeaders, WaitHeaders):
    """The headers of the submission of a job."""
