"""Note who made and revoked an API key and when it was last used, show keys in a view, and erase accounts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0108"
down_revision = "0107"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
_TEXTS = ("created_by", "revoked_by", "pepper_id")


def upgrade() -> None:
    """Add the columns and the view."""
    op.add_column("api_keys", sa.Column("last_used_at", _TIME, nullable=True))
    for name in _TEXTS:
        op.add_column("api_keys", sa.Column(name, sa.Text(), nullable=True))
    op.add_column("operations", sa.Column("erases_account", sa.Boolean(), nullable=True))
    op.execute(_view())


def downgrade() -> None:
    """Remove them."""
    op.execute("DROP VIEW history_keys")
    op.drop_column("operations", "erases_account")
    for name in (*_TEXTS, "last_used_at"):
        op.drop_column("api_keys", name)


def _view() -> str:
    sqlite = op.get_bind().dialect.name == "sqlite"
    bare = "api_keys.id" if sqlite else "replace(CAST(api_keys.id AS text), '-', '')"
    return f"""
    CREATE VIEW history_keys AS
    SELECT
        'key_' || {bare} AS key,
        accounts.name AS account,
        api_keys.name,
        api_keys.role,
        'key:key_' || {bare} AS actor,
        api_keys.created_at,
        api_keys.created_by,
        api_keys.last_used_at,
        api_keys.expires_at,
        api_keys.revoked_at,
        api_keys.revoked_by,
        api_keys.id
    FROM api_keys JOIN accounts ON accounts.id = api_keys.account_id
    """
