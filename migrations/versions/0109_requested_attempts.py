"""Send requested attempts first, and index what the purge of the queues of URLs reads."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0109"
down_revision = "0108"
branch_labels = None
depends_on = None

_REQUESTED = "state = 'due' AND kind IN ('manual', 'test')"
_OF_URL = "origin_queue_id IS NOT NULL"


def upgrade() -> None:
    """Add the column and the indexes."""
    op.add_column(
        "webhook_queues",
        sa.Column("requested_last", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    _index("ix_webhook_queues_of_urls", "webhook_queues", ["served_at"], _OF_URL)
    _index(
        "ix_webhook_attempts_requested",
        "webhook_attempts",
        ["queue_id", "due_at", "id"],
        _REQUESTED,
    )
    for table in ("webhook_attempts", "webhook_deliveries"):
        op.create_index(f"ix_{table}_queue_id", table, ["queue_id"], if_not_exists=True)


def downgrade() -> None:
    """Remove them."""
    for table in ("webhook_deliveries", "webhook_attempts"):
        op.drop_index(f"ix_{table}_queue_id", table)
    op.drop_index("ix_webhook_attempts_requested", "webhook_attempts")
    op.drop_index("ix_webhook_queues_of_urls", "webhook_queues")
    op.drop_column("webhook_queues", "requested_last")


def _index(name: str, table: str, columns: list[str], where: str) -> None:
    condition = sa.text(where)
    op.create_index(
        name,
        table,
        columns,
        postgresql_where=condition,
        sqlite_where=condition,
        if_not_exists=True,
    )
