"""Let accounts take turns in the queue, and let a key have a highest class."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_QUEUED = sa.text("lease_owner IS NULL AND finished_at IS NULL")


def _priority() -> sa.Enum:
    return sa.Enum(
        "high",
        "normal",
        "low",
        name="priority",
        native_enum=False,
        create_constraint=True,
        length=16,
    )


def upgrade() -> None:
    """Add the table, empty: workers add the turns of jobs that wait already."""
    op.create_table(
        "queue_turns",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("priority", _priority(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("next_turn", sa.BigInteger(), nullable=False),
        sa.Column("served_turn", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_queue_turns_account_id_accounts")
        ),
        sa.PrimaryKeyConstraint("account_id", "priority", name=op.f("pk_queue_turns")),
    )
    op.create_index("ix_queue_turns_next", "queue_turns", ["next_turn", "step", "account_id"])
    op.create_index(
        "ix_jobs_turn",
        "jobs",
        ["account_id", "priority", "rank_at", "id"],
        postgresql_where=_QUEUED,
        sqlite_where=_QUEUED,
        if_not_exists=True,
    )
    op.add_column("api_keys", sa.Column("max_priority", sa.String(length=16), nullable=True))


def downgrade() -> None:
    """Take it all back; the version before claims by rank alone."""
    op.drop_column("api_keys", "max_priority")
    op.drop_index("ix_jobs_turn", table_name="jobs")
    op.drop_table("queue_turns")
