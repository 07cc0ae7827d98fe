"""Create the schema: tables, the index of texts, storage triggers and history views."""

from __future__ import annotations

from migrations.baseline import search, storage, tables, views

revision = "0100"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the schema."""
    tables.create()
    search.create()
    storage.create()
    views.create()


def downgrade() -> None:
    """Drop everything."""
    views.drop()
    search.drop()
    tables.drop()
    storage.drop()
