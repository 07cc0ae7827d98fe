"""Note the jobs whose clients wait for the answer on open connections."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0113"
down_revision = "0112"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "held_jobs",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("until", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("job_id", name="pk_held_jobs"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_held_jobs_job_id_jobs"),
    )
    op.create_index("ix_held_jobs_until", "held_jobs", ["until"])


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("held_jobs")
