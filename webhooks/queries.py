"""Reads deliveries, of a job, an endpoint or an account, with their attempts; and recoveries."""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import defer

from core import ordered_ids
from core.database import Database, Transaction
from jobs.records.declarative import table
from webhooks.policy import AttemptKind, AttemptState, DeliveryStatus
from webhooks.tables import (
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookNotification,
    WebhookQueue,
    WebhookRecovery,
)

#: Attempts of a delivery that a list shows: the newest, and besides them the next automatic one.
LISTED_ATTEMPTS: Final = 10
_DELIVERY_ID = table(WebhookDelivery).c.id


@dataclass(frozen=True)
class DeliveryView:
    """A delivery with its notification, the origin that it goes to, and its attempts, the first one first.

    In a list it has the newest :data:`LISTED_ATTEMPTS` and the one that is planned, without the long texts: the
    payload, and the headers and responses of attempts.
    """

    delivery: WebhookDelivery
    event: WebhookNotification
    origin: str
    attempts: tuple[WebhookAttempt, ...]

    @property
    def next_at(self) -> datetime | None:
        """When the next automatic attempt is due."""
        planned = [
            attempt.due_at
            for attempt in self.attempts
            if attempt.state is AttemptState.DUE and attempt.kind is AttemptKind.AUTOMATIC
        ]
        return min(planned, default=None)


def get(
    database: Database, delivery_id: uuid.UUID, *, account_id: uuid.UUID | None
) -> DeliveryView | None:
    """Return a delivery, None if it does not exist (in this account; None: in any)."""
    with database.reading() as transaction:
        statement = _views(account_id).where(WebhookDelivery.id == delivery_id)
        row = transaction.execute(statement).one_or_none()
        if row is None:
            return None
        delivery_attempts = _attempts().where(WebhookAttempt.delivery_id == delivery_id)
        return _view(row, transaction.session.scalars(delivery_attempts))


def of_job(
    database: Database, job_id: uuid.UUID, *, limit: int, after: uuid.UUID | None = None
) -> tuple[list[DeliveryView], bool]:
    """Return up to ``limit`` deliveries of a job beyond ``after``, oldest first, and whether there are more."""
    wanted = _views(None).where(WebhookNotification.job_id == job_id)
    with database.reading() as transaction:
        return _page(transaction, wanted, limit=limit, after=after, newest_first=False)


def of_endpoint(
    database: Database,
    endpoint_id: uuid.UUID,
    *,
    account_id: uuid.UUID | None,
    limit: int,
    after: uuid.UUID | None = None,
    statuses: Sequence[DeliveryStatus] = (),
) -> tuple[list[DeliveryView], bool]:
    """Return up to ``limit`` deliveries of an endpoint beyond ``after``, newest first, and whether there are more.

    It takes a share of the searches of ``account_id``, as :func:`of_account`.
    """
    wanted = _views(None, statuses).where(WebhookDelivery.endpoint_id == endpoint_id)
    with database.searching(account_id) as transaction:
        return _page(transaction, wanted, limit=limit, after=after)


def of_account(
    database: Database,
    *,
    account_id: uuid.UUID | None,
    limit: int,
    after: uuid.UUID | None = None,
    statuses: Sequence[DeliveryStatus] = (),
) -> tuple[list[DeliveryView], bool]:
    """Return up to ``limit`` deliveries of an account (None: of all), newest first, and whether there are more.

    It takes a share of the searches: a rare status, or an account with a few among many, is far to walk to.

    Raises:
        core.errors.Overloaded: the limit of concurrent searches is reached, and none ended in time.
        core.errors.SearchTooSlow: the list reached the deadline of searches.
    """
    with database.searching(account_id) as transaction:
        views = _views(account_id, statuses)
        # By the bare column, SQLite would walk all deliveries rather than sort the few that are pending.
        key: sa.ColumnElement[uuid.UUID] = _DELIVERY_ID
        if list(statuses) == [DeliveryStatus.PENDING]:
            key = sa.func.coalesce(_DELIVERY_ID, _DELIVERY_ID)
        return _page(transaction, views, limit=limit, after=after, key=key)


