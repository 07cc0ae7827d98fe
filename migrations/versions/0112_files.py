"""Add files, their bytes, batches and the lines of batches."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations.baseline import storage

revision = "0112"
down_revision = "0111"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_TIME = sa.DateTime(timezone=True)
_BATCH_STATUSES = (
    "validating",
    "in_progress",
    "finalizing",
    "cancelling",
    "completed",
    "failed",
    "expired",
    "cancelled",
)
_COUNTED = (
    storage.Counted("files", "files", "{row}.account_id", "'files'", texts=("filename",), row=512),
    storage.Counted(
        "file_chunks",
        "file_chunks",
        "(SELECT files.account_id FROM files WHERE files.id = {row}.file_id)",
        "'files'",
        binaries=("data",),
    ),
)


def upgrade() -> None:
    """Create the tables and what counts their bytes."""
    op.create_table(
        "files",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("account_id", sa.Uuid(), sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("touched_at", _TIME, nullable=False),
        *(
            sa.Column(name, _TIME, nullable=True)
            for name in ("stored_at", "expires_at", "removed_at")
        ),
    )
    op.create_index("ix_files_account_id_id", "files", ["account_id", "id"])
    op.create_index("ix_files_account_id_purpose_id", "files", ["account_id", "purpose", "id"])
    _partial("ix_files_expiring", "files", ["expires_at"], "expires_at IS NOT NULL")
    _partial("ix_files_unstored", "files", ["touched_at"], "stored_at IS NULL")
    _partial("ix_files_removed", "files", ["removed_at"], "removed_at IS NOT NULL")
    op.create_table(
        "file_chunks",
        sa.Column("file_id", sa.Uuid(), sa.ForeignKey("files.id"), primary_key=True),
        sa.Column("start", sa.BigInteger(), primary_key=True),
        sa.Column("data", sa.LargeBinary(), nullable=False),
    )
    _create_batches()
    op.create_table(
        "batch_lines",
        sa.Column("batch_id", sa.Uuid(), sa.ForeignKey("batches.id"), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("custom_id", sa.Text(), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("length", sa.Integer(), nullable=False),
        _word("state", "waiting", "submitted", "completed", "failed"),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("error_status", sa.Integer(), nullable=True),
        sa.Column("error_param", sa.Text(), nullable=True),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_batch_lines_batch_id_state_number", "batch_lines", ["batch_id", "state", "number"]
    )
    op.create_index("ix_batch_lines_batch_id_custom_id", "batch_lines", ["batch_id", "custom_id"])
    ended = "state IN ('completed', 'failed')"
    _partial("ix_batch_lines_ended", "batch_lines", ["batch_id", "number"], ended)
    for counted in _COUNTED:
        storage.create_triggers(counted)


def downgrade() -> None:
    """Drop the tables."""
    for counted in _COUNTED:
        storage.drop_triggers(counted)
    op.drop_table("batch_lines")
    op.drop_table("batches")
    op.drop_table("file_chunks")
    op.drop_table("files")


def _create_batches() -> None:
    op.create_table(
        "batches",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("account_id", sa.Uuid(), sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column("key_id", sa.Uuid(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=True),
        _word("status", *_BATCH_STATUSES),
        _word("ending", *_BATCH_STATUSES, nullable=True),
        sa.Column("input_file_id", sa.Uuid(), nullable=False),
        sa.Column("output_file_id", sa.Uuid(), nullable=True),
        sa.Column("error_file_id", sa.Uuid(), nullable=True),
        sa.Column("completion_window", sa.Text(), nullable=False),
        sa.Column("output_expires_seconds", sa.Integer(), nullable=True),
        sa.Column("metadata", _JSON, nullable=True),
        sa.Column("retry_of", sa.Uuid(), nullable=True),
        sa.Column("validated", sa.BigInteger(), nullable=False),
        *(
            sa.Column(name, sa.Integer(), nullable=False)
            for name in ("last_line", "total", "completed", "failed")
        ),
        sa.Column("faults", _JSON, nullable=True),
        sa.Column("fault_count", sa.Integer(), nullable=False),
        sa.Column("written_line", sa.Integer(), nullable=False),
        sa.Column("usage", _JSON, nullable=True),
        sa.Column("waiting_for", sa.Text(), nullable=True),
        sa.Column("not_before", _TIME, nullable=False),
        sa.Column("served_at", _TIME, nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_expires_at", _TIME, nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.Text(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        *(
            sa.Column(name, _TIME, nullable=True)
            for name in ("in_progress_at", "finalizing_at", "cancelling_at", "finished_at")
        ),
        sa.UniqueConstraint("account_id", "idempotency_key"),
    )
    op.create_index("ix_batches_account_id_id", "batches", ["account_id", "id"])
    _partial("ix_batches_open", "batches", ["served_at", "id"], "finished_at IS NULL")
    _partial("ix_batches_input", "batches", ["input_file_id"], "finished_at IS NULL")
    _partial("ix_batches_finished", "batches", ["finished_at"], "finished_at IS NOT NULL")


def _word(name: str, *words: str, nullable: bool = False) -> sa.Column[str]:
    """Return a column of text with a CHECK over ``words``."""
    kind = sa.Enum(*words, name=name, native_enum=False, create_constraint=True, length=16)
    return sa.Column(name, kind, nullable=nullable)


def _partial(name: str, table: str, columns: list[str], condition: str) -> None:
    """Create an index of the rows that meet ``condition``."""
    where = sa.text(condition)
    op.create_index(name, table, columns, postgresql_where=where, sqlite_where=where)
