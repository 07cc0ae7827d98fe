"""Let a key have limits of its own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns, empty: a key without them goes by the settings."""
    op.add_column("api_keys", sa.Column("requests_per_minute", sa.Integer(), nullable=True))
    op.add_column("api_keys", sa.Column("max_body_mb", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Take them back."""
    op.drop_column("api_keys", "max_body_mb")
    op.drop_column("api_keys", "requests_per_minute")
