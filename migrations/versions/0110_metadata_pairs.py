"""Leave the metadata pairs of existing jobs on SQLite to a reindex, and store that it is due."""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0110"
down_revision = "0107"
branch_labels = None
depends_on = None

_PROGRESS = "reindex_progress"


def upgrade() -> None:
    """Add the column; with jobs on SQLite, add the row of a reindex that has not begun."""
    op.add_column(
        _PROGRESS,
        sa.Column("lacks_pairs", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    connection = op.get_bind()
    if connection.dialect.name != "sqlite":
        return
    # No rules have this name, so that a reindex starts with the first job.
    row = f"1, '', '{uuid.UUID(int=0).hex}', 0, strftime('%Y-%m-%d %H:%M:%f000', 'now'), 1"
    op.execute(
        f"INSERT OR REPLACE INTO {_PROGRESS} (id, pipeline, reached, jobs, at, lacks_pairs)"
        f" SELECT {row} WHERE EXISTS (SELECT 1 FROM jobs)"
    )


def downgrade() -> None:
    """Remove the column."""
    op.drop_column(_PROGRESS, "lacks_pairs")
