"""Add what clients of OpenAI's surface sent with a job."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0111"
down_revision = "0107"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "responses",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("surface", sa.Text(), nullable=False),
        sa.Column("background", sa.Boolean(), nullable=False),
        sa.Column("requested", _JSON, nullable=True),
        sa.PrimaryKeyConstraint("job_id", name="pk_responses"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_responses_job_id_jobs"),
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("responses")
