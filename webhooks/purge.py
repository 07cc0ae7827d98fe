"""Removes old webhooks: answers from payloads, and whole notifications once nothing is left to send.

The periods are those of :mod:`jobs.store.purge`; here they count from the time of the event. ``answer`` removes the
answer and the metadata from payloads, what receivers replied, which may repeat them, and the paths of jobs' own URLs.
``timeline`` removes notifications with their deliveries and attempts, and then the queues of URLs that failed. The
delivery process runs :func:`batch`; any number of processes may do so at once.
"""

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa

from core.database import Database, Transaction
from jobs.records.timeline import OutboxEntry
from jobs.store.purge import Periods
from webhooks import notifications, policy, url_queues
from webhooks.policy import AttemptState, DeliveryStatus
from webhooks.tables import (
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookNotification,
    WebhookQueue,
    WebhookRecovery,
    WebhookSecret,
)


@dataclass(frozen=True)
class WebhooksPurged:
    """What a batch did: payloads without their answer, notifications and queues that are gone."""

    reduced: int = 0
    removed: int = 0
    #: Queues of single URLs.
    queues: int = 0
    #: Whether there may be more to do.
    more: bool = False


def batch(database: Database, periods: Periods, *, limit: int = 50) -> WebhooksPurged:
    """Remove what is older than ``periods``, up to ``limit`` notifications of each kind, oldest first.

    Raises:
        core.database_faults.DatabaseUnavailable: the database does not answer; what was committed stays removed.
    """
    reduced = removed = queues = 0
    if periods.answer is not None:
        reduced = _reduce_old(database, periods.answer, limit=limit)
    if periods.timeline is not None:
        removed = _remove_old(database, periods.timeline, limit=limit)
        queues = url_queues.remove_old(database, max(periods.timeline, policy.PAUSE), limit=limit)
    return WebhooksPurged(reduced, removed, queues, more=limit in (reduced, removed, queues))


def reduce_jobs(transaction: Transaction, job_ids: Collection[uuid.UUID]) -> None:
    """Remove the content of jobs from payloads, what receivers replied, and the paths of the jobs' own URLs.

    What is still to be sent is sent without the content. What is in the outbox gets no answer: the job has none.
    """
    events = transaction.session.scalars(
        sa.select(WebhookNotification)
        .where(WebhookNotification.job_id.in_(job_ids), WebhookNotification.reduced_at.is_(None))
        .order_by(WebhookNotification.id)
        .with_for_update(key_share=True)
    )
    _reduce(transaction, events.all())


def _reduce_old(database: Database, period: timedelta, *, limit: int) -> int:
    with database.transaction() as transaction:
        events = transaction.session.scalars(
            sa.select(WebhookNotification)
            .where(
                WebhookNotification.job_id.is_not(None),
                WebhookNotification.reduced_at.is_(None),
                WebhookNotification.created_at < transaction.now(-period),
            )
            .order_by(WebhookNotification.created_at)
            .limit(limit)
            .with_for_update(skip_locked=True, key_share=True)
        ).all()
        _reduce(transaction, events)
        return len(events)


def _reduce(transaction: Transaction, events: Collection[WebhookNotification]) -> None:
    for event in events:
        transaction.update(
            WebhookNotification,
            WebhookNotification.id == event.id,
            payload=notifications.without_content(event.payload),
            reduced_at=transaction.now(),
        )
    deliveries = sa.select(WebhookDelivery.id).where(
        WebhookDelivery.notification_id.in_([event.id for event in events])
    )
    transaction.update(
        WebhookAttempt, WebhookAttempt.delivery_id.in_(deliveries), response_body=None
    )
    forget_urls(transaction, [event.id for event in events])


def remove_account(database: Database, account_id: uuid.UUID, *, limit: int = 50) -> int:
    """Remove up to ``limit`` notifications of an account, sent or not; return how many. At 0, its receivers go too.

    Raises:
        core.database_faults.DatabaseUnavailable: the database does not answer; what was committed stays removed.
    """
    with database.transaction() as transaction:
        transaction.delete(
            OutboxEntry,
            OutboxEntry.id.in_(
                sa.select(OutboxEntry.id)
                .where(OutboxEntry.account_id == account_id)
                .order_by(OutboxEntry.id)
                .with_for_update()
            ),
        )
        chosen = transaction.session.scalars(
            sa.select(WebhookNotification.id)
            .where(WebhookNotification.account_id == account_id)
            .limit(limit)
        ).all()
        if chosen:
            _hold_deliveries(transaction, chosen)
            _remove(transaction, chosen)
        else:
            _remove_receivers(transaction, account_id)
        return len(chosen)


