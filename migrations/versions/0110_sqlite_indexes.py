"""On SQLite, leave the metadata pairs of existing jobs to a reindex that is due, and count the queue by an index alone."""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0110"
down_revision = "0107"
branch_labels = None
depends_on = None

_PROGRESS = "reindex_progress"
#: The index of revision 0105, and the one that SQLite reads without the rows: with the column of the condition.
_QUEUED = ["account_id", "priority", "not_before"]
_QUEUED_INDEX = "ix_jobs_queued"
_COVERING_INDEX = "ix_jobs_queued_status"


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
    _index(_COVERING_INDEX, [*_QUEUED, "status"])
    op.drop_index(_QUEUED_INDEX, "jobs")


def downgrade() -> None:
    """Remove the column; give SQLite its index back."""
    if op.get_bind().dialect.name == "sqlite":
        _index(_QUEUED_INDEX, _QUEUED)
        op.drop_index(_COVERING_INDEX, "jobs")
    op.drop_column(_PROGRESS, "lacks_pairs")


def _index(name: str, columns: list[str]) -> None:
    op.create_index(name, "jobs", columns, sqlite_where=sa.text("status = 'queued'"))
