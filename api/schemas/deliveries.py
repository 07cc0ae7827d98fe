"""Webhook deliveries with their attempts. Lists leave out the texts whose length receivers choose."""

import ipaddress
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import Field

from api.schemas import cursors
from api.schemas.fields import Time
from api.schemas.parameters import ParameterModel
from api.schemas.parts import Page, ResponseModel
from core import ids
from net.client import NO_PUBLIC_ADDRESS, disclosed
from net.guard import is_public
from webhooks import queries, tables
from webhooks.policy import DeliveryStatus

Status = Literal["pending", "delivered", "failed"]
#: Characters of the responses in one delivery, of all attempts together.
MAX_RESPONSE_CHARS = 2**17


class JobDeliveriesQuery(ParameterModel):
    """The page of a job's deliveries."""

    after: Annotated[uuid.UUID, cursors.of("dlv")] | None = Field(
        default=None, description=cursors.DESCRIPTION
    )
    limit: int = Field(default=20, ge=1, le=100, description="Deliveries per page.")


class DeliveriesQuery(JobDeliveriesQuery):
    """The page, and a filter of the deliveries."""

    status: list[Status] = Field(
        default=[], max_length=16, description="Repeat the parameter for several."
    )

    @property
    def statuses(self) -> list[DeliveryStatus]:
        """The same as enumeration members."""
        return [DeliveryStatus(status) for status in self.status]


class DeliveryAttempt(ResponseModel):
    """One attempt of a delivery."""

    number: int
    kind: Literal["automatic", "manual", "recover", "test"] = Field(
        description="Only automatic ones affect the health of an endpoint."
    )
    state: Literal["due", "sending", "ended"]
    due_at: Time
    started_at: Time | None
    ended_at: Time | None
    outcome: Literal["delivered", "failed", "lost", "skipped"] | None = Field(
        description="`lost`: its sender died; another attempt replaces it. `skipped`: nothing was sent."
    )
    request_headers: dict[str, Any] | None = Field(
        description="As sent. Null in lists: see `GET /v1/deliveries/{delivery_id}`."
    )
    status_code: int | None
    response_body: str | None = Field(
        description="Up to 16 KiB of the response, as text. Null in lists. All attempts of a delivery together have at "
        f"most {MAX_RESPONSE_CHARS:,} characters, the newest first."
    )
    response_truncated: bool = Field(
        description="Whether the responses to newer attempts left no room for all of this one."
    )
    error_code: str | None = Field(
        description="`no_public_address`: the receiver's name does not resolve to a public address. "
        "Keys that see all accounts get the cause instead."
    )
    error_detail: str | None = Field(
        description="The cause in a sentence, where there is more to say: which part of the certificate is not valid, "
        "how the body of a response broke. A response counts by its status once its head is whole."
    )
    seconds: float | None = Field(
        description="From the connect to the end of the response. Null without a connection."
    )
    address: str | None = Field(
        description="What the receiver's name resolved to. Null for a private address."
    )
    next_at: Time | None = Field(description="When the next automatic attempt is due.")

    @classmethod
    def of(cls, attempt: tables.WebhookAttempt, *, everywhere: bool) -> Self:
        """Return an attempt as callers see it in a list.

        Args:
            attempt: the attempt.
            everywhere: whether the caller sees all accounts, and with them the operator's network.
        """
        code = attempt.error_code if everywhere else disclosed_code(attempt)
        connected = everywhere or code != NO_PUBLIC_ADDRESS
        return cls.from_record(
            attempt,
            request_headers=None,
            response_body=None,
            response_truncated=False,
            error_code=code,
            seconds=round(attempt.seconds, 3)
            if connected and attempt.seconds is not None
            else None,
            address=attempt.address if everywhere else _public(attempt.address),
        )

    @classmethod
    def whole(cls, attempts: Sequence[tables.WebhookAttempt], *, everywhere: bool) -> list[Self]:
        """Return all attempts of a delivery as callers see them: with headers, and responses while there is room."""
        delivery_attempts: list[Self] = []
        room = MAX_RESPONSE_CHARS
        for attempt in reversed(attempts):
            text = (
                None
                if attempt.response_body is None
                else attempt.response_body.decode(errors="replace")
            )
            shown = text and text[:room]
            room -= len(shown or "")
            delivery_attempts.append(
                cls.of(attempt, everywhere=everywhere).model_copy(
                    update={
                        "request_headers": attempt.request_headers,
                        "response_body": shown,
                        "response_truncated": shown != text,
                    }
                )
            )
        return delivery_attempts[::-1]


class Delivery(ResponseModel):
    """A notification for one receiver."""

    id: str
    object: Literal["webhook_delivery"] = "webhook_delivery"
    event_id: str = Field(description="The `webhook-id` of all attempts.")
    event_type: str
    job_id: str | None
    webhook_endpoint_id: str | None = Field(description="Null for a job's own URL.")
    origin: str = Field(description="Scheme and host of the receiver.")
    status: Status
    error_code: str | None = Field(description="Why it failed finally.")
    created_at: Time
    delivered_at: Time | None
    next_at: Time | None = Field(description="When the next automatic attempt is due.")
    attempt_count: int = Field(description="All attempts so far, due ones included.")
    attempts: list[DeliveryAttempt] = Field(
        description=f"In a list the newest {queries.LISTED_ATTEMPTS}, and the next automatic one."
    )

    @classmethod
    def of(cls, view: queries.DeliveryView, *, everywhere: bool) -> Self:
        """Return a delivery as callers see it in a list; ``everywhere`` as for an attempt."""
        return cls.from_record(
            view.delivery,
            **_facts(view, everywhere=everywhere),
            attempts=[
                DeliveryAttempt.of(attempt, everywhere=everywhere) for attempt in view.attempts
            ],
        )


class DeliveryWithPayload(Delivery):
    """A delivery with its payload."""

    payload: dict[str, Any]

    @classmethod
    def of(cls, view: queries.DeliveryView, *, everywhere: bool) -> Self:
        """Return a single delivery as callers see it; ``everywhere`` as for an attempt."""
        return cls.from_record(
            view.delivery,
            **_facts(view, everywhere=everywhere),
            attempts=DeliveryAttempt.whole(view.attempts, everywhere=everywhere),
            payload=orjson.loads(view.event.payload),
        )


class DeliveryList(Page[Delivery, str]):
    """A page of deliveries."""


def _facts(view: queries.DeliveryView, *, everywhere: bool) -> dict[str, Any]:
    delivery, event = view.delivery, view.event
    return {
        "id": ids.show("dlv", delivery.id),
        "event_id": ids.show("evt", event.id),
        "event_type": event.type,
        "job_id": event.job_id and ids.show("job", event.job_id),
        "webhook_endpoint_id": delivery.endpoint_id and ids.show("we", delivery.endpoint_id),
        "origin": view.origin,
        "error_code": delivery.error_code if everywhere else _disclosed_end(view),
        "next_at": view.next_at,
    }


def disclosed_code(attempt: tables.WebhookAttempt) -> str | None:
    """Return the error code of an attempt, as a customer may see it."""
    return attempt.error_code and disclosed(attempt.error_code, address=attempt.address)


def _disclosed_end(view: queries.DeliveryView) -> str | None:
    """Return the error code of a delivery, which is that of its last attempt, as a customer may see it."""
    shown = {attempt.error_code: disclosed_code(attempt) for attempt in view.attempts}
    return shown.get(view.delivery.error_code, view.delivery.error_code)


def _public(address: str | None) -> str | None:
    """Return a public address, None for a private one."""
    return address if address and is_public(ipaddress.ip_address(address)) else None
