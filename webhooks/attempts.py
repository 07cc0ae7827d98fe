"""Ends attempts: delivered, failed, skipped, or lost with the sender; and does what follows.

One UPDATE ends an attempt, guarded by state and owner: a row is never claimed twice. The same transaction writes the
next attempt. An owner that comes too late changes nothing.
"""

import dataclasses
import random
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa

from core.database import Database, Transaction
from webhooks import endpoints, notifications, policy, purge, url_queues
from webhooks.claims import DeliveryClaim
from webhooks.policy import AttemptKind, AttemptOutcome, AttemptState, DeliveryStatus
from webhooks.tables import (
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookNotification,
    WebhookQueue,
    in_state,
)

_LIMIT: Final = 200
GONE: Final = "gone"


@dataclass(frozen=True)
class AttemptResult:
    """The result of an attempt.

    Attributes:
        error_detail: a sentence about the cause, or about a response whose body broke.
        headers: of the request, as sent; None when nothing was sent.
        response_body: up to 16 KiB of the response body.
        seconds: from the connect to the end of the response.
        address: what the name resolved to.
        retry_after: the wait that the receiver asked for.
    """

    outcome: AttemptOutcome
    error_code: str | None = None
    error_detail: str | None = None
    headers: Mapping[str, str] | None = None
    status_code: int | None = None
    response_body: bytes | None = field(default=None, repr=False)
    seconds: float | None = None
    address: str | None = None
    retry_after: timedelta | None = None


@dataclass(frozen=True)
class AttemptEnded:
    """A note for the metrics: an attempt has ended."""

    outcome: AttemptOutcome
    status_code: int | None
    seconds: float | None


@dataclass(frozen=True)
class AttemptSettled:
    """What followed: the state of the delivery, when the next attempt is due, why the endpoint was disabled."""

    status: DeliveryStatus
    next_at: datetime | None
    disabled: str | None


def settle(
    database: Database, claim: DeliveryClaim, result: AttemptResult, *, rng: random.Random
) -> AttemptSettled | None:
    """End an attempt and do what follows. None: the claim has lost it, and nothing was written."""
    with database.transaction("settle") as transaction:
        own_url = claim.endpoint_id is None
        reduced = (own_url or bool(result.response_body)) and _is_reduced(
            transaction, claim.event_id
        )
        if reduced:
            result = dataclasses.replace(result, response_body=None)
        attempt = _end(transaction, claim, result)
        if attempt is None:
            return None
        transaction.notes.append(AttemptEnded(result.outcome, result.status_code, result.seconds))
        status = _status(transaction, claim.delivery_id)
        if result.outcome is AttemptOutcome.DELIVERED:
            status = _deliver(transaction, claim.delivery_id)
        elif status is DeliveryStatus.PENDING and _is_last(claim, result):
            status = DeliveryStatus.FAILED
            transaction.update(
                WebhookDelivery,
                WebhookDelivery.id == claim.delivery_id,
                status=status,
                error_code=result.error_code,
            )
        next_at = None
        if claim.kind is AttemptKind.AUTOMATIC and status is DeliveryStatus.PENDING:
            step = claim.step + 1
            wait = policy.wait(step, rng=rng, retry_after=result.retry_after)
            next_at = _follow(transaction, attempt, step=step, wait=wait)
        disabled = None
        if result.outcome is AttemptOutcome.DELIVERED:
            _note_success(transaction, claim)
        elif claim.kind is AttemptKind.AUTOMATIC and result.outcome is not AttemptOutcome.SKIPPED:
            disabled = _note_failure(transaction, claim, result)
        if reduced and own_url:
            purge.forget_urls(transaction, [claim.event_id])
        return AttemptSettled(status, next_at, disabled)


def put_off(database: Database, claim: DeliveryClaim, *, wait: timedelta) -> None:
    """Give back an attempt that was not made; the same row can be claimed again after ``wait``."""
    with database.transaction() as transaction:
        transaction.update(
            WebhookAttempt,
            *_held(claim),
            state=AttemptState.DUE,
            owner=None,
            lease_expires_at=None,
            started_at=None,
            due_at=transaction.now(wait),
        )


