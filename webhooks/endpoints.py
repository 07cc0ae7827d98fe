"""Registered receivers: create, list, update, delete, rotate, disable, enable, recover.

Secrets are sealed by the vault. Each function takes the account of the caller, None for any; an endpoint of another
account does not exist for it.

A function that changes what an endpoint listens to first fans out what the outbox has of the account
(:mod:`webhooks.outbox`): earlier events follow the earlier configuration.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from core import errors, ids, ordered_ids
from core.database import Database, Transaction
from jobs.store import erased_accounts
from jobs.store.outbox import NotificationsDue
from webhooks import notifications, outbox, policy
from webhooks.policy import EventType
from webhooks.tables import WebhookEndpoint, WebhookQueue, WebhookRecovery

#: The health of an endpoint that has not failed.
_HEALTHY: Final[Mapping[str, Any]] = {"failing_since": None, "last_failed_at": None}
#: Endpoints of an account: an event makes a delivery for each. Two that are created at once may exceed it by one.
MOST: Final = 500
#: Endpoints that an account creates in 24 hours: deleted ones keep their rows, which no quota counts.
MOST_A_DAY: Final = 1000
#: Recoveries of an endpoint that are running, and ended ones that are kept.
MOST_RECOVERIES: Final = 10
#: How long an old secret also signs.
OVERLAP: Final = timedelta(hours=24)


@dataclass(frozen=True)
class StoredSecret:
    """A secret as it is stored: sealed, with its last characters to identify it."""

    sealed: bytes = field(repr=False)
    redacted: str


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
    """Register a receiver of what happens from now on.

    Raises:
        core.errors.Conflict: the account has ``most`` endpoints, or has created ``most_a_day`` within 24 hours.
        core.errors.Unauthenticated: the account is erased.
    """
    with database.transaction() as transaction:
        endpoint_id = ordered_ids.new(transaction)
        existing = sa.select(sa.func.count()).where(
            WebhookEndpoint.account_id == account_id, WebhookEndpoint.deleted_at.is_(None)
        )
        if transaction.execute(existing).scalar_one() >= most:
            raise errors.Conflict(f"An account can have at most {most} webhook endpoints.")
        created = (
            sa.select(WebhookEndpoint.created_at > transaction.now(-timedelta(days=1)))
            .where(WebhookEndpoint.account_id == account_id)
            .order_by(WebhookEndpoint.id.desc())
            .offset(most_a_day - 1)
            .limit(1)
        )
        if transaction.execute(created).scalar_one_or_none():
            raise errors.Conflict(
                f"An account can create at most {most_a_day:,} webhook endpoints within 24 hours; "
                "deleted ones count."
            )
        outbox.fan_out_account(transaction, account_id)
        transaction.execute(
            sa.insert(WebhookEndpoint).values(
                id=endpoint_id,
                account_id=account_id,
                name=name,
                url=url,
                event_types=list(event_types),
                secret=secret.sealed,
                redacted_secret=secret.redacted,
                created_at=transaction.now(),
                updated_at=transaction.now(),
            )
        )
        notifications.open_queue(
            transaction, endpoint_id, account_id=account_id, origin=policy.origin(url)
        )
        erased_accounts.refuse(transaction, account_id)
        return transaction.session.get_one(WebhookEndpoint, endpoint_id)


def get(
    database: Database, endpoint_id: uuid.UUID, *, account_id: uuid.UUID | None
) -> WebhookEndpoint | None:
    """Return an endpoint, None if it does not exist."""
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
        end = None if newest_first else ordered_ids.bound(transaction)
        if end is not None:
            statement = statement.where(WebhookEndpoint.id < end)
        rows = transaction.session.scalars(statement.order_by(order).limit(limit + 1)).all()
        return list(rows[:limit]), len(rows) > limit


def update(
    database: Database,
    endpoint_id: uuid.UUID,
    *,
    account_id: uuid.UUID | None,
    name: str | None = None,
    url: str | None = None,
    event_types: Sequence[str] | None = None,
) -> WebhookEndpoint | None:
    """Change an endpoint; ``updated_at`` changes only with something else. None if there is no such endpoint."""
    values: dict[str, Any] = {"name": name, "url": url}
    values["event_types"] = None if event_types is None else list(event_types)
    with database.transaction() as transaction:
        endpoint = _find(transaction, endpoint_id, account_id, lock=True)
        if endpoint is None:
            return None
        changed = {
            key: value
            for key, value in values.items()
            if value is not None and value != getattr(endpoint, key)
        }
        if changed:
            outbox.fan_out_account(transaction, endpoint.account_id)
            changed["updated_at"] = transaction.now()
            if "url" in changed:
                # Another receiver: it is not judged by the failures of the one before.
                changed |= _HEALTHY
            transaction.update(WebhookEndpoint, WebhookEndpoint.id == endpoint_id, **changed)
        if "url" in changed:
            origin = policy.origin(changed["url"])
            transaction.update(
                WebhookQueue,
                WebhookQueue.id == endpoint_id,
                origin=origin,
                failures=0,
                delivered_at=None,
            )
        return transaction.session.get_one(WebhookEndpoint, endpoint_id, populate_existing=True)


def delete(database: Database, endpoint_id: uuid.UUID, *, account_id: uuid.UUID | None) -> bool:
    """Delete an endpoint and its secrets. Its pending deliveries fail; the history stays."""
    with database.transaction() as transaction:
        endpoint = _find(transaction, endpoint_id, account_id, lock=True)
        if endpoint is None:
            return False
        outbox.fan_out_account(transaction, endpoint.account_id)
        transaction.update(
            WebhookEndpoint,
            WebhookEndpoint.id == endpoint_id,
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
    """Give an endpoint a new secret; with ``keep_old`` the old one also signs for :data:`OVERLAP`."""
    with database.transaction() as transaction:
        endpoint = _find(transaction, endpoint_id, account_id, lock=True)
        if endpoint is None:
            return None
        transaction.update(
            WebhookEndpoint,
            WebhookEndpoint.id == endpoint_id,
            secret=secret.sealed,
            redacted_secret=secret.redacted,
            previous_secret=endpoint.secret if keep_old else None,
            previous_expires_at=transaction.now(OVERLAP) if keep_old else None,
            updated_at=transaction.now(),
        )
        return transaction.session.get_one(WebhookEndpoint, endpoint_id, populate_existing=True)


def enable(
    database: Database, endpoint_id: uuid.UUID, *, account_id: uuid.UUID | None
) -> WebhookEndpoint | None:
    """Enable an endpoint, with a clean health record, disabled or not. Attempts that are still due stay as planned."""
    with database.transaction() as transaction:
        endpoint = _find(transaction, endpoint_id, account_id, lock=True)
        if endpoint is None:
            return None
        health = dict(_HEALTHY)
        if endpoint.disabled_at is not None:
            outbox.fan_out_account(transaction, endpoint.account_id)
            health |= {
                "disabled_at": None,
                "disabled_reason": None,
                "updated_at": transaction.now(),
            }
        transaction.update(WebhookEndpoint, WebhookEndpoint.id == endpoint_id, **health)
        transaction.update(WebhookQueue, WebhookQueue.id == endpoint_id, failures=0)
        return transaction.session.get_one(WebhookEndpoint, endpoint_id, populate_existing=True)


def disable(transaction: Transaction, endpoint: WebhookEndpoint, *, reason: str) -> bool:
    """Disable an endpoint and notify the account's others that listen; False if it was disabled already."""
    disabled = transaction.execute(
        sa.update(WebhookEndpoint)
        .where(
            WebhookEndpoint.id == endpoint.id,
            WebhookEndpoint.disabled_at.is_(None),
            WebhookEndpoint.deleted_at.is_(None),
        )
        .values(disabled_at=transaction.now(), disabled_reason=reason)
        .returning(WebhookEndpoint.disabled_at)
    ).first()
    if disabled is None:
        return False
    notifications.of_account(
        transaction,
        account_id=endpoint.account_id,
        event_type=EventType.ENDPOINT_DISABLED,
        data={
            "id": ids.show("we", endpoint.id),
            "object": "webhook_endpoint",
            "name": endpoint.name,
            "origin": policy.origin(endpoint.url),
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
    """Request a new attempt of all deliveries that failed since a time; the delivery process makes them.

    Returns:
        The recovery at its start; None if there is no such endpoint.

    Raises:
        core.errors.Conflict: :data:`MOST_RECOVERIES` of the endpoint are running. The same number of ended ones
            stays.
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
        transaction.notes.append(NotificationsDue())
        return transaction.session.get_one(WebhookRecovery, recovery_id)


def _make_room(transaction: Transaction, endpoint_id: uuid.UUID) -> None:
    """Delete the oldest ended recoveries of an endpoint. Raises :class:`core.errors.Conflict`."""
    recoveries = transaction.session.scalars(
        sa.select(WebhookRecovery)
        .where(WebhookRecovery.endpoint_id == endpoint_id)
        .order_by(WebhookRecovery.id.desc())
    ).all()
    ended = [recovery.id for recovery in recoveries if recovery.ended_at is not None]
    if len(recoveries) - len(ended) >= MOST_RECOVERIES:
        raise errors.Conflict(
            f"An endpoint can have at most {MOST_RECOVERIES} recoveries that are running."
        )
    transaction.delete(WebhookRecovery, WebhookRecovery.id.in_(ended[MOST_RECOVERIES:]))


def _find(
    transaction: Transaction,
    endpoint_id: uuid.UUID,
    account_id: uuid.UUID | None,
    *,
    lock: bool = False,
) -> WebhookEndpoint | None:
    # A transaction that writes a delivery refers to the row: a lock of the key would make it wait.
    statement = sa.select(WebhookEndpoint).where(
        WebhookEndpoint.id == endpoint_id, WebhookEndpoint.deleted_at.is_(None)
    )
    if account_id is not None:
        statement = statement.where(WebhookEndpoint.account_id == account_id)
    if lock:
        statement = statement.with_for_update(key_share=True)
    return transaction.session.scalars(statement).one_or_none()
