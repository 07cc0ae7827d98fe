"""The tables of what is told to receivers: endpoints, secrets, events, deliveries, tries. Typed as :mod:`jobs.records`.

Secrets are in here as the vault sealed them, never as they are.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from jobs.delivery import AttemptKind, AttemptOutcome, AttemptState, DeliveryStatus
from jobs.records import Record

__all__ = [
    "Record",
    "SigningKey",
    "WebhookAttempt",
    "WebhookDelivery",
    "WebhookEndpoint",
    "WebhookNotification",
    "WebhookQueue",
    "WebhookRecovery",
    "WebhookSecret",
]


class WebhookEndpoint(Record):
    """A receiver that an account has registered. A deleted one stays, without its secrets, for its deliveries' sake."""

    __tablename__ = "webhook_endpoints"
    __table_args__ = (sa.Index(None, "account_id", "id"),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    account_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("accounts.id"))
    name: Mapped[str]
    url: Mapped[str]
    event_types: Mapped[list[str]]
    #: Sealed; None once it is deleted.
    secret: Mapped[bytes | None]
    #: The last characters of the secret, to recognise it by.
    redacted_secret: Mapped[str]
    #: Sealed; signs beside the new one until it expires.
    previous_secret: Mapped[bytes | None]
    previous_expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    #: When its configuration or its secret last changed.
    updated_at: Mapped[datetime]
    disabled_at: Mapped[datetime | None]
    #: ``gone`` (410), ``failing`` (five days) or ``requested``.
    disabled_reason: Mapped[str | None]
    #: The first automatic failure since the last success; None while all is well.
    failing_since: Mapped[datetime | None]
    last_failed_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]


class WebhookSecret(Record):
    """What signs the webhooks of an account's jobs that go to URLs of their own."""

    __tablename__ = "webhook_secrets"

    account_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("accounts.id"), primary_key=True)
    secret: Mapped[bytes]
    redacted_secret: Mapped[str]
    previous_secret: Mapped[bytes | None]
    previous_expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class SigningKey(Record):
    """The installation's own ed25519 key, by which everybody can verify (``v1a``). There is one row."""

    __tablename__ = "signing_keys"
    __table_args__ = (sa.CheckConstraint("number = 1", name="number"),)

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    #: Sealed.
    private_key: Mapped[bytes]
    #: ``whpk_…``.
    public_key: Mapped[str]
    created_at: Mapped[datetime]


class WebhookQueue(Record):
    """What tries queue up in: one for each endpoint (same id), one for each origin of an account's own URLs."""

    __tablename__ = "webhook_queues"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    account_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("accounts.id"))
    #: Scheme, host and port, which is all of a URL that is shown.
    origin: Mapped[str]
    #: Automatic failures in a row.
    failures: Mapped[int]
    #: When it last took something: until then it gets one try at a time.
    delivered_at: Mapped[datetime | None]
    #: When it last had its turn.
    served_at: Mapped[datetime | None]


class WebhookNotification(Record):
    """Something that happened, as it is told: the same bytes to everybody, at every try."""

    __tablename__ = "webhook_notifications"
    __table_args__ = (
        sa.Index(None, "job_id", "id"),
        # Those of no job are old by themselves.
        sa.Index(
            "ix_webhook_notifications_of_no_job",
            "created_at",
            postgresql_where=sa.text("job_id IS NULL"),
            sqlite_where=sa.text("job_id IS NULL"),
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    account_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("accounts.id"))
    type: Mapped[str]
    job_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("jobs.id"))
    payload: Mapped[bytes]
    created_at: Mapped[datetime]
    #: When the job's answer was taken out of the payload, because it was deleted or had become old.
    reduced_at: Mapped[datetime | None]


class WebhookDelivery(Record):
    """An event and one of those who are told."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        sa.UniqueConstraint("notification_id", "queue_id", "url"),
        sa.Index(None, "endpoint_id", "id"),
        sa.Index(
            "ix_webhook_deliveries_pending",
            "created_at",
            postgresql_where=sa.text("status = 'pending'"),
            sqlite_where=sa.text("status = 'pending'"),
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    notification_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("webhook_notifications.id"))
    queue_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("webhook_queues.id"))
    endpoint_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("webhook_endpoints.id"))
    #: The job's own URL; empty for an endpoint, which has its own and may change it.
    url: Mapped[str]
    status: Mapped[DeliveryStatus]
    #: Why it failed for good.
    error_code: Mapped[str | None]
    #: Tries so far, the next one included.
    attempt_count: Mapped[int]
    created_at: Mapped[datetime]
    delivered_at: Mapped[datetime | None]


class WebhookAttempt(Record):
    """A try: due, being sent, or ended and never changed again. It is claimed once; a lost one gets a successor."""

    __tablename__ = "webhook_attempts"
    __table_args__ = (
        sa.UniqueConstraint("delivery_id", "number"),
        sa.CheckConstraint(
            "(state = 'sending') = (lease_expires_at IS NOT NULL)", name="lease_expires_at"
        ),
        sa.CheckConstraint("(state = 'ended') = (outcome IS NOT NULL)", name="ended"),
        sa.Index(
            "ix_webhook_attempts_queue",
            "queue_id",
            "due_at",
            "id",
            postgresql_where=sa.text("state = 'due'"),
            sqlite_where=sa.text("state = 'due'"),
        ),
        sa.Index(
            "ix_webhook_attempts_due",
            "due_at",
            postgresql_where=sa.text("state = 'due'"),
            sqlite_where=sa.text("state = 'due'"),
        ),
        sa.Index(
            "ix_webhook_attempts_sending",
            "queue_id",
            "lease_expires_at",
            postgresql_where=sa.text("state = 'sending'"),
            sqlite_where=sa.text("state = 'sending'"),
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    delivery_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("webhook_deliveries.id"))
    queue_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("webhook_queues.id"))
    number: Mapped[int]
    kind: Mapped[AttemptKind]
    #: The place of an automatic one in the schedule, 0 is the first; of the others 0.
    step: Mapped[int]
    state: Mapped[AttemptState]
    due_at: Mapped[datetime]
    owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    outcome: Mapped[AttemptOutcome | None]
    #: Where it went.
    url: Mapped[str | None]
    #: As sent; signatures are no secrets.
    request_headers: Mapped[dict[str, Any] | None]
    status_code: Mapped[int | None]
    #: Up to 16 KiB of it.
    response_body: Mapped[bytes | None]
    error_code: Mapped[str | None]
    #: From connecting to the end of the answer.
    seconds: Mapped[float | None]
    #: The address that the receiver's name stood for.
    address: Mapped[str | None]
    #: When the next automatic one is due.
    next_at: Mapped[datetime | None]


class WebhookRecovery(Record):
    """Somebody asked for all that an endpoint missed since a time; it is worked off in the background."""

    __tablename__ = "webhook_recoveries"
    __table_args__ = (
        sa.Index(
            "ix_webhook_recoveries_open",
            "id",
            postgresql_where=sa.text("ended_at IS NULL"),
            sqlite_where=sa.text("ended_at IS NULL"),
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    endpoint_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("webhook_endpoints.id"))
    since: Mapped[datetime]
    #: The last delivery that was looked at.
    last_delivery_id: Mapped[uuid.UUID | None]
    #: Deliveries that got another try.
    resent: Mapped[int]
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
