"""Webhook endpoints and secrets in OpenAI's shape, with fields of our own.

Source of the shape: ``openai/types/webhooks`` of the official client. Its times are Unix seconds.
"""

import uuid
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field

from api.schemas import cursors, fields
from api.schemas.parameters import ClientQuery
from api.schemas.parts import Page, ResponseModel
from api.schemas.requests import MAX_EVENTS, RequestModel
from core import ids
from webhooks import tables
from webhooks.policy import EventType

EventName = Literal[
    "job.started",
    "job.succeeded",
    "job.failed",
    "job.cancelled",
    "endpoint.disabled",
    "response.completed",
    "response.failed",
    "response.cancelled",
    "response.incomplete",
    "batch.completed",
    "batch.failed",
    "batch.expired",
    "batch.cancelled",
]


def _each_once(names: list[str]) -> list[str]:
    return list(dict.fromkeys(names))


_Name = Annotated[fields.Question, Field(max_length=255)]
_Types = Annotated[
    list[EventName], Field(min_length=1, max_length=MAX_EVENTS), AfterValidator(_each_once)
]


class EndpointCreate(RequestModel):
    """A webhook endpoint to register."""

    name: _Name
    url: fields.Url = Field(examples=["https://example.com/hooks/longlook"])
    event_types: _Types = Field(
        description="The types of events that it gets: see `/v1/webhook_event_types`."
    )


class EndpointUpdate(RequestModel):
    """The changes of a webhook endpoint."""

    name: _Name | None = None
    url: fields.Url | None = None
    event_types: _Types | None = Field(default=None, description="The complete new set.")


class SecretRotate(RequestModel):
    """How to change a secret."""

    keep_old_secret_active_for_24_hours: bool = Field(
        default=False, description="Also sign with the old one for a day. By default it ends now."
    )


class DefaultRotate(RequestModel):
    """How to change the account's default secret."""

    keep_old_secret_active_for_24_hours: bool = Field(
        default=True, description="Also sign with the old one for a day. If false, it ends now."
    )


class EndpointTest(RequestModel):
    """The type of a test event."""

    event_type: EventName


class EndpointRecover(RequestModel):
    """The start of a recovery."""

    since: fields.Moment = Field(description="RFC 3339, or Unix seconds as a string.")


class EndpointsQuery(ClientQuery):
    """The page of webhook endpoints."""

    after: Annotated[uuid.UUID, cursors.of("we")] | None = Field(
        default=None, description=cursors.DESCRIPTION
    )
    limit: int = Field(default=20, ge=1, le=100, description="Endpoints per page.")
    order: Literal["desc", "asc"] = Field(default="desc", description=fields.ORDER)


class Endpoint(ResponseModel):
    """A webhook endpoint. Only the responses of create and rotate have `signing_secret`."""

    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    created_at: int
    updated_at: int = Field(description="When its configuration or its secret last changed.")
    name: str
    url: str
    event_types: list[str]
    signing_secret_hint: str
    signing_secret: str | None = None
    old_secret_expires_at: int | None = Field(
        description="Until then the old secret also signs messages."
    )
    disabled_at: int | None
    disabled_reason: str | None = Field(
        description="`gone` after a 410, `failing` after five days without a success."
    )
    failing_since: int | None = Field(description="The first failure since the last success.")

    @classmethod
    def of(cls, endpoint: tables.WebhookEndpoint, *, secret: str | None = None) -> Self:
        """Return ``endpoint`` as callers see it, with its ``secret`` the one time that it is shown."""
        return cls.from_record(
            endpoint,
            id=ids.show("we", endpoint.id),
            created_at=_unix(endpoint.created_at),
            updated_at=_unix(endpoint.updated_at),
            signing_secret_hint=endpoint.redacted_secret,
            signing_secret=secret,
            old_secret_expires_at=_maybe(endpoint.previous_expires_at),
            disabled_at=_maybe(endpoint.disabled_at),
            failing_since=_maybe(endpoint.failing_since),
        )


class EndpointList(Page[Endpoint, str]):
    """A page of webhook endpoints."""


class EndpointDeleted(ResponseModel):
    """A deleted webhook endpoint."""

    id: str
    object: Literal["webhook_endpoint.deleted"] = "webhook_endpoint.deleted"
    deleted: Literal[True] = True


class EndpointTested(ResponseModel):
    """The result of a test: `success` means that it was attempted; `status_code` is the receiver's response."""

    object: Literal["webhook_endpoint.test"] = "webhook_endpoint.test"
    webhook_endpoint_id: str
    event_type: str
    status_code: int | None = Field(description="Null without a response: see `error_code`.")
    success: Literal[True] = True
    error_code: str | None = Field(description="As in an attempt of a delivery.")
    delivery_id: str


class EventTypes(ResponseModel):
    """The types of events that webhook endpoints can get."""

    object: Literal["list"] = "list"
    data: list[str] = Field(default_factory=lambda: [str(event) for event in EventType])


class Recovery(ResponseModel):
    """A background operation that sends again all that an endpoint missed."""

    id: str
    object: Literal["webhook_recovery"] = "webhook_recovery"
    webhook_endpoint_id: str
    status: Literal["running", "done"]
    since: fields.Time
    resent: int = Field(description="Deliveries that got another attempt so far.")
    created_at: fields.Time
    ended_at: fields.Time | None

    @classmethod
    def of(cls, recovery: tables.WebhookRecovery) -> Self:
        """Return ``recovery`` as callers see it."""
        return cls.from_record(
            recovery,
            id=ids.show("rcv", recovery.id),
            webhook_endpoint_id=ids.show("we", recovery.endpoint_id),
            status="running" if recovery.ended_at is None else "done",
        )


class Secret(ResponseModel):
    """The account's default secret: it signs the messages to URLs of single jobs."""

    object: Literal["webhook_secret"] = "webhook_secret"
    signing_secret_hint: str
    signing_secret: str | None = Field(default=None, description="Only in the response of rotate.")
    old_secret_expires_at: int | None
    created_at: int
    updated_at: int

    @classmethod
    def of(cls, stored: tables.WebhookSecret, *, secret: str | None = None) -> Self:
        """Return an account's secret as callers see it, with ``secret`` the one time that it is shown."""
        return cls(
            signing_secret_hint=stored.redacted_secret,
            signing_secret=secret,
            old_secret_expires_at=_maybe(stored.previous_expires_at),
            created_at=_unix(stored.created_at),
            updated_at=_unix(stored.updated_at),
        )


class PublicKey(ResponseModel):
    """The installation's public key, which verifies the `v1a` signatures."""

    object: Literal["webhook_public_key"] = "webhook_public_key"
    algorithm: Literal["ed25519"] = "ed25519"
    public_key: str = Field(examples=["whpk_…"], description="`whpk_` and the key in base64.")


def _unix(moment: datetime) -> int:
    return int(moment.timestamp())


def _maybe(moment: datetime | None) -> int | None:
    return None if moment is None else _unix(moment)