def _remove_receivers(transaction: Transaction, account_id: uuid.UUID) -> None:
    """Remove an account's endpoints, queues, recoveries and secret. Nothing refers to them any more."""
    own = sa.select(WebhookEndpoint.id).where(WebhookEndpoint.account_id == account_id)
    transaction.delete(WebhookRecovery, WebhookRecovery.endpoint_id.in_(own))
    transaction.delete(WebhookEndpoint, WebhookEndpoint.account_id == account_id)
    transaction.delete(WebhookQueue, WebhookQueue.account_id == account_id)
    transaction.delete(WebhookSecret, WebhookSecret.account_id == account_id)


def forget_urls(transaction: Transaction, event_ids: Collection[uuid.UUID]) -> None:
    """Shorten the URLs of jobs' own webhooks to their origins, once nothing is left to send there."""
    rows = transaction.execute(
        sa.select(WebhookDelivery.id, WebhookDelivery.url)
        .join(WebhookNotification, WebhookNotification.id == WebhookDelivery.notification_id)
        .where(
            WebhookDelivery.notification_id.in_(event_ids),
            WebhookDelivery.endpoint_id.is_(None),
            ~_has_more(),
        )
    ).all()
    for row in rows:
        origin = policy.origin(row.url)
        transaction.update(WebhookDelivery, WebhookDelivery.id == row.id, url=origin)
        transaction.update(
            WebhookAttempt,
            WebhookAttempt.delivery_id == row.id,
            WebhookAttempt.url.is_not(None),
            url=origin,
        )


def _remove_old(database: Database, period: timedelta, *, limit: int) -> int:
    """Remove notifications that are older than ``period`` and have nothing left to send; return how many."""
    with database.transaction() as transaction:
        chosen = transaction.session.scalars(
            sa.select(WebhookNotification.id)
            .where(WebhookNotification.created_at < transaction.now(-period), _is_over())
            .order_by(WebhookNotification.created_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        ).all()
        _hold_deliveries(transaction, chosen)
        # Again: one of them may have been sent again meanwhile.
        over = transaction.session.scalars(
            sa.select(WebhookNotification.id).where(WebhookNotification.id.in_(chosen), _is_over())
        ).all()
        _remove(transaction, over)
        return len(over)


def _hold_deliveries(transaction: Transaction, events: Collection[uuid.UUID]) -> None:
    """Lock the deliveries of events, in the order in which a recovery locks several of them.

    A transaction that sends one of them again either comes first, or waits and finds nothing to send.
    """
    transaction.execute(
        sa.select(WebhookDelivery.id)
        .where(WebhookDelivery.notification_id.in_(events))
        .order_by(WebhookDelivery.id)
        .with_for_update()
    )


def _is_over() -> sa.ColumnElement[bool]:
    """Return the condition of a notification with nothing left to send: no delivery is pending or sent again."""
    pending = sa.select(WebhookDelivery.id).where(
        WebhookDelivery.notification_id == WebhookNotification.id, _has_more()
    )
    return ~sa.exists(pending.correlate(WebhookNotification))


def _has_more() -> sa.ColumnElement[bool]:
    """Return the condition of a delivery to be pending or sent again."""
    attempts = sa.select(WebhookAttempt.id).where(
        WebhookAttempt.delivery_id == WebhookDelivery.id, WebhookAttempt.state != AttemptState.ENDED
    )
    return sa.or_(
        WebhookDelivery.status == DeliveryStatus.PENDING,
        sa.exists(attempts.correlate(WebhookDelivery)),
    )


def _remove(transaction: Transaction, events: Collection[uuid.UUID]) -> None:
    deliveries = sa.select(WebhookDelivery.id).where(WebhookDelivery.notification_id.in_(events))
    transaction.delete(WebhookAttempt, WebhookAttempt.delivery_id.in_(deliveries))
    transaction.delete(WebhookDelivery, WebhookDelivery.notification_id.in_(events))
    transaction.delete(WebhookNotification, WebhookNotification.id.in_(events))
