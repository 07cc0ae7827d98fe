"""Registered receivers: create, list, update, delete, rotate, disable, enable.

Secrets come in sealed by the vault and go out so. Each verb takes the account that asks, None for any; what is
another account's is not there.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from core import errors, ids
from core.database import Database, Transaction
from jobs import delivery
from jobs.delivery import EventType
from jobs.outbox import WebhookEndpoint, WebhookQueue, WebhookRecovery
from jobs.store import events

#: Endpoints of an account. Each of them is written to in the transaction that ends a job, which must not become long;
#: two that are made at the same time may pass it by one.
MOST: Final = 500
#: Endpoints that an account makes in 24 hours: those that it deletes keep their rows, which no quota counts.
MOST_A_DAY: Final = 1000
#: Recoveries of an endpoint that have not ended, and those that have ended and are remembered.
MOST_RECOVERIES: Final = 10
#: How long an old secret signs beside the new one.
OVERLAP: Final = timedelta(hours=24)


@dataclass(frozen=True)
class StoredSecret:
    """A secret as it is kept: sealed, and its last characters to recognise it by."""

    sealed: bytes = field(repr=False)
    hint: str


def create(
    database: Database,
    *,
    account_id: uuid.UUID,
    name: str,
    url: str,
    event_types: Sequence[str],
    secret: StoredSecret,
    most: int = MOST,
    most_a_day: int = MOST_A_DAY,
) -> WebhookEndpoint:
    """Register a receiver; it is told of what happens from now on.

    Raises:
        core.errors.Conflict: the account has ``most`` endpoints, or has made ``most_a_day`` within 24 hours.
    """
    endpoint_id = ids.new()
    with database.transaction() as transaction:
        stored = sa.select(sa.func.count()).where(
            WebhookEndpoint.account_id == account_id, WebhookEndpoint.deleted_at.is_(None)
        )
        if transaction.execute(stored).scalar_one() >= most:
            raise errors.Conflict(f"An account has {most} webhook endpoints at the most.")
        made = (
            sa.select(WebhookEndpoint.created_at > transaction.now(-timedelta(days=1)))
            .where(WebhookEndpoint.account_id == account_id)
            .order_by(WebhookEndpoint.id.desc())
            .offset(most_a_day - 1)
            .limit(1)
        )
        if transaction.execute(made).scalar_one_or_none():
            raise errors.Conflict(
                f"An account may make {most_a_day:,} webhook endpoints within 24 hours, deleted ones included."
            )
        transaction.execute(
            sa.insert(WebhookEndpoint).values(
                id=endpoint_id,
                account_id=account_id,
                name=name,
                url=url,
                event_types=list(event_types),
                secret=secret.sealed,
                secret_hint=secret.hint,
                created_at=transaction.now(),
                updated_at=transaction.now(),
            )
        )
        events.open_queue(
            transaction, endpoint_id, account_id=account_id, origin=delivery.origin(url)
        )
        return transaction.session.get_one(WebhookEndpoint, endpoint_id)


def get(
    database: Database, endpoint_id: uuid.UUID, *, account_id: uuid.UUID | None
) -> WebhookEndpoint | None:
    """Return an endpoint, or None when there is none."""
    with database.reading() as transaction:
        return _find(transaction, endpoint_id, account_id)


def exists(database: Database, endpoint_id: uuid.UUID, *, account_id: uuid.UUID | None) -> bool:
    """Whether there is such an endpoint (in this account; None: in any)."""
    wanted = sa.select(WebhookEndpoint.account_id).where(
        WebhookEndpoint.id == endpoint_id, WebhookEndpoint.deleted_at.is_(None)
    )
    with database.reading() as transaction:
        owner = transaction.execute(wanted).scalar_one_or_none()
        return owner is not None and account_id in (None, owner)


def page(
    database: Database,
    *,
    account_id: uuid.UUID | None,
    limit: int,
    after: uuid.UUID | None = None,
    newest_first: bool = True,
) -> tuple[list[WebhookEndpoint], bool]:
    """Return up to ``limit`` endpoints beyond ``after``, and whether there are more."""
    statement = sa.select(WebhookEndpoint).where(WebhookEndpoint.deleted_at.is_(None))
    if account_id is not None:
        statement = statement.where(WebhookEndpoint.account_id == account_id)
    if after is not None:
        beyond = WebhookEndpoint.id < after if newest_first else WebhookEndpoint.id > after
        statement = statement.where(beyond)
    order = WebhookEndpoint.id.desc() if newest_first else WebhookEndpoint.id.asc()
    with database.reading() as transaction:
        found = transaction.session.scalars(statement.order_by(order).limit(limit + 1)).all()
        return list(found[:limit]), len(found) > limit


def update(
    database: Database,
    endpoint_id: uuid.UUID,
    *,
    account_id: uuid.UUID | None,
    name: str | None = None,
    url: str | None = None,
    event_types: Sequence[str] | None = None,
) -> WebhookEndpoint | None:
    """Change what is given; ``updated_at`` moves when something did. None when there is no such endpoint."""
    requested: dict[str, Any] = {"name": name, "url": url}
    requested["event_types"] = None if event_types is None else list(event_types)
    with database.transaction() as transaction:
        endpoint = _find(transaction, endpoint_id, account_id, lock=True)
        if endpoint is None:
            return None
        changed = {
            key: value
            for key, value in requested.items()
            if value is not None and value != getattr(endpoint, key)
        }
        if changed:
            _set(transaction, endpoint_id, **changed, updated_at=transaction.now())
        if "url" in changed:
            _set_queue(transaction, endpoint_id, origin=delivery.origin(changed["url"]))
        return transaction.session.get_one(WebhookEndpoint, endpoint_id, populate_existing=True)


def delete(database: Database, endpoint_id: uuid.UUID, *, account_id: uuid.UUID | None) -> bool:
    """Delete an endpoint and its secrets. What was still to be told to it fails; the history stays."""
    with database.transaction() as transaction:
        if _find(transaction, endpoint_id, account_id, lock=True) is None:
            return False
        _set(
            transaction,
            endpoint_id,
            deleted_at=transaction.now(),
            secret=None,
            previous_secret=None,
            previous_expires_at=None,
        )
        return True


def rotate(
    database: Database,
    endpoint_id: uuid.UUID,
    *,
    account_id: uuid.UUID | None,
    secret: StoredSecret,
    keep_old: bool,
) -> WebhookEndpoint | None:
    """Give an endpoint a new secret; with ``keep_old`` the old one signs beside it for :data:`OVERLAP`."""
    with database.transaction() as transaction:
        endpoint = _find(transaction, endpoint_id, account_id, lock=True)
        if endpoint is None:
            return None
        _set(
            transaction,
            endpoint_id,
            secret=secret.sealed,
            secret_hint=secret.hint,
            previous_secret=endpoint.secret if keep_old else None,
            previous_expires_at=transaction.now(OVERLAP) if keep_old else None,
            updated_at=transaction.now(),
        )
        return transaction.session.get_one(WebhookEndpoint, endpoint_id, populate_existing=True)


def enable(
    database: Database, endpoint_id: uuid.UUID, *, account_id: uuid.UUID | None
) -> WebhookEndpoint | None:
    """Tell an endpoint of events again, as if it had never failed. Tries that are still due go on as planned."""
    with database.transaction() as transaction:
        endpoint = _find(transaction, endpoint_id, account_id, lock=True)
        if endpoint is None:
            return None
        if endpoint.disabled_at is not None:
            _set(
                transaction,
                endpoint_id,
                disabled_at=None,
                disabled_reason=None,
                failing_since=None,
                last_failed_at=None,
                updated_at=transaction.now(),
            )
            _set_queue(transaction, endpoint_id, failures=0)
        return transaction.session.get_one(WebhookEndpoint, endpoint_id, populate_existing=True)


def disable(transaction: Transaction, endpoint: WebhookEndpoint, *, reason: str) -> bool:
    """Disable an endpoint, and tell the account's others that listen; False when it was so already."""
    disabled = transaction.execute(
        sa.update(WebhookEndpoint)
        .where(WebhookEndpoint.id == endpoint.id, *events.listening())
        .values(disabled_at=transaction.now(), disabled_reason=reason)
        .returning(WebhookEndpoint.disabled_at)
    ).first()
    if disabled is None:
        return False
    events.of_account(
        transaction,
        account_id=endpoint.account_id,
        event_type=EventType.ENDPOINT_DISABLED,
        data={
            "id": ids.show("we", endpoint.id),
            "object": "webhook_endpoint",
            "name": endpoint.name,
            "origin": delivery.origin(endpoint.url),
            "reason": reason,
        },
    )
    return True


