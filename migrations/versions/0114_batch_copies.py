"""Count the bytes of batches, and note where the results of lines are in files.

Where the results of batches that have written their files are, is unknown: those copies go when their files expire.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations.baseline import storage

revision = "0114"
down_revision = "0113"
branch_labels = None
depends_on = None

_COUNTED = storage.Counted(
    "batches",
    "batches",
    "{row}.account_id",
    "'records'",
    texts=("metadata", "faults"),
    sizes=("lines_bytes",),
    row=1024,
)
_RESULT = {"result_start": sa.BigInteger(), "result_length": sa.Integer()}
#: About what a line takes, without its ``custom_id`` in the row and in the index.
_LINE_BYTES = 512


def upgrade() -> None:
    """Add the columns, the indexes, and what counts bytes; those of existing batches count at the next recount."""
    op.add_column(
        "batches", sa.Column("lines_bytes", sa.BigInteger(), nullable=False, server_default="0")
    )
    for name, kind in _RESULT.items():
        op.add_column("batch_lines", sa.Column(name, kind, nullable=True))
    _partial("ix_batch_lines_job_id", "batch_lines", ["job_id"], "job_id IS NOT NULL")
    _partial("ix_batches_turns", "batches", ["account_id", "served_at"], "finished_at IS NULL")
    size = "octet_length" if op.get_bind().dialect.name == "postgresql" else "length"
    text = "custom_id" if size == "octet_length" else "CAST(custom_id AS BLOB)"
    op.execute(
        "UPDATE batches SET lines_bytes = COALESCE("
        f"(SELECT SUM({_LINE_BYTES} + 2 * {size}({text})) FROM batch_lines WHERE batch_id = batches.id), 0)"
    )
    op.execute(
        "UPDATE accounts SET storage_recounted_at = NULL"
        " WHERE EXISTS (SELECT 1 FROM batches WHERE account_id = accounts.id)"
    )
    storage.create_triggers(_COUNTED)


def downgrade() -> None:
    """Remove them."""
    storage.drop_triggers(_COUNTED)
    op.drop_index("ix_batches_turns", "batches")
    op.drop_index("ix_batch_lines_job_id", "batch_lines")
    for name in _RESULT:
        op.drop_column("batch_lines", name)
    op.drop_column("batches", "lines_bytes")


def _partial(name: str, table: str, columns: list[str], condition: str) -> None:
    """Create an index of the rows that meet ``condition``."""
    where = sa.text(condition)
    op.create_index(name, table, columns, postgresql_where=where, sqlite_where=where)
