"""The tables of webhooks: endpoints, secrets, queues, notifications, deliveries, attempts. See :mod:`jobs.records`.

Secrets are sealed by the vault, never plain.
"""

import uuid
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from jobs.records.declarative import Record, enumeration, partial_index
from webhooks.policy import AttemptKind, AttemptOutcome, AttemptState, DeliveryStatus


class WebhookEndpoint(Record):
    """A receiver that an account has registered. A deleted one stays, without its secrets: deliveries refer to it."""

    __tablename__ = "webhook_endpoints"
    __table_args__ = (sa.Index(None, "account_id", "id"),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    account_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("accounts.id"))
    name: Mapped[str]
    url: Mapped[str]
    event_types: Mapped[list[str]]
    #: Sealed; None once the endpoint is deleted.
    secret: Mapped[bytes | None]
    #: The last characters of the secret, to identify it.
    redacted_secret: Mapped[str]
    #: Sealed; also signs until it expires.
    previous_secret: Mapped[bytes | None]
    previous_expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    #: When the configuration or the secret last changed.
    updated_at: Mapped[datetime]
    disabled_at: Mapped[datetime | None]
    #: ``gone`` (410), ``failing`` (five days) or ``requested``.
    disabled_reason: Mapped[str | None]
    #: The first automatic attempt that failed since the last success; None: none failed.
    failing_since: Mapped[datetime | None]
    last_failed_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]


class WebhookSecret(Record):
    """The secret that signs the messages to URLs of an account's jobs."""

    __tablename__ = "webhook_secrets"

    account_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("accounts.id"), primary_key=True)
    secret: Mapped[bytes]
    redacted_secret: Mapped[str]
    previous_secret: Mapped[bytes | None]
    previous_expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class SigningKey(Record):
    """The installation's ed25519 key, whose public part verifies the ``v1a`` signatures. There is one row."""

    __tablename__ = "signing_keys"
    __table_args__ = (sa.CheckConstraint("number = 1", name="number"),)

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    #: Sealed.
    private_key: Mapped[bytes]
    #: ``whpk_…``.
    public_key: Mapped[str]
    created_at: Mapped[datetime]


