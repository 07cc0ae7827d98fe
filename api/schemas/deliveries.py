"""Deliveries of webhooks with their tries, as callers get them. Lists leave out what receivers chose the length of."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any, Literal, Self

import orjson
from pydantic import Field

from api.schemas.fields import Time
from api.schemas.parts import ResponseModel
from api.schemas.requests import ParameterModel
from core import ids
from net.client import NO_PUBLIC_ADDRESS, disclosed
from net.guard import is_public
from webhooks import queries, tables
from webhooks.policy import DeliveryStatus

Status = Literal["pending", "delivered", "failed"]
#: Characters of receivers' answers in one delivery, all tries together.
MAX_ANSWER_CHARS = 2**17


class DeliveryPath(ParameterModel):
    """Which delivery."""

    delivery_id: str


class JobDeliveriesQuery(ParameterModel):
    """Which page of a job's deliveries."""

    after: str | None = Field(default=None, description="The `last_id` of the page before.")
    limit: int = Field(default=20, ge=1, le=100, description="Deliveries on a page.")


class DeliveriesQuery(JobDeliveriesQuery):
    """Which page of which deliveries."""

    status: list[Status] = Field(
        default=[], max_length=16, description="One of these; may be given several times."
    )

    @property
    def statuses(self) -> list[DeliveryStatus]:
        """The same as the store has it."""
        return [DeliveryStatus(status) for status in self.status]


class DeliveryAttempt(ResponseModel):
    """One try of a delivery."""

    number: int
    kind: Literal["automatic", "manual", "recover", "test"] = Field(
        description="Only automatic ones count for the health of an endpoint."
    )
    state: Literal["due", "sending", "ended"]
    due_at: Time
    started_at: Time | None
    ended_at: Time | None
    outcome: Literal["delivered", "failed", "lost", "skipped"] | None = Field(
        description="`lost`: its sender died; another one took its place. `skipped`: nothing was sent."
    )
    request_headers: dict[str, Any] | None = Field(
        description="As they were sent. Null in lists: see `GET /v1/deliveries/{delivery_id}`."
    )
    status_code: int | None
    answer: str | None = Field(
        description="Up to 16 KiB of what the receiver said, as text. Null in lists; all tries of a delivery together "
        f"have {MAX_ANSWER_CHARS:,} characters at most, the newest first."
    )
    answer_cut: bool = Field(
        description="Whether the answers of newer tries left no room for all of this one's."
    )
    error_code: str | None = Field(
        description="`no_public_address`: the receiver's name does not lead to a public address. "
        "Keys that see all accounts get the cause instead."
    )
    seconds: float | None = Field(
        description="From connecting to the end of the answer. Null without a connection."
    )
    address: str | None = Field(
        description="What the receiver's name stood for. Null for a private address."
    )
    next_at: Time | None = Field(description="When the next automatic try was due then.")

    @classmethod
    def of(cls, attempt: tables.WebhookAttempt, *, everywhere: bool) -> Self:
        """Return what callers see of a try in a list.

        Args:
            attempt: the try.
            everywhere: whether the caller sees all accounts, and with them the operator's network.
        """
        code = attempt.error_code if everywhere else disclosed_code(attempt)
        connected = everywhere or code != NO_PUBLIC_ADDRESS
        return cls(
            number=attempt.number,
            kind=attempt.kind.value,
            state=attempt.state.value,
            due_at=attempt.due_at,
            started_at=attempt.started_at,
            ended_at=attempt.ended_at,
            outcome=None if attempt.outcome is None else attempt.outcome.value,
            request_headers=None,
            status_code=attempt.status_code,
            answer=None,
            answer_cut=False,
            error_code=code,
            seconds=round(attempt.seconds, 3)
            if connected and attempt.seconds is not None
            else None,
            address=attempt.address if everywhere else _public(attempt.address),
            next_at=attempt.next_at,
        )

    @classmethod
    def whole(cls, attempts: Sequence[tables.WebhookAttempt], *, everywhere: bool) -> list[Self]:
        """Return what callers see of all tries of one delivery: headers, and answers while there is room."""
        delivery_attempts: list[Self] = []
        room = MAX_ANSWER_CHARS
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
                        "answer": shown,
                        "answer_cut": shown != text,
                    }
                )
            )
        return delivery_attempts[::-1]


