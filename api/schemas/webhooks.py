"""Webhook endpoints and secrets, in OpenAI's shape, and what is ours beside it.

Source of the shape: ``openai/types/webhooks`` of the official client. Times are unix seconds there.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field

from api.schemas import fields
from api.schemas.parts import ResponseModel
from api.schemas.requests import MAX_EVENTS, ParameterModel, RequestModel
from core import ids
from webhooks import tables
from webhooks.policy import EventType

EventName = Literal[
    "job.started", "job.succeeded", "job.failed", "job.cancelled", "endpoint.disabled"
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
    event_types: _Types = Field(description="What it is told of: `/v1/webhook_event_types`.")


class EndpointUpdate(RequestModel):
    """What is to change of a webhook endpoint."""

    name: _Name | None = None
    url: fields.Url | None = None
    event_types: _Types | None = Field(default=None, description="The whole new set.")


class SecretRotate(RequestModel):
    """How a secret is to be changed."""

    keep_old_secret_active_for_24_hours: bool = Field(
        default=False, description="Sign with the old one, too, for a day. Default: it ends now."
    )


class DefaultRotate(RequestModel):
    """How the account's default secret is to be changed."""

    keep_old_secret_active_for_24_hours: bool = Field(
        default=True, description="Sign with the old one, too, for a day, or end it now."
    )


class EndpointTest(RequestModel):
    """What kind of event to send."""

    event_type: EventName


class EndpointRecover(RequestModel):
    """From when on to send again."""

    since: fields.Moment = Field(description="RFC 3339, or unix seconds as text.")


class EndpointPath(ParameterModel):
    """Which webhook endpoint."""

    endpoint_id: str


class RecoveryPath(EndpointPath):
    """Which of its recoveries."""

    recovery_id: str


class EndpointsQuery(ParameterModel):
    """Which page of the webhook endpoints."""

    after: str | None = Field(default=None, description="The `last_id` of the page before.")
    limit: int = Field(default=20, ge=1, le=100, description="Endpoints on a page.")
    order: Literal["desc", "asc"] = Field(default="desc", description="Newest or oldest first.")


class Endpoint(ResponseModel):
    """A webhook endpoint. `signing_secret` is in the answers of create and rotate only."""

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
        description="Until then messages are signed with the old secret, too."
    )
    disabled_at: int | None
    disabled_reason: str | None = Field(
        description="`gone` after a 410, `failing` after five days without a success."
    )
    failing_since: int | None = Field(description="The first failure since the last success.")

    @classmethod
    def of(cls, endpoint: tables.WebhookEndpoint, *, secret: str | None = None) -> Self:
        """Return what callers see of ``endpoint``; with its ``secret``, the one time that it is shown."""
        return cls(
            id=ids.show("we", endpoint.id),
            created_at=_unix(endpoint.created_at),
            updated_at=_unix(endpoint.updated_at),
            name=endpoint.name,
            url=endpoint.url,
            event_types=list(endpoint.event_types),
            signing_secret_hint=endpoint.redacted_secret,
            signing_secret=secret,
            old_secret_expires_at=_maybe(endpoint.previous_expires_at),
            disabled_at=_maybe(endpoint.disabled_at),
            disabled_reason=endpoint.disabled_reason,
            failing_since=_maybe(endpoint.failing_since),
        )


class EndpointList(ResponseModel):
    """A page of webhook endpoints."""

    object: Literal["list"] = "list"
    data: list[Endpoint]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, endpoints: Sequence[tables.WebhookEndpoint], *, has_more: bool) -> Self:
        """Return a page with ``endpoints``."""
        data = [Endpoint.of(endpoint) for endpoint in endpoints]
        return cls(
            data=data,
            first_id=data[0].id if data else None,
            last_id=data[-1].id if data else None,
            has_more=has_more,
        )


class EndpointDeleted(ResponseModel):
    """A webhook endpoint that is gone."""

    id: str
    object: Literal["webhook_endpoint.deleted"] = "webhook_endpoint.deleted"
    deleted: Literal[True] = True


class EndpointTested(ResponseModel):
    """What came of a test: `success` says that it was tried, `status_code` how it went."""

    object: Literal["webhook_endpoint.test"] = "webhook_endpoint.test"
    webhook_endpoint_id: str
    event_type: str
    status_code: int | None = Field(description="Null when there was no answer: `error_code`.")
    success: Literal[True] = True
    error_code: str | None = Field(description="As in a try of a delivery.")
    delivery_id: str


class EventTypes(ResponseModel):
    """What webhook endpoints can be told of."""

    object: Literal["list"] = "list"
    data: list[str] = Field(default_factory=lambda: [str(event) for event in EventType])


class Recovery(ResponseModel):
    """All that an endpoint missed is sent again, in the background."""

    id: str
    object: Literal["webhook_recovery"] = "webhook_recovery"
    webhook_endpoint_id: str
    status: Literal["running", "done"]
    since: fields.Time
    resent: int = Field(description="Deliveries that got another try so far.")
    created_at: fields.Time
    ended_at: fields.Time | None

    @classmethod
    def of(cls, recovery: tables.WebhookRecovery) -> Self:
        """Return what callers see of ``recovery``."""
        return cls(
            id=ids.show("rcv", recovery.id),
            webhook_endpoint_id=ids.show("we", recovery.endpoint_id),
            status="running" if recovery.ended_at is None else "done",
            since=recovery.since,
            resent=recovery.resent,
            created_at=recovery.created_at,
            ended_at=recovery.ended_at,
        )


class Secret(ResponseModel):
    """The account's default secret: it signs what goes to the URLs of single jobs."""

    object: Literal["webhook_secret"] = "webhook_secret"
    signing_secret_hint: str
    signing_secret: str | None = Field(
        default=None, description="In the answer of rotate only: it is shown once."
    )
    old_secret_expires_at: int | None
    created_at: int
    updated_at: int

    @classmethod
    def of(cls, stored: tables.WebhookSecret, *, secret: str | None = None) -> Self:
        """Return what callers see of an account's secret."""
        return cls(
            signing_secret_hint=stored.redacted_secret,
            signing_secret=secret,
            old_secret_expires_at=_maybe(stored.previous_expires_at),
            created_at=_unix(stored.created_at),
            updated_at=_unix(stored.updated_at),
        )


class PublicKey(ResponseModel):
    """The installation's key, by which everybody can verify the `v1a` signatures."""

    object: Literal["webhook_public_key"] = "webhook_public_key"
    algorithm: Literal["ed25519"] = "ed25519"
    public_key: str = Field(examples=["whpk_…"], description="`whpk_` and the key in base64.")


def _unix(moment: datetime) -> int:
    return int(moment.timestamp())


def _maybe(moment: datetime | None) -> int | None:
    return None if moment is None else _unix(moment)
