"""Make room for images that took engines down."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "suspects",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("image_key", sa.Text(), nullable=False),
        sa.Column("deaths", sa.Integer(), nullable=False),
        sa.Column("died_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("quarantined_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("released_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("released_by", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name="fk_suspects_account_id_accounts"
        ),
        sa.PrimaryKeyConstraint("account_id", "image_key", name="pk_suspects"),
    )
    op.create_index(
        "ix_suspects_quarantined",
        "suspects",
        ["quarantined_at"],
        postgresql_where=sa.text("quarantined_at IS NOT NULL"),
        sqlite_where=sa.text("quarantined_at IS NOT NULL"),
    )


def downgrade() -> None:
    """Take it back."""
    op.drop_index("ix_suspects_quarantined", table_name="suspects")
    op.drop_table("suspects")