class Delivery(ResponseModel):
    """An event on its way to one receiver."""

    id: str
    object: Literal["webhook_delivery"] = "webhook_delivery"
    event_id: str = Field(description="The `webhook-id` of every try.")
    event_type: str
    job_id: str | None
    webhook_endpoint_id: str | None = Field(description="Null for a job's own URL.")
    origin: str = Field(description="Scheme and host of the receiver.")
    status: Status
    error_code: str | None = Field(description="Why it failed for good.")
    created_at: Time
    delivered_at: Time | None
    next_at: Time | None = Field(description="When the next automatic try is due.")
    attempt_count: int = Field(description="All tries so far, those that are due included.")
    attempts: list[DeliveryAttempt] = Field(
        description=f"Of each delivery in a list the newest {queries.LISTED_ATTEMPTS}, and the next automatic one."
    )

    @classmethod
    def of(cls, view: queries.DeliveryView, *, everywhere: bool) -> Self:
        """Return what callers see of a delivery in a list; ``everywhere`` as for a try."""
        return cls(
            **_facts(view, everywhere=everywhere),
            attempts=[
                DeliveryAttempt.of(attempt, everywhere=everywhere) for attempt in view.attempts
            ],
        )


class DeliveryWithPayload(Delivery):
    """The same with what is sent."""

    payload: dict[str, Any]

    @classmethod
    def of(cls, view: queries.DeliveryView, *, everywhere: bool) -> Self:
        """Return what callers see of a delivery that they asked for by itself."""
        return cls(
            **_facts(view, everywhere=everywhere),
            attempts=DeliveryAttempt.whole(view.attempts, everywhere=everywhere),
            payload=orjson.loads(view.event.payload),
        )


class DeliveryList(ResponseModel):
    """A page of deliveries."""

    object: Literal["list"] = "list"
    data: list[Delivery]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, views: Sequence[queries.DeliveryView], *, has_more: bool, everywhere: bool) -> Self:
        """Return a page with ``views``; ``everywhere`` as for a try."""
        data = [Delivery.of(view, everywhere=everywhere) for view in views]
        return cls(
            data=data,
            first_id=data[0].id if data else None,
            last_id=data[-1].id if data else None,
            has_more=has_more,
        )


def _facts(view: queries.DeliveryView, *, everywhere: bool) -> dict[str, Any]:
    delivery, event = view.delivery, view.event
    return {
        "id": ids.show("dlv", delivery.id),
        "event_id": ids.show("evt", event.id),
        "event_type": event.type,
        "job_id": event.job_id and ids.show("job", event.job_id),
        "webhook_endpoint_id": delivery.endpoint_id and ids.show("we", delivery.endpoint_id),
        "origin": view.origin,
        "status": delivery.status.value,
        "error_code": delivery.error_code if everywhere else _disclosed_end(view),
        "created_at": delivery.created_at,
        "delivered_at": delivery.delivered_at,
        "next_at": view.next_at,
        "attempt_count": delivery.attempt_count,
    }


def disclosed_code(attempt: tables.WebhookAttempt) -> str | None:
    """Return why a try failed, as a customer may see it."""
    return attempt.error_code and disclosed(attempt.error_code, address=attempt.address)


def _disclosed_end(view: queries.DeliveryView) -> str | None:
    """Return why a delivery failed for good, which is why its last try did, as a customer may see it."""
    shown = {one.error_code: disclosed_code(one) for one in view.attempts}
    return shown.get(view.delivery.error_code, view.delivery.error_code)


def _public(address: str | None) -> str | None:
    """Return an address that is on the public Internet, None for another one."""
    return address if address and is_public(ipaddress.ip_address(address)) else None
