"""Add operations on many jobs, pauses of the queue, cordons of engines, and drains of workers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0104"
down_revision = "0102"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_TIME = sa.DateTime(timezone=True)
_STATUSES = ("queued", "running", "succeeded", "failed", "cancelled")


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "operations",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("account_id", sa.Uuid(), sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column("key_id", sa.Uuid(), nullable=False),
        sa.Column("key_name", sa.Text(), nullable=False),
        _word("action", "rerun", "cancel", "delete", "run_now"),
        sa.Column("query", sa.Text(), nullable=False),
        sa.Column("scope_id", sa.Uuid(), sa.ForeignKey("accounts.id"), nullable=True),
        _word("status", *_STATUSES),
        sa.Column("max_jobs", sa.Integer(), nullable=False),
        sa.Column("collected_at", _TIME, nullable=True),
        sa.Column("last_job_id", sa.Uuid(), nullable=True),
        *(
            sa.Column(name, sa.Integer(), nullable=False)
            for name in ("total", "done", "skipped", "failed")
        ),
        sa.Column("reasons", _JSON, nullable=False),
        sa.Column("waiting_for", sa.Text(), nullable=True),
        sa.Column("not_before", _TIME, nullable=False),
        sa.Column("served_at", _TIME, nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_expires_at", _TIME, nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.Text(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("started_at", _TIME, nullable=True),
        sa.Column("finished_at", _TIME, nullable=True),
        sa.UniqueConstraint("account_id", "idempotency_key"),
    )
    op.create_index("ix_operations_account_id_id", "operations", ["account_id", "id"])
    _partial("ix_operations_open", "operations", ["served_at", "id"], "finished_at IS NULL")
    op.create_table(
        "operation_jobs",
        sa.Column("operation_id", sa.Uuid(), sa.ForeignKey("operations.id"), primary_key=True),
        sa.Column("job_id", sa.Uuid(), primary_key=True),
        _word("result", "done", "skipped", "failed", nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("new_job_id", sa.Uuid(), nullable=True),
        sqlite_with_rowid=False,
    )
    _partial(
        "ix_operation_jobs_left",
        "operation_jobs",
        ["operation_id", "job_id"],
        "reason IS NOT NULL",
    )
    op.create_table(
        "queue_pauses",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Uuid(), sa.ForeignKey("accounts.id"), nullable=True),
        _word("priority", "high", "normal", "low", nullable=True),
        sa.Column("paused_at", _TIME, nullable=False),
        sa.Column("paused_by", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("resumed_at", _TIME, nullable=True),
        sa.Column("resumed_by", sa.Text(), nullable=True),
    )
    _partial("uq_queue_pauses_active", "queue_pauses", ["scope"], "resumed_at IS NULL", unique=True)
    op.create_table(
        "engine_cordons",
        sa.Column("url", sa.Text(), primary_key=True),
        sa.Column("cordoned_at", _TIME, nullable=False),
        sa.Column("cordoned_by", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
    )
    op.add_column("workers", sa.Column("drain_requested_at", _TIME, nullable=True))
    op.add_column("workers", sa.Column("drain_requested_by", sa.Text(), nullable=True))


def downgrade() -> None:
    """Drop the tables and the columns."""
    op.drop_column("workers", "drain_requested_by")
    op.drop_column("workers", "drain_requested_at")
    op.drop_table("engine_cordons")
    op.drop_table("queue_pauses")
    op.drop_table("operation_jobs")
    op.drop_table("operations")


def _word(name: str, *words: str, nullable: bool = False) -> sa.Column[str]:
    """Return a column of text with a CHECK over ``words``."""
    kind = sa.Enum(*words, name=name, native_enum=False, create_constraint=True, length=16)
    return sa.Column(name, kind, nullable=nullable)


def _partial(
    name: str, table: str, columns: list[str], condition: str, *, unique: bool = False
) -> None:
    """Create an index of the rows that meet ``condition``."""
    where = sa.text(condition)
    op.create_index(name, table, columns, unique=unique, postgresql_where=where, sqlite_where=where)