def recovery(
    database: Database, recovery_id: uuid.UUID, *, account_id: uuid.UUID | None
) -> WebhookRecovery | None:
    """Return a recovery, None if it does not exist (in this account; None: in any)."""
    statement = (
        sa.select(WebhookRecovery)
        .join(WebhookEndpoint, WebhookEndpoint.id == WebhookRecovery.endpoint_id)
        .where(WebhookRecovery.id == recovery_id)
    )
    if account_id is not None:
        statement = statement.where(WebhookEndpoint.account_id == account_id)
    with database.reading() as transaction:
        return transaction.session.scalars(statement).one_or_none()


def _views(
    account_id: uuid.UUID | None, statuses: Sequence[DeliveryStatus] = ()
) -> sa.Select[WebhookDelivery, WebhookNotification, str]:
    statement = (
        sa.select(WebhookDelivery, WebhookNotification, WebhookQueue.origin)
        .join(WebhookNotification, WebhookNotification.id == WebhookDelivery.notification_id)
        .join(WebhookQueue, WebhookQueue.id == WebhookDelivery.queue_id)
    )
    if account_id is not None:
        # By the bare column, SQLite would read all notifications of the account and sort their deliveries.
        by_account = sa.func.coalesce(
            WebhookNotification.account_id, WebhookNotification.account_id
        )
        statement = statement.where(by_account == account_id)
    if len(statuses) == 1:
        # Written out: bound as a parameter it would hide the partial indexes from a prepared plan.
        status = sa.literal(statuses[0], WebhookDelivery.status.type, literal_execute=True)
        return statement.where(WebhookDelivery.status == status)
    return statement.where(WebhookDelivery.status.in_(statuses)) if statuses else statement


def _attempts() -> sa.Select[WebhookAttempt]:
    return sa.select(WebhookAttempt).order_by(WebhookAttempt.delivery_id, WebhookAttempt.number)


def _page(
    transaction: Transaction,
    wanted: sa.Select[WebhookDelivery, WebhookNotification, str],
    *,
    limit: int,
    after: uuid.UUID | None,
    newest_first: bool = True,
    key: sa.ColumnElement[uuid.UUID] = _DELIVERY_ID,
) -> tuple[list[DeliveryView], bool]:
    """Return a page in the order of ``key``, the delivery's id in a form that leads to the best index."""
    if after is not None:
        wanted = wanted.where(key < after if newest_first else key > after)
    small = defer(WebhookNotification.payload, raiseload=True)
    page = wanted.options(small).order_by(key.desc() if newest_first else key)
    planned = sa.and_(
        WebhookAttempt.state == AttemptState.DUE, WebhookAttempt.kind == AttemptKind.AUTOMATIC
    )
    newest = WebhookAttempt.number > WebhookDelivery.attempt_count - LISTED_ATTEMPTS
    shown = (
        _attempts()
        .join(WebhookDelivery, WebhookAttempt.delivery_id == _DELIVERY_ID)
        .where(sa.or_(newest, planned))
        .options(
            defer(WebhookAttempt.response_body, raiseload=True),
            defer(WebhookAttempt.request_headers, raiseload=True),
        )
    )
    end = None if newest_first else ordered_ids.bound(transaction)
    if end is not None:
        page = page.where(end > _DELIVERY_ID)
    rows = transaction.execute(page.limit(limit + 1)).all()
    listed = [row.WebhookDelivery.id for row in rows[:limit]]
    attempts: dict[uuid.UUID, list[WebhookAttempt]] = {}
    for attempt in transaction.session.scalars(shown.where(WebhookAttempt.delivery_id.in_(listed))):
        attempts.setdefault(attempt.delivery_id, []).append(attempt)
    views = [_view(row, attempts.get(row.WebhookDelivery.id, ())) for row in rows[:limit]]
    return views, len(rows) > limit


def _view(row: sa.Row[Any], attempts: Iterable[WebhookAttempt]) -> DeliveryView:
    return DeliveryView(row.WebhookDelivery, row.WebhookNotification, row.origin, tuple(attempts))
