"""Index what searches and reports find by attempts, crashes, operations and deliveries.

On SQLite, leave metadata pairs to a reindex.

On SQLite, the queue is counted by an index alone.
"""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0110"
down_revision = "0109"
branch_labels = None
depends_on = None

_PROGRESS = "reindex_progress"
#: The index of revision 0105, and the one that SQLite reads without the rows: with the column of the condition.
_QUEUED = ["account_id", "priority", "not_before"]
_QUEUED_INDEX = "ix_jobs_queued"
_COVERING_INDEX = "ix_jobs_queued_status"
_OF_WEBHOOKS = (
    ("ix_webhook_attempts_ended", "webhook_attempts", "ended_at", "ended_at IS NOT NULL"),
    ("ix_webhook_deliveries_failed", "webhook_deliveries", "id", "status = 'failed'"),
)


def upgrade() -> None:
    """Add the column and the indexes; with jobs on SQLite, add the row of a reindex that has not begun."""
    op.add_column(
        _PROGRESS,
        sa.Column("lacks_pairs", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    _index("ix_jobs_crashed", "jobs", ["id"], "crashes > 0")
    for column in ("engine", "worker"):
        # For a report by engine about a time, SQLite would walk an index with another condition, or none.
        _index(f"ix_attempts_{column}_job_id", "attempts", [column, "job_id"], f"{column} > ''")
    columns = ["operation_id", "new_job_id"]
    _index("ix_operation_jobs_new", "operation_jobs", columns, "new_job_id IS NOT NULL")
    for name, table, column, where in _OF_WEBHOOKS:
        _index(name, table, [column], where)
    name = "ix_webhook_notifications_account_id_id"
    _index(name, "webhook_notifications", ["account_id", "id"])
    connection = op.get_bind()
    if connection.dialect.name != "sqlite":
        return
    # No rules have this name, so that a reindex starts with the first job.
    row = f"1, '', '{uuid.UUID(int=0).hex}', 0, strftime('%Y-%m-%d %H:%M:%f000', 'now'), 1"
    op.execute(
        f"INSERT OR REPLACE INTO {_PROGRESS} (id, pipeline, reached, jobs, at, lacks_pairs)"
        f" SELECT {row} WHERE EXISTS (SELECT 1 FROM jobs)"
    )
    _index(_COVERING_INDEX, "jobs", [*_QUEUED, "status"], "status = 'queued'")
    op.drop_index(_QUEUED_INDEX, "jobs")


def downgrade() -> None:
    """Remove them; give SQLite its index back."""
    if op.get_bind().dialect.name == "sqlite":
        _index(_QUEUED_INDEX, "jobs", _QUEUED, "status = 'queued'")
        op.drop_index(_COVERING_INDEX, "jobs")
    op.drop_index("ix_webhook_notifications_account_id_id", "webhook_notifications")
    for name, table, _, _ in _OF_WEBHOOKS:
        op.drop_index(name, table)
    op.drop_index("ix_operation_jobs_new", "operation_jobs")
    for column in ("engine", "worker"):
        op.drop_index(f"ix_attempts_{column}_job_id", "attempts")
    op.drop_index("ix_jobs_crashed", "jobs")
    op.drop_column(_PROGRESS, "lacks_pairs")


def _index(name: str, table: str, columns: list[str], where: str | None = None) -> None:
    condition = None if where is None else sa.text(where)
    op.create_index(
        name,
        table,
        columns,
        postgresql_where=condition,
        sqlite_where=condition,
        if_not_exists=True,
    )
