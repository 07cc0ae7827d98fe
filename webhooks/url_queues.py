"""The queues of jobs' own URLs that failed: each URL is judged for itself, whatever its query.

A URL gets a row with its first failure, which counts the failures in a row. From :data:`webhooks.policy.TRIP` of them
on, its attempts wait in this queue instead of its origin's; its next success moves them back. The retention
period of notifications removes the rows.
"""

import uuid
from datetime import timedelta
from typing import Final

import sqlalchemy as sa

from core.database import Database, Transaction
from webhooks import policy
from webhooks.policy import AttemptState
from webhooks.tables import WebhookAttempt, WebhookDelivery, WebhookQueue, in_state

#: Attempts that are moved with one result; the next result moves more.
_MOVED: Final = 1000


def failed(
    transaction: Transaction, origin_queue_id: uuid.UUID, url: str, *, account_id: uuid.UUID
) -> None:
    """Count a failure of ``url``; once it is slow, move its attempts to its queue."""
    queue_id = policy.url_queue(origin_queue_id, url)
    row = transaction.insert(WebhookQueue).values(
        id=queue_id,
        account_id=account_id,
        origin=policy.origin(url),
        origin_queue_id=origin_queue_id,
        failures=1,
        served_at=transaction.now(),
    )
    failures = transaction.scalar(
        row.on_conflict_do_update(
            index_elements=["id"],
            set_={"failures": WebhookQueue.failures + 1, "served_at": transaction.now()},
        ).returning(WebhookQueue.failures)
    )
    if failures >= policy.TRIP:
        base = policy.without_query(url)
        same = sa.or_(
            WebhookDelivery.url == base,
            *(
                sa.func.substr(WebhookDelivery.url, 1, len(base) + 1) == base + separator
                for separator in "?#"
            ),
        )
        _move(transaction, origin_queue_id, queue_id, same)


def recovered(transaction: Transaction, origin_queue_id: uuid.UUID, url: str) -> None:
    """Forget the failures of ``url``, and move its attempts back to the queue of its origin."""
    queue_id = policy.url_queue(origin_queue_id, url)
    known = transaction.execute(
        sa.update(WebhookQueue)
        .where(WebhookQueue.id == queue_id)
        .values(failures=0)
        .returning(WebhookQueue.id)
    ).first()
    if known is None:
        return
    _move(transaction, queue_id, origin_queue_id, sa.true())


def remove_old(database: Database, period: timedelta, *, limit: int) -> int:
    """Remove queues of URLs that have no attempts, and whose last one is older than ``period``; return how many.

    A transaction that writes an attempt locks the key of its queue first: see :mod:`webhooks.notifications`.
    """
    used = sa.exists().where(WebhookAttempt.queue_id == WebhookQueue.id)
    with database.transaction() as transaction:
        chosen = transaction.session.scalars(
            sa.select(WebhookQueue.id)
            .where(
                WebhookQueue.origin_queue_id.is_not(None),
                WebhookQueue.served_at < transaction.now(-period),
                ~used,
            )
            .order_by(WebhookQueue.served_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        ).all()
        # Again: one of them may have got an attempt just before it was locked.
        transaction.delete(WebhookQueue, WebhookQueue.id.in_(chosen), ~used)
        return len(chosen)


def _move(
    transaction: Transaction,
    source: uuid.UUID,
    target: uuid.UUID,
    condition: sa.ColumnElement[bool],
) -> None:
    """Move due attempts. Those that another transaction has locked stay where they are, and are sent from there."""
    chosen = (
        transaction.execute(
            sa.select(WebhookAttempt.id)
            .join(WebhookDelivery, WebhookDelivery.id == WebhookAttempt.delivery_id)
            .where(
                WebhookAttempt.queue_id == source,
                in_state(AttemptState.DUE),
                condition,
            )
            .order_by(WebhookAttempt.due_at, WebhookAttempt.id)
            .limit(_MOVED)
            .with_for_update(of=WebhookAttempt, skip_locked=True, key_share=True)
        )
        .scalars()
        .all()
    )
    transaction.update(WebhookAttempt, WebhookAttempt.id.in_(chosen), queue_id=target)
