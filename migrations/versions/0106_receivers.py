"""Say why an attempt failed, and judge each URL of an origin for itself."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0106"
down_revision = "0105"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    op.add_column("webhook_attempts", sa.Column("error_detail", sa.Text(), nullable=True))
    op.add_column("webhook_queues", sa.Column("origin_queue_id", sa.Uuid(), nullable=True))


def downgrade() -> None:
    """Remove the columns."""
    op.drop_column("webhook_queues", "origin_queue_id")
    op.drop_column("webhook_attempts", "error_detail")