class WebhookQueue(Record):
    """A queue of attempts: one for each endpoint (with its id), one for each origin of an account's job URLs.

    A job's URL that failed has a queue of its own, which counts its failures and, once it is slow, holds its attempts.
    """

    __tablename__ = "webhook_queues"
    __table_args__ = (
        # For the purge.
        partial_index(
            "ix_webhook_queues_of_urls", "served_at", where="origin_queue_id IS NOT NULL"
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    account_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("accounts.id"))
    #: Scheme, host and port, the only part of a URL that is shown.
    origin: Mapped[str]
    #: Of the queue of one URL: the queue of its origin.
    origin_queue_id: Mapped[uuid.UUID | None]
    #: Automatic attempts in a row that failed. The queue of an origin is never slow: its URLs are judged each alone.
    failures: Mapped[int]
    #: When its receiver last accepted a message; before the first one it has one attempt at a time.
    delivered_at: Mapped[datetime | None]
    #: When one of its attempts was last claimed; of the queue of one URL also when one last failed.
    served_at: Mapped[datetime | None]
    #: Whether a user requested the attempt that was claimed last: the oldest one has the next turn.
    requested_last: Mapped[bool] = mapped_column(server_default=sa.false())


class WebhookNotification(Record):
    """A notification: something that happened, with the payload, the same bytes for all targets and attempts."""

    __tablename__ = "webhook_notifications"
    __table_args__ = (
        sa.Index(None, "job_id", "id"),
        # For the retention periods.
        sa.Index(None, "created_at"),
        # For the removal of an account.
        sa.Index(None, "account_id", "id"),
        partial_index(
            "ix_webhook_notifications_unreduced",
            "created_at",
            where="reduced_at IS NULL AND job_id IS NOT NULL",
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    account_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("accounts.id"))
    type: Mapped[str]
    job_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("jobs.id"))
    payload: Mapped[bytes]
    created_at: Mapped[datetime]
    #: When the job's answer was removed from the payload, because the job was deleted or old.
    reduced_at: Mapped[datetime | None]


class WebhookDelivery(Record):
    """A notification and one of its targets."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        sa.UniqueConstraint("notification_id", "queue_id", "url"),
        sa.Index(None, "endpoint_id", "id"),
        # For the foreign key, when a queue is removed.
        sa.Index(None, "queue_id"),
        partial_index("ix_webhook_deliveries_pending", "created_at", where="status = 'pending'"),
        partial_index("ix_webhook_deliveries_failed", "id", where="status = 'failed'"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    notification_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("webhook_notifications.id"))
    queue_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("webhook_queues.id"))
    endpoint_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("webhook_endpoints.id"))
    #: The job's own URL; empty for an endpoint, whose URL may change.
    url: Mapped[str]
    status: Mapped[DeliveryStatus] = mapped_column(enumeration(DeliveryStatus, "status"))
    #: Why it failed finally.
    error_code: Mapped[str | None]
    #: Attempts so far, the next one included.
    attempt_count: Mapped[int]
    created_at: Mapped[datetime]
    delivered_at: Mapped[datetime | None]


class WebhookAttempt(Record):
    """An attempt: due, being sent, or ended and final. It is claimed once; a lost one is replaced by another."""

    __tablename__ = "webhook_attempts"
    __table_args__ = (
        sa.UniqueConstraint("delivery_id", "number"),
        sa.CheckConstraint(
            "(state = 'sending') = (lease_expires_at IS NOT NULL)", name="lease_expires_at"
        ),
        sa.CheckConstraint("(state = 'ended') = (outcome IS NOT NULL)", name="ended"),
        partial_index(
            "ix_webhook_attempts_queue", "queue_id", "due_at", "id", where="state = 'due'"
        ),
        partial_index(
            "ix_webhook_attempts_requested",
            "queue_id",
            "due_at",
            "id",
            where="state = 'due' AND kind IN ('manual', 'test')",
        ),
        # For the purge of queues.
        sa.Index(None, "queue_id"),
        partial_index("ix_webhook_attempts_due", "due_at", where="state = 'due'"),
        # For reports about a time.
        partial_index("ix_webhook_attempts_ended", "ended_at", where="ended_at IS NOT NULL"),
        partial_index(
            "ix_webhook_attempts_sending", "queue_id", "lease_expires_at", where="state = 'sending'"
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    delivery_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("webhook_deliveries.id"))
    queue_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("webhook_queues.id"))
    number: Mapped[int]
    kind: Mapped[AttemptKind] = mapped_column(enumeration(AttemptKind, "kind"))
    #: The index of an automatic one in the schedule; 0 for the others.
    step: Mapped[int]
    state: Mapped[AttemptState] = mapped_column(enumeration(AttemptState, "state"))
    due_at: Mapped[datetime]
    owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    outcome: Mapped[AttemptOutcome | None] = mapped_column(enumeration(AttemptOutcome, "outcome"))
    #: Where it was sent.
    url: Mapped[str | None]
    #: As sent; signatures are not secret.
    request_headers: Mapped[dict[str, Any] | None]
    status_code: Mapped[int | None]
    #: Up to 16 KiB of the response.
    response_body: Mapped[bytes | None]
    error_code: Mapped[str | None]
    #: A sentence about the cause: which part of a certificate is not valid, how far a response came.
    error_detail: Mapped[str | None]
    #: From the connect to the end of the response.
    seconds: Mapped[float | None]
    #: The address that the receiver's name resolved to.
    address: Mapped[str | None]
    #: When the next automatic attempt is due.
    next_at: Mapped[datetime | None]


def in_state(state: AttemptState) -> sa.ColumnElement[bool]:
    """Return the condition of an attempt to be in ``state``.

    The value is written out: bound as a parameter it would hide the partial indexes from a prepared plan.
    """
    return WebhookAttempt.state == sa.literal(
        state, WebhookAttempt.state.type, literal_execute=True
    )


class WebhookRecovery(Record):
    """A request to resend all that an endpoint missed since a time; it runs in the background."""

    __tablename__ = "webhook_recoveries"
    __table_args__ = (partial_index("ix_webhook_recoveries_open", "id", where="ended_at IS NULL"),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    endpoint_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("webhook_endpoints.id"))
    since: Mapped[datetime]
    #: The last delivery that was examined.
    last_delivery_id: Mapped[uuid.UUID | None]
    #: Deliveries that got another attempt.
    resent: Mapped[int]
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
