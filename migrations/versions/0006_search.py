"""Make room for groups of jobs, and an index of what went wrong."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0003"
branch_labels = None
depends_on = None

#: Partial indexes of ``jobs``: their columns, and what has to be there.
_INDEXES = {
    "ix_jobs_group": (["group_id", "id"], "group_id IS NOT NULL"),
    "ix_jobs_error": (["error_code", "id"], "error_code IS NOT NULL"),
}


def upgrade() -> None:
    """Add the column, which is empty at first, and the indexes; on a large PostgreSQL they are there already."""
    postgres = op.get_bind().dialect.name == "postgresql"
    op.add_column("jobs", sa.Column("group_id", sa.Uuid(), nullable=True), if_not_exists=postgres)
    for name, (columns, condition) in _INDEXES.items():
        op.create_index(
            name,
            "jobs",
            columns,
            postgresql_where=sa.text(condition),
            sqlite_where=sa.text(condition),
            if_not_exists=True,
        )


def downgrade() -> None:
    """Take them back; jobs of a group go on as jobs by themselves."""
    for name in _INDEXES:
        op.drop_index(name, "jobs")
    op.drop_column("jobs", "group_id")
