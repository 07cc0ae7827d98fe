"""Tries that people ask for: resend one, recover all that failed, send a test.

They come on top of the schedule and do not move it, go to disabled endpoints too, and say nothing of an
endpoint's health. A resend carries the same ``webhook-id``. Each verb writes tries and rings; the delivery
process sends them.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from core import errors, ids
from core.database import Database, Transaction
from jobs.delivery import AttemptKind, AttemptState, DeliveryStatus
from jobs.outbox import (
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookNotification,
    WebhookRecovery,
)
from jobs.store import events

#: Tries of a delivery after which people get no more of them; they are shown all together.
MAX_ATTEMPTS: Final = 100


@dataclass(frozen=True)
class RecoveryBatch:
    """What a batch of recoveries did."""

    resent: int
    #: Whether there is more to do.
    more: bool
    #: Whose recovery it was.
    account_id: uuid.UUID | None = None


def redeliver(
    database: Database,
    delivery_id: uuid.UUID,
    *,
    account_id: uuid.UUID | None,
    most: int = MAX_ATTEMPTS,
) -> uuid.UUID | None:
    """Make one more try of a delivery, now; return the try's id, None when there is no such delivery.

    Raises:
        core.errors.Conflict: it has been tried too often; each try is kept with what the receiver said.
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
        found = transaction.session.scalars(statement).one_or_none()
        if found is None:
            return None
        if found.attempt_count >= most:
            raise errors.Conflict(f"A delivery is sent again up to {most} times.")
        [made] = _attempt_again(transaction, [found], kind=AttemptKind.MANUAL)
        return made


def test(
    database: Database,
    endpoint_id: uuid.UUID,
    *,
    account_id: uuid.UUID | None,
    event_type: str,
    data: Mapping[str, Any],
) -> uuid.UUID | None:
    """Send an endpoint an event that did not happen; return its delivery's id, None when there is no such endpoint."""
    with database.transaction() as transaction:
        endpoint = transaction.session.get(WebhookEndpoint, endpoint_id)
        if endpoint is None or endpoint.deleted_at is not None:
            return None
        if account_id is not None and endpoint.account_id != account_id:
            return None
        [delivery_id] = events.write(
            transaction,
            account_id=endpoint.account_id,
            event_type=event_type,
            data={"omitted": [], **data},
            targets=[events.NotificationTarget(queue_id=endpoint.id, endpoint_id=endpoint.id)],
            kind=AttemptKind.TEST,
        )
        return delivery_id


def recover(
    database: Database, *, limit: int = 100, after: uuid.UUID | None = None
) -> RecoveryBatch:
    """Work off a part of a recovery that is asked for; any number of processes may.

    What is recovered: deliveries of events since its time that failed, or that still wait after a failure.

    Args:
        database: where they are kept.
        limit: deliveries that are looked at.
        after: the account that this process served last. Accounts take turns, in the order of their ids; of an
            account the oldest recovery comes first.
    """
    asked_for = (
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
        if transaction.session.execute(asked_for).one_or_none() is None:
            return RecoveryBatch(resent=0, more=False)
    with database.transaction("recover") as transaction:
        row = transaction.session.execute(
            asked_for.with_for_update(of=WebhookRecovery, skip_locked=True)
        ).one_or_none()
        if row is None:
            return RecoveryBatch(resent=0, more=False)
        recovery, account_id = row
        found = transaction.session.scalars(
            # What is purged meanwhile is gone, and not to be missed.
            _missed(recovery).limit(limit).with_for_update(of=WebhookDelivery, key_share=True)
        ).all()
        made = _attempt_again(transaction, found, kind=AttemptKind.RECOVER)
        done = len(found) < limit
        transaction.execute(
            sa.update(WebhookRecovery)
            .where(WebhookRecovery.id == recovery.id)
            .values(
                last_delivery_id=found[-1].id if found else recovery.last_delivery_id,
                resent=WebhookRecovery.resent + len(made),
                ended_at=transaction.now() if done else None,
            )
        )
        return RecoveryBatch(resent=len(made), more=True, account_id=account_id)


def _missed(recovery: WebhookRecovery) -> sa.Select[WebhookDelivery]:
    failed_once = sa.select(WebhookAttempt.id).where(
        WebhookAttempt.delivery_id == WebhookDelivery.id, WebhookAttempt.state == AttemptState.ENDED
    )
    on_its_way = sa.select(WebhookAttempt.id).where(
        WebhookAttempt.delivery_id == WebhookDelivery.id,
        WebhookAttempt.state != AttemptState.ENDED,
        WebhookAttempt.kind != AttemptKind.AUTOMATIC,
    )
    statement = sa.select(WebhookDelivery).where(
        WebhookDelivery.endpoint_id == recovery.endpoint_id,
        WebhookDelivery.created_at >= recovery.since,
        # What came after it was asked for is not meant.
        WebhookDelivery.created_at <= recovery.created_at,
        WebhookDelivery.status != DeliveryStatus.DELIVERED,
        WebhookDelivery.attempt_count < MAX_ATTEMPTS,
        sa.or_(WebhookDelivery.status == DeliveryStatus.FAILED, sa.exists(failed_once)),
        ~sa.exists(on_its_way),
    )
    if recovery.last_delivery_id is not None:
        statement = statement.where(WebhookDelivery.id > recovery.last_delivery_id)
    return statement.order_by(WebhookDelivery.id)


def _attempt_again(
    transaction: Transaction, deliveries: Sequence[WebhookDelivery], *, kind: AttemptKind
) -> list[uuid.UUID]:
    """Insert a try of each delivery, due now; return their ids."""
    made = []
    for found in deliveries:
        number = transaction.execute(
            sa.update(WebhookDelivery)
            .where(WebhookDelivery.id == found.id)
            .values(attempts=WebhookDelivery.attempt_count + 1)
            .returning(WebhookDelivery.attempt_count)
        ).scalar_one()
        made.append(ids.new())
        transaction.execute(
            sa.insert(WebhookAttempt).values(
                id=made[-1],
                delivery_id=found.id,
                queue_id=found.queue_id,
                number=number,
                kind=kind,
                step=0,
                state=AttemptState.DUE,
                due_at=transaction.now(),
            )
        )
    if made:
        transaction.notes.append(events.DeliveriesDue(len(made)))
    return made
