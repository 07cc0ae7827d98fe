"""Add what clients of OpenAI's surface sent with a job."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations.baseline import storage

revision = "0111"
down_revision = "0107"
branch_labels = None
depends_on = None

_COUNTED = storage.Counted(
    "responses",
    "responses",
    "(SELECT jobs.account_id FROM jobs WHERE jobs.id = {row}.job_id)",
    "'jobs'",
    texts=("requested",),
)
_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Create the table and what counts its bytes."""
    op.create_table(
        "responses",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("surface", sa.Text(), nullable=False),
        sa.Column("background", sa.Boolean(), nullable=False),
        sa.Column("requested", _JSON, nullable=True),
        sa.Column("discard", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", name="pk_responses"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_responses_job_id_jobs"),
    )
    condition = sa.text("discard")
    op.create_index(
        "ix_responses_discard",
        "responses",
        ["job_id"],
        postgresql_where=condition,
        sqlite_where=condition,
    )
    storage.create_triggers(_COUNTED)


def downgrade() -> None:
    """Drop the table."""
    storage.drop_triggers(_COUNTED)
    op.drop_table("responses")
