"""Number the events of jobs: the counter, the moves' numbers, the index beside each text."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0006"
branch_labels = None
depends_on = None

_EMPTY: dict[str, list[tuple[str, sa.BigInteger | sa.LargeBinary]]] = {
    "attempts": [("kept_through", sa.BigInteger())],
    "samples": [("marks", sa.LargeBinary())],
    "trace_chunks": [("marks", sa.LargeBinary()), ("last_number", sa.BigInteger())],
    "timeline": [("number", sa.BigInteger())],
}


def upgrade() -> None:
    """Add the columns. What happened before has no numbers: such a job's stream is its end alone."""
    op.add_column(
        "jobs", sa.Column("event_number", sa.BigInteger(), nullable=False, server_default="0")
    )
    for table, columns in _EMPTY.items():
        for name, kind in columns:
            op.add_column(table, sa.Column(name, kind, nullable=True))


def downgrade() -> None:
    """Take them back."""
    for table, columns in _EMPTY.items():
        for name, _ in reversed(columns):
            op.drop_column(table, name)
    op.drop_column("jobs", "event_number")
