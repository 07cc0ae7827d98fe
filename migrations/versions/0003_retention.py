"""Make room for what retention has taken away, and the indexes by which it finds what is due."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_MARKS = ("images_released_at", "trace_removed_at", "answer_removed_at", "events_removed_at")
#: Indexes of ``jobs`` on ``finished_at``, and what else holds of the rows in them.
_STORED = {
    "ix_jobs_images_kept": "images_released_at IS NULL AND data_removed_at IS NULL",
    "ix_jobs_trace_kept": "trace_removed_at IS NULL AND data_removed_at IS NULL",
    "ix_jobs_answer_kept": "answer_removed_at IS NULL AND data_removed_at IS NULL",
    "ix_jobs_events_kept": "events_removed_at IS NULL",
}


def upgrade() -> None:
    """Add the columns, which are empty at first, and the indexes.

    On a large PostgreSQL all of it is made beforehand, the indexes without a lock; here it is then left alone.
    """
    postgres = op.get_bind().dialect.name == "postgresql"
    for name in _MARKS:
        op.add_column(
            "jobs",
            sa.Column(name, sa.DateTime(timezone=True), nullable=True),
            if_not_exists=postgres,
        )
    for name, condition in _STORED.items():
        stored = sa.text(f"finished_at IS NOT NULL AND {condition}")
        op.create_index(
            name,
            "jobs",
            ["finished_at"],
            postgresql_where=stored,
            sqlite_where=stored,
            if_not_exists=True,
        )
    op.create_index(
        "ix_images_uploaded",
        "images",
        ["uploaded_at"],
        postgresql_where=sa.text("uploaded_at IS NOT NULL"),
        sqlite_where=sa.text("uploaded_at IS NOT NULL"),
        if_not_exists=True,
    )
    op.create_index(
        "ix_job_images_image_id_job_id", "job_images", ["image_id", "job_id"], if_not_exists=True
    )
    op.drop_index("ix_job_images_image_id", "job_images")


def downgrade() -> None:
    """Take them back; what has been removed stays removed."""
    op.create_index("ix_job_images_image_id", "job_images", ["image_id"])
    op.drop_index("ix_job_images_image_id_job_id", "job_images")
    op.drop_index("ix_images_uploaded", "images")
    for name in _STORED:
        op.drop_index(name, "jobs")
    for name in _MARKS:
        op.drop_column("jobs", name)
