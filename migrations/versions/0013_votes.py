"""Keep how the samples of a job voted on its answer."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0011"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Add the columns, empty: no job has voted yet."""
    op.add_column("jobs", sa.Column("votes", _JSON, nullable=True))
    op.add_column("jobs", sa.Column("confidence", sa.Double(), nullable=True))


def downgrade() -> None:
    """Take them back."""
    op.drop_column("jobs", "confidence")
    op.drop_column("jobs", "votes")