def landed(database: Database, claim: DeliveryClaim) -> bool:
    """Whether the claim's attempt has ended: tells whether a commit with a lost reply was made."""
    with database.reading() as transaction:
        attempt = transaction.session.get(WebhookAttempt, claim.attempt_id)
        return attempt is not None and attempt.outcome not in {None, AttemptOutcome.LOST}


def expire(database: Database) -> int:
    """End attempts whose lease has run out, and replace each; return how many.

    A replacement is due at once, unless senders are lost repeatedly.
    """
    with database.transaction("lost") as transaction:
        dead = transaction.session.scalars(
            sa.select(WebhookAttempt)
            .where(
                in_state(AttemptState.SENDING),
                WebhookAttempt.lease_expires_at < transaction.now(),
            )
            # By the bare column, SQLite would walk all attempts rather than sort the few that are sent.
            .order_by(sa.func.coalesce(WebhookAttempt.delivery_id, WebhookAttempt.delivery_id))
            .limit(_LIMIT)
            .with_for_update(skip_locked=True, key_share=True)
        ).all()
        for attempt in dead:
            transaction.update(
                WebhookAttempt,
                WebhookAttempt.id == attempt.id,
                state=AttemptState.ENDED,
                outcome=AttemptOutcome.LOST,
                error_code="sender_lost",
                lease_expires_at=None,
                ended_at=transaction.now(),
            )
            # A resend may have been delivered meanwhile: then nothing is left to send.
            status = _status(transaction, attempt.delivery_id)
            if attempt.kind is not AttemptKind.AUTOMATIC or status is DeliveryStatus.PENDING:
                wait = policy.wait_after_losses(_losses(transaction, attempt))
                _follow(transaction, attempt, step=attempt.step, wait=wait)
            transaction.notes.append(AttemptEnded(AttemptOutcome.LOST, None, None))
        return len(dead)


def _is_reduced(transaction: Transaction, event_id: uuid.UUID) -> bool:
    """Whether the job's answer has been removed; until the commit it cannot be. A response may repeat it."""
    reduced_at = transaction.execute(
        sa.select(WebhookNotification.reduced_at)
        .where(WebhookNotification.id == event_id)
        .with_for_update(read=True)
    ).scalar_one_or_none()
    return reduced_at is not None


def _losses(transaction: Transaction, attempt: WebhookAttempt) -> int:
    """Return how often a sender was lost at this step of the schedule."""
    return transaction.scalar(
        sa.select(sa.func.count()).where(
            WebhookAttempt.delivery_id == attempt.delivery_id,
            WebhookAttempt.kind == attempt.kind,
            WebhookAttempt.step == attempt.step,
            WebhookAttempt.outcome == AttemptOutcome.LOST,
        )
    )


def _is_last(claim: DeliveryClaim, result: AttemptResult) -> bool:
    """Whether a pending delivery ends with this failure: a test has no schedule, and a resend does not use it."""
    if claim.kind is not AttemptKind.AUTOMATIC:
        return claim.kind is AttemptKind.TEST
    over = result.outcome is AttemptOutcome.SKIPPED or result.error_code == GONE
    return over or claim.step + 1 >= len(policy.SCHEDULE)


def _status(transaction: Transaction, delivery_id: uuid.UUID) -> DeliveryStatus:
    """Return the state of a delivery; until the commit no other transaction can change it."""
    return transaction.scalar(
        sa.select(WebhookDelivery.status)
        .where(WebhookDelivery.id == delivery_id)
        .with_for_update(key_share=True)
    )


def _held(claim: DeliveryClaim) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        WebhookAttempt.id == claim.attempt_id,
        WebhookAttempt.state == AttemptState.SENDING,
        WebhookAttempt.owner == claim.owner,
    )


def _end(
    transaction: Transaction, claim: DeliveryClaim, result: AttemptResult
) -> WebhookAttempt | None:
    ended = transaction.session.scalars(
        sa.update(WebhookAttempt)
        .where(*_held(claim))
        .values(
            state=AttemptState.ENDED,
            outcome=result.outcome,
            lease_expires_at=None,
            ended_at=transaction.now(),
            url=claim.url,
            request_headers=None if result.headers is None else dict(result.headers),
            status_code=result.status_code,
            response_body=result.response_body,
            error_code=result.error_code,
            error_detail=result.error_detail,
            seconds=result.seconds,
            address=result.address,
        )
        .returning(WebhookAttempt),
        execution_options={"synchronize_session": False},
    )
    return ended.one_or_none()


