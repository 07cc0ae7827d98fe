"""Counts the bytes that an account's webhooks take, for :mod:`jobs.store.storage`."""

import uuid
from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

from core.database import Transaction
from jobs.store.storage import ByteSizes, StorageCounter, StorageKind
from webhooks.tables import WebhookAttempt, WebhookDelivery, WebhookNotification

#: Bytes that each row counts besides its texts: about what it takes with its indexes.
_EVENT_BYTES: Final = 512
_ATTEMPT_BYTES: Final = 512


def _count(
    transaction: Transaction, account_id: uuid.UUID, job_ids: Sequence[uuid.UUID] | None
) -> dict[StorageKind, int]:
    size = ByteSizes(transaction.dialect)
    of = (
        WebhookNotification.job_id.is_(None) & (WebhookNotification.account_id == account_id)
        if job_ids is None
        else WebhookNotification.job_id.in_(job_ids)
    )
    payloads = sa.select(
        sa.func.sum(size.binary(WebhookNotification.payload) + _EVENT_BYTES)
    ).where(of)
    attempt = (
        size.binary(WebhookAttempt.response_body) + size.text(WebhookAttempt.url) + _ATTEMPT_BYTES
    )
    attempts = (
        sa.select(sa.func.sum(attempt))
        .join(WebhookDelivery, WebhookDelivery.id == WebhookAttempt.delivery_id)
        .join(WebhookNotification, WebhookNotification.id == WebhookDelivery.notification_id)
        .where(of)
    )
    sums = [transaction.execute(counted).scalar_one() or 0 for counted in (payloads, attempts)]
    return {StorageKind.DELIVERIES: sum(sums)}


#: To be passed to :func:`jobs.store.storage.recount` and :func:`jobs.store.storage.stored`.
COUNTER: Final = StorageCounter(frozenset({StorageKind.DELIVERIES}), _count)
