"""Attempts that users request: resend one, recover all that failed, send a test.

They do not advance the schedule, go to disabled endpoints, too, and do not count as failures of the receiver. One that
is delivered proves that it works. A resend has the same ``webhook-id``. Each function writes attempts and wakes the
delivery process, which sends them.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from core import errors
from core.database import Database, Transaction
from jobs.store.outbox import NotificationsDue
from webhooks import notifications
from webhooks.policy import AttemptKind, AttemptState, DeliveryStatus
from webhooks.tables import (
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookNotification,
    WebhookRecovery,
)

#: Attempts of a delivery after which users can request no more: they are shown all together.
MAX_ATTEMPTS: Final = 100


@dataclass(frozen=True)
class RecoveryBatch:
    """What a batch of a recovery did."""

    resent: int
    #: Whether there is more to do.
    more: bool
    #: The account of the recovery.
    account_id: uuid.UUID | None = None


def redeliver(
    database: Database,
    delivery_id: uuid.UUID,
    *,
    account_id: uuid.UUID | None,
    most: int = MAX_ATTEMPTS,
) -> uuid.UUID | None:
    """Request one more attempt of a delivery, now; return its id, None if there is no such delivery.

    Raises:
        core.errors.Conflict: the delivery has ``most`` attempts, each of which is stored with the response; or its URL
            was removed with the content of its job.
    """
    with database.transaction() as transaction:
        statement = (
            sa.select(WebhookDelivery)
            .join(WebhookNotification, WebhookNotification.id == WebhookDelivery.notification_id)
            .where(WebhookDelivery.id == delivery_id)
            .with_for_update(of=WebhookDelivery, key_share=True)
        )
        if account_id is not None:
            statement = statement.where(WebhookNotification.account_id == account_id)
        delivery = transaction.session.scalars(statement).one_or_none()
        if delivery is None:
            return None
        if delivery.attempt_count >= most:
            raise errors.Conflict(
                f"A delivery can have at most {most} attempts; this one has {delivery.attempt_count}."
            )
        if _is_url_removed(transaction, delivery):
            raise errors.Conflict("The URL of this delivery was removed with the data of its job.")
        [attempt_id] = _attempt_again(transaction, [delivery], kind=AttemptKind.MANUAL)
        return attempt_id


def _is_url_removed(transaction: Transaction, delivery: WebhookDelivery) -> bool:
    """Whether only the origin of a job's own URL is left: see :func:`webhooks.purge.forget_urls`."""
    if delivery.endpoint_id is not None or delivery.status is DeliveryStatus.PENDING:
        return False
    reduced = sa.select(WebhookNotification.reduced_at).where(
        WebhookNotification.id == delivery.notification_id
    )
    return transaction.execute(reduced.with_for_update(read=True)).scalar_one() is not None


def test(
    database: Database,
    endpoint_id: uuid.UUID,
    *,
    account_id: uuid.UUID | None,
    event_type: str,
    data: Mapping[str, Any],
) -> uuid.UUID | None:
    """Send an endpoint a test event; return the id of its delivery, None if there is no such endpoint."""
    with database.transaction() as transaction:
        endpoint = transaction.session.get(WebhookEndpoint, endpoint_id)
        if endpoint is None or endpoint.deleted_at is not None:
            return None
        if account_id is not None and endpoint.account_id != account_id:
            return None
        notification = notifications.Notification(
            account_id=endpoint.account_id,
            type=event_type,
            at=notifications.now(transaction),
            data=data,
            targets=[
                notifications.NotificationTarget(queue_id=endpoint.id, endpoint_id=endpoint.id)
            ],
            kind=AttemptKind.TEST,
        )
        [delivery_id] = notifications.write(transaction, [notification])
        return delivery_id


def recover(
    database: Database, *, limit: int = 100, after: uuid.UUID | None = None
) -> RecoveryBatch:
    """Do a batch of a recovery; any number of processes may do so at once.

    It resends deliveries since the recovery's time that failed, or that wait after a failure.

    Args:
        database: where they are stored.
        limit: deliveries to examine.
        after: the account that this process served last. Accounts take turns, in the order of their ids; of an
            account the oldest recovery comes first.
    """
    next_one = (
        sa.select(WebhookRecovery, WebhookEndpoint.account_id)
        .join(WebhookEndpoint, WebhookEndpoint.id == WebhookRecovery.endpoint_id)
        .where(WebhookRecovery.ended_at.is_(None))
        .order_by(
            *([] if after is None else [WebhookEndpoint.account_id <= after]),
            WebhookEndpoint.account_id,
            WebhookRecovery.id,
        )
        .limit(1)
    )
    with database.reading() as transaction:
        if transaction.session.execute(next_one).one_or_none() is None:
            return RecoveryBatch(resent=0, more=False)
    with database.transaction("recover") as transaction:
        row = transaction.session.execute(
            next_one.with_for_update(of=WebhookRecovery, skip_locked=True)
        ).one_or_none()
        if row is None:
            return RecoveryBatch(resent=0, more=False)
        recovery, account_id = row
        deliveries = transaction.session.scalars(
            # A delivery that is purged meanwhile is not waited for.
            _missed(recovery).limit(limit).with_for_update(of=WebhookDelivery, key_share=True)
        ).all()
        attempt_ids = _attempt_again(transaction, deliveries, kind=AttemptKind.RECOVER)
        done = len(deliveries) < limit
        transaction.update(
            WebhookRecovery,
            WebhookRecovery.id == recovery.id,
            last_delivery_id=deliveries[-1].id if deliveries else recovery.last_delivery_id,
            resent=WebhookRecovery.resent + len(attempt_ids),
            ended_at=transaction.now() if done else None,
        )
        return RecoveryBatch(resent=len(attempt_ids), more=True, account_id=account_id)


def _missed(recovery: WebhookRecovery) -> sa.Select[WebhookDelivery]:
    failed_once = sa.select(WebhookAttempt.id).where(
        WebhookAttempt.delivery_id == WebhookDelivery.id, WebhookAttempt.state == AttemptState.ENDED
    )
    under_way = sa.select(WebhookAttempt.id).where(
        WebhookAttempt.delivery_id == WebhookDelivery.id,
        WebhookAttempt.state != AttemptState.ENDED,
        WebhookAttempt.kind != AttemptKind.AUTOMATIC,
    )
    statement = sa.select(WebhookDelivery).where(
        WebhookDelivery.endpoint_id == recovery.endpoint_id,
        WebhookDelivery.created_at >= recovery.since,
        # Not what came after the request.
        WebhookDelivery.created_at <= recovery.created_at,
        WebhookDelivery.status != DeliveryStatus.DELIVERED,
        WebhookDelivery.attempt_count < MAX_ATTEMPTS,
        sa.or_(WebhookDelivery.status == DeliveryStatus.FAILED, sa.exists(failed_once)),
        ~sa.exists(under_way),
    )
    if recovery.last_delivery_id is not None:
        statement = statement.where(WebhookDelivery.id > recovery.last_delivery_id)
    return statement.order_by(WebhookDelivery.id)


def _attempt_again(
    transaction: Transaction, deliveries: Sequence[WebhookDelivery], *, kind: AttemptKind
) -> list[uuid.UUID]:
    """Insert an attempt of each delivery, due now; return their ids."""
    attempt_ids = [
        notifications.attempt_again(transaction, delivery.id, kind=kind)[0]
        for delivery in deliveries
    ]
    if attempt_ids:
        transaction.notes.append(NotificationsDue())
    return attempt_ids