def _deliver(transaction: Transaction, delivery_id: uuid.UUID) -> DeliveryStatus:
    """Mark a delivery as delivered, and delete the automatic attempt that is still due."""
    transaction.update(
        WebhookDelivery,
        WebhookDelivery.id == delivery_id,
        WebhookDelivery.status != DeliveryStatus.DELIVERED,
        status=DeliveryStatus.DELIVERED,
        delivered_at=transaction.now(),
        error_code=None,
    )
    transaction.delete(
        WebhookAttempt,
        WebhookAttempt.delivery_id == delivery_id,
        WebhookAttempt.state == AttemptState.DUE,
        WebhookAttempt.kind == AttemptKind.AUTOMATIC,
    )
    return DeliveryStatus.DELIVERED


def _follow(
    transaction: Transaction, attempt: WebhookAttempt, *, step: int, wait: timedelta
) -> datetime:
    """Write the attempt that follows ``attempt``; return when it is due."""
    _, due_at = notifications.attempt_again(
        transaction,
        attempt.delivery_id,
        kind=attempt.kind,
        step=step,
        wait=wait,
    )
    transaction.update(WebhookAttempt, WebhookAttempt.id == attempt.id, next_at=due_at)
    return due_at


def _note_success(transaction: Transaction, claim: DeliveryClaim) -> None:
    """Note that a receiver works, whatever the kind of the attempt.

    The endpoint is locked before its queue, as in :mod:`webhooks.endpoints`, and the queue of an origin before that of
    a URL.
    """
    if claim.endpoint_id is not None:
        transaction.update(
            WebhookEndpoint,
            WebhookEndpoint.id == claim.endpoint_id,
            WebhookEndpoint.failing_since.is_not(None),
            failing_since=None,
            last_failed_at=None,
        )
    home = claim.home_queue_id
    transaction.update(
        WebhookQueue, WebhookQueue.id == home, failures=0, delivered_at=transaction.now()
    )
    if claim.endpoint_id is None:
        url_queues.recovered(transaction, home, claim.url)


def _note_failure(
    transaction: Transaction, claim: DeliveryClaim, result: AttemptResult
) -> str | None:
    """Count an automatic attempt that failed; return why the endpoint is disabled now, if it is."""
    disabled = None
    home = claim.home_queue_id
    failures: sa.ColumnElement[int] = WebhookQueue.failures + 1
    if claim.endpoint_id is not None:
        disabled = _judge_failure(transaction, claim.endpoint_id, result)
    else:
        # Another URL of the origin may work, so the origin is never slow.
        failures = sa.case((failures < policy.TRIP, failures), else_=policy.TRIP - 1)
    if claim.queue_id == home:
        transaction.update(WebhookQueue, WebhookQueue.id == home, failures=failures)
    if claim.endpoint_id is None:
        url_queues.failed(transaction, home, claim.url, account_id=claim.account_id)
    return disabled


def _judge_failure(
    transaction: Transaction, endpoint_id: uuid.UUID, result: AttemptResult
) -> str | None:
    now = notifications.now(transaction)
    endpoint = transaction.session.get_one(
        WebhookEndpoint, endpoint_id, with_for_update={"key_share": True}, populate_existing=True
    )
    since, last = endpoint.failing_since, endpoint.last_failed_at
    if since is None or last is None or now - last > policy.PAUSE:
        since = now
    transaction.update(
        WebhookEndpoint,
        WebhookEndpoint.id == endpoint_id,
        failing_since=since,
        last_failed_at=now,
    )
    reason = None
    if result.error_code == GONE:
        reason = GONE
    elif now - since >= policy.PATIENCE:
        reason = "failing"
    if reason is not None and endpoints.disable(transaction, endpoint, reason=reason):
        return reason
    return None
