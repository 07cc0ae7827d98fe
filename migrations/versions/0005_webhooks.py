"""Make room for webhooks: endpoints, secrets, events, deliveries, tries, and the view in which people read them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0003"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_TIME = sa.DateTime(timezone=True)

_DELIVERIES = """
CREATE VIEW history_deliveries AS
SELECT
    {delivery} AS delivery,
    {event} AS event,
    {job} AS job,
    accounts.name AS account,
    webhook_events.type,
    webhook_deliveries.status,
    {endpoint} AS endpoint,
    webhook_endpoints.name AS endpoint_name,
    webhook_lanes.origin,
    webhook_attempts.number AS attempt,
    webhook_attempts.kind,
    webhook_attempts.state,
    webhook_attempts.outcome,
    webhook_attempts.status_code,
    COALESCE(webhook_attempts.error_code, webhook_deliveries.error_code) AS error_code,
    webhook_attempts.seconds,
    webhook_attempts.address,
    webhook_events.created_at,
    webhook_attempts.due_at,
    webhook_attempts.started_at,
    webhook_attempts.ended_at,
    webhook_attempts.next_at,
    webhook_deliveries.delivered_at,
    webhook_deliveries.id AS delivery_id,
    webhook_events.job_id
FROM webhook_attempts
JOIN webhook_deliveries ON webhook_deliveries.id = webhook_attempts.delivery_id
JOIN webhook_events ON webhook_events.id = webhook_deliveries.event_id
JOIN webhook_lanes ON webhook_lanes.id = webhook_deliveries.lane_id
JOIN accounts ON accounts.id = webhook_events.account_id
LEFT JOIN webhook_endpoints ON webhook_endpoints.id = webhook_deliveries.endpoint_id
"""


def upgrade() -> None:
    """Make the tables, the view, and the column in which a job says what it asks to be told."""
    op.add_column("jobs", sa.Column("webhook", _JSON, nullable=True))
    _keys()
    _events()
    _attempts()
    postgres = op.get_bind().dialect.name == "postgresql"
    shown = _shown_on_postgresql if postgres else _shown_on_sqlite
    op.execute(
        _DELIVERIES.format(
            delivery=shown("dlv", "webhook_deliveries.id"),
            event=shown("evt", "webhook_events.id"),
            job=shown("job", "webhook_events.job_id"),
            endpoint=shown("we", "webhook_deliveries.endpoint_id"),
        )
    )


def _keys() -> None:
    op.create_table(
        "webhook_endpoints",
        *_id(),
        _reference("webhook_endpoints", "account_id", "accounts"),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("event_types", _JSON, nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=True),
        sa.Column("secret_hint", sa.Text(), nullable=False),
        sa.Column("previous_secret", sa.LargeBinary(), nullable=True),
        sa.Column("previous_expires_at", _TIME, nullable=True),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.Column("disabled_at", _TIME, nullable=True),
        sa.Column("disabled_reason", sa.Text(), nullable=True),
        sa.Column("failing_since", _TIME, nullable=True),
        sa.Column("last_failed_at", _TIME, nullable=True),
        sa.Column("deleted_at", _TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_endpoints"),
    )
    op.create_index("ix_webhook_endpoints_account_id_id", "webhook_endpoints", ["account_id", "id"])
    op.create_table(
        "webhook_secrets",
        _reference("webhook_secrets", "account_id", "accounts"),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("secret_hint", sa.Text(), nullable=False),
        sa.Column("previous_secret", sa.LargeBinary(), nullable=True),
        sa.Column("previous_expires_at", _TIME, nullable=True),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("account_id", name="pk_webhook_secrets"),
    )
    op.create_table(
        "signing_keys",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("private_key", sa.LargeBinary(), nullable=False),
        sa.Column("public_key", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.CheckConstraint("number = 1", name=op.f("ck_signing_keys_number")),
        sa.PrimaryKeyConstraint("number", name="pk_signing_keys"),
    )
    op.create_table(
        "webhook_lanes",
        *_id(),
        _reference("webhook_lanes", "account_id", "accounts"),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("delivered_at", _TIME, nullable=True),
        sa.Column("served_at", _TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_lanes"),
    )
    op.create_table(
        "webhook_recoveries",
        *_id(),
        _reference("webhook_recoveries", "endpoint_id", "webhook_endpoints"),
        sa.Column("since", _TIME, nullable=False),
        sa.Column("reached", sa.Uuid(), nullable=True),
        sa.Column("resent", sa.Integer(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("ended_at", _TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_recoveries"),
    )
    _partial("ix_webhook_recoveries_open", "webhook_recoveries", ["id"], "ended_at IS NULL")


def _events() -> None:
    op.create_table(
        "webhook_events",
        *_id(),
        _reference("webhook_events", "account_id", "accounts"),
        sa.Column("type", sa.Text(), nullable=False),
        _reference("webhook_events", "job_id", "jobs", nullable=True),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("reduced_at", _TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_events"),
    )
    op.create_index("ix_webhook_events_job_id_id", "webhook_events", ["job_id", "id"])
    _partial("ix_webhook_events_of_no_job", "webhook_events", ["created_at"], "job_id IS NULL")
    op.create_table(
        "webhook_deliveries",
        *_id(),
        _reference("webhook_deliveries", "event_id", "webhook_events"),
        _reference("webhook_deliveries", "lane_id", "webhook_lanes"),
        _reference("webhook_deliveries", "endpoint_id", "webhook_endpoints", nullable=True),
        sa.Column("url", sa.Text(), nullable=False),
        _words("status", "pending", "delivered", "failed", name="status"),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("delivered_at", _TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_deliveries"),
        sa.UniqueConstraint(
            "event_id", "lane_id", "url", name="uq_webhook_deliveries_event_id_lane_id_url"
        ),
    )
    op.create_index(
        "ix_webhook_deliveries_endpoint_id_id", "webhook_deliveries", ["endpoint_id", "id"]
    )
    _partial(
        "ix_webhook_deliveries_pending", "webhook_deliveries", ["created_at"], "status = 'pending'"
    )


def _attempts() -> None:
    op.create_table(
        "webhook_attempts",
        *_id(),
        _reference("webhook_attempts", "delivery_id", "webhook_deliveries"),
        _reference("webhook_attempts", "lane_id", "webhook_lanes"),
        sa.Column("number", sa.Integer(), nullable=False),
        _words("kind", "automatic", "manual", "recover", "test", name="kind"),
        sa.Column("step", sa.Integer(), nullable=False),
        _words("state", "due", "sending", "ended", name="state"),
        sa.Column("due_at", _TIME, nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("lease_expires_at", _TIME, nullable=True),
        sa.Column("started_at", _TIME, nullable=True),
        sa.Column("ended_at", _TIME, nullable=True),
        _words("outcome", "delivered", "failed", "lost", "skipped", name="outcome", nullable=True),
        sa.Column("url", sa.Text(), nullable=True),
        sa.Column("request_headers", _JSON, nullable=True),
        sa.Column("status_code", sa.Integer(), nullable=True),
        sa.Column("answer", sa.LargeBinary(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column("next_at", _TIME, nullable=True),
        sa.CheckConstraint(
            "(state = 'sending') = (lease_expires_at IS NOT NULL)",
            name=op.f("ck_webhook_attempts_lease_expires_at"),
        ),
        sa.CheckConstraint(
            "(state = 'ended') = (outcome IS NOT NULL)", name=op.f("ck_webhook_attempts_ended")
        ),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_attempts"),
        sa.UniqueConstraint("delivery_id", "number", name="uq_webhook_attempts_delivery_id_number"),
    )
    due = "state = 'due'"
    _partial("ix_webhook_attempts_lane", "webhook_attempts", ["lane_id", "due_at", "id"], due)
    _partial("ix_webhook_attempts_due", "webhook_attempts", ["due_at"], due)
    _partial(
        "ix_webhook_attempts_sending",
        "webhook_attempts",
        ["lane_id", "lease_expires_at"],
        "state = 'sending'",
    )


def downgrade() -> None:
    """Drop them, and with them all that was told and is still to be told."""
    op.execute("DROP VIEW history_deliveries")
    for table in (
        "webhook_attempts",
        "webhook_deliveries",
        "webhook_events",
        "webhook_recoveries",
        "webhook_lanes",
        "signing_keys",
        "webhook_secrets",
        "webhook_endpoints",
    ):
        op.drop_table(table)
    op.drop_column("jobs", "webhook")


def _id() -> tuple[sa.Column[Any]]:
    return (sa.Column("id", sa.Uuid(), nullable=False),)


def _reference(table: str, column: str, other: str, *, nullable: bool = False) -> sa.Column[Any]:
    """Return a column that refers to another table's key."""
    key = sa.ForeignKey(f"{other}.id", name=f"fk_{table}_{column}_{other}")
    return sa.Column(column, sa.Uuid(), key, nullable=nullable)


def _words(column: str, *words: str, name: str, nullable: bool = False) -> sa.Column[Any]:
    """Return a text column that holds one of ``words``."""
    kind = sa.Enum(*words, name=name, native_enum=False, create_constraint=True, length=16)
    return sa.Column(column, kind, nullable=nullable)


def _partial(name: str, table: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, postgresql_where=where, sqlite_where=where)


def _shown_on_postgresql(kind: str, column: str) -> str:
    return f"'{kind}_' || replace(CAST({column} AS text), '-', '')"


def _shown_on_sqlite(kind: str, column: str) -> str:
    return f"'{kind}_' || {column}"
