"""Give the database an id, from which the prefix of its keys in Redis is made."""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0102"
down_revision = "0101"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table and its row."""
    table = op.create_table(
        "installation",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_installation")),
        sa.CheckConstraint("number = 1", name=op.f("ck_installation_single")),
    )
    op.bulk_insert(table, [{"number": 1, "id": secrets.token_hex(6)}])


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("installation")
