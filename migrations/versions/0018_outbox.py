"""Add the outbox, and index what retention periods remove of webhooks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_UNREDUCED = "reduced_at IS NULL AND job_id IS NOT NULL"
_OF_NO_JOB = "job_id IS NULL"


def upgrade() -> None:
    """Add the table, empty, and exchange the indexes."""
    op.create_table(
        "outbox",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column(
            "status",
            sa.Enum(
                "queued",
                "running",
                "succeeded",
                "failed",
                "cancelled",
                name="status",
                native_enum=False,
                create_constraint=True,
                length=16,
            ),
            nullable=False,
        ),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_outbox_job_id_jobs")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_outbox_account_id_accounts")
        ),
    )
    op.create_index("ix_outbox_account_id_id", "outbox", ["account_id", "id"])
    op.drop_index("ix_webhook_events_of_no_job", "webhook_events")
    op.create_index("ix_webhook_events_created_at", "webhook_events", ["created_at"])
    op.create_index(
        "ix_webhook_events_unreduced",
        "webhook_events",
        ["created_at"],
        postgresql_where=sa.text(_UNREDUCED),
        sqlite_where=sa.text(_UNREDUCED),
    )


def downgrade() -> None:
    """Drop the table, and exchange the indexes."""
    op.drop_index("ix_webhook_events_unreduced", "webhook_events")
    op.drop_index("ix_webhook_events_created_at", "webhook_events")
    op.create_index(
        "ix_webhook_events_of_no_job",
        "webhook_events",
        ["created_at"],
        postgresql_where=sa.text(_OF_NO_JOB),
        sqlite_where=sa.text(_OF_NO_JOB),
    )
    op.drop_table("outbox")
