"""Let an API key expire."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0107"
down_revision = "0106"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add the column."""
    op.add_column("api_keys", sa.Column("expires_at", _TIME, nullable=True))


def downgrade() -> None:
    """Remove the column."""
    op.drop_column("api_keys", "expires_at")