def recover(
    database: Database,
    endpoint_id: uuid.UUID,
    *,
    account_id: uuid.UUID | None,
    since: datetime,
) -> WebhookRecovery | None:
    """Ask for a new try of all that failed since a time; the delivery process works it off.

    Returns:
        The operation as it begins; None when there is no such endpoint.

    Raises:
        core.errors.Conflict: :data:`MOST_RECOVERIES` of the endpoint have not ended. Of those that have ended, as
            many are kept.
    """
    recovery_id = ids.new()
    with database.transaction() as transaction:
        if _find(transaction, endpoint_id, account_id, lock=True) is None:
            return None
        _make_room(transaction, endpoint_id)
        transaction.execute(
            sa.insert(WebhookRecovery).values(
                id=recovery_id,
                endpoint_id=endpoint_id,
                since=since,
                resent=0,
                created_at=transaction.now(),
            )
        )
        transaction.notes.append(events.DeliveriesDue(0))
        return transaction.session.get_one(WebhookRecovery, recovery_id)


def _make_room(transaction: Transaction, endpoint_id: uuid.UUID) -> None:
    """Forget the oldest recoveries of an endpoint that have ended. Raises :class:`core.errors.Conflict`."""
    known = transaction.session.scalars(
        sa.select(WebhookRecovery)
        .where(WebhookRecovery.endpoint_id == endpoint_id)
        .order_by(WebhookRecovery.id.desc())
    ).all()
    ended = [recovery.id for recovery in known if recovery.ended_at is not None]
    if len(known) - len(ended) >= MOST_RECOVERIES:
        raise errors.Conflict(
            f"An endpoint may have at most {MOST_RECOVERIES} recoveries that have not ended."
        )
    transaction.execute(
        sa.delete(WebhookRecovery).where(WebhookRecovery.id.in_(ended[MOST_RECOVERIES:]))
    )


def _find(
    transaction: Transaction,
    endpoint_id: uuid.UUID,
    account_id: uuid.UUID | None,
    *,
    lock: bool = False,
) -> WebhookEndpoint | None:
    # Whoever writes an event refers to the row: a lock of the key itself would make jobs wait.
    statement = sa.select(WebhookEndpoint).where(
        WebhookEndpoint.id == endpoint_id, WebhookEndpoint.deleted_at.is_(None)
    )
    if account_id is not None:
        statement = statement.where(WebhookEndpoint.account_id == account_id)
    if lock:
        statement = statement.with_for_update(key_share=True)
    return transaction.session.scalars(statement).one_or_none()


def _set(transaction: Transaction, endpoint_id: uuid.UUID, **values: Any) -> None:  # noqa: ANN401 - columns
    transaction.execute(
        sa.update(WebhookEndpoint).where(WebhookEndpoint.id == endpoint_id).values(values)
    )


def _set_queue(transaction: Transaction, lane_id: uuid.UUID, **values: Any) -> None:  # noqa: ANN401 - columns
    transaction.execute(sa.update(WebhookQueue).where(WebhookQueue.id == lane_id).values(values))
