"""Add the original of an answer whose text has no typesetting, and count its bytes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations.baseline import storage

revision = "0101"
down_revision = "0100"
branch_labels = None
depends_on = None

_BEFORE = next(counted for counted in storage.COUNTED if counted.name == "jobs")
_AFTER = _BEFORE._replace(texts=(*_BEFORE.texts, "answer_tex"))


def upgrade() -> None:
    """Add the column, and count it."""
    op.add_column("jobs", sa.Column("answer_tex", sa.Text(), nullable=True))
    storage.drop_triggers(_BEFORE)
    storage.create_triggers(_AFTER)


def downgrade() -> None:
    """Remove the column."""
    # The triggers subtract its bytes.
    op.execute("UPDATE jobs SET answer_tex = NULL WHERE answer_tex IS NOT NULL")
    storage.drop_triggers(_AFTER)
    storage.create_triggers(_BEFORE)
    op.drop_column("jobs", "answer_tex")
