"""Keep the steps of ended traces beside their texts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Add the column, empty: steps that are not kept are read from the text."""
    op.add_column("samples", sa.Column("steps", _JSON, nullable=True))


def downgrade() -> None:
    """Take it back."""
    op.drop_column("samples", "steps")
