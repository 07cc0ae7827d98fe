"""Index what lists, queues and views of long histories read, and store how far a reindex is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0105"
down_revision = "0104"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
#: The pairs of metadata on SQLite, which has no index for JSON. The name puts it among the indexes of a search.
_PAIRS = "search_index_metadata"
_INSERT_PAIRS = (
    f"INSERT INTO {_PAIRS} (key, value, job_id, account_id)"
    " SELECT pair.key, pair.value, {job}.id, {job}.account_id"
)
_SQLITE_PAIRS = (
    f"""
    CREATE TABLE {_PAIRS} (
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        job_id CHAR(32) NOT NULL,
        account_id CHAR(32) NOT NULL,
        PRIMARY KEY (key, value, job_id)
    ) WITHOUT ROWID
    """,
    f"CREATE INDEX ix_{_PAIRS}_job_id ON {_PAIRS} (job_id)",
    # Like an index, it is complete from its creation on.
    f"{_INSERT_PAIRS.format(job='jobs')} FROM jobs, json_each(jobs.metadata) AS pair",
    f"""
    CREATE TRIGGER jobs_metadata_inserted AFTER INSERT ON jobs WHEN new.metadata <> '{{}}' BEGIN
        {_INSERT_PAIRS.format(job="new")} FROM json_each(new.metadata) AS pair;
    END
    """,
    f"""
    CREATE TRIGGER jobs_metadata_updated AFTER UPDATE OF metadata ON jobs BEGIN
        DELETE FROM {_PAIRS} WHERE job_id = old.id;
        {_INSERT_PAIRS.format(job="new")} FROM json_each(new.metadata) AS pair;
    END
    """,
    f"""
    CREATE TRIGGER jobs_metadata_deleted AFTER DELETE ON jobs BEGIN
        DELETE FROM {_PAIRS} WHERE job_id = old.id;
    END
    """,
)


def upgrade() -> None:
    """Create the indexes and the table."""
    op.create_table(
        "reindex_progress",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("pipeline", sa.Text(), nullable=False),
        sa.Column("reached", sa.Uuid(), nullable=False),
        sa.Column("jobs", sa.BigInteger(), nullable=False),
        sa.Column("at", _TIME, nullable=False),
    )
    _partial_index("ix_jobs_queued", ["account_id", "priority", "not_before"], "status = 'queued'")
    op.create_index("ix_attempts_claimed_at", "attempts", ["claimed_at"], if_not_exists=True)
    if op.get_bind().dialect.name == "sqlite":
        _partial_index("ix_jobs_ended_status", ["status", "id"], "finished_at IS NOT NULL")
        for statement in _SQLITE_PAIRS:
            op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    if op.get_bind().dialect.name == "sqlite":
        for name in ("inserted", "updated", "deleted"):
            op.execute(f"DROP TRIGGER jobs_metadata_{name}")
        op.execute(f"DROP TABLE {_PAIRS}")
        op.drop_index("ix_jobs_ended_status", "jobs")
    op.drop_index("ix_attempts_claimed_at", "attempts")
    op.drop_index("ix_jobs_queued", "jobs")
    op.drop_table("reindex_progress")


def _partial_index(name: str, columns: list[str], where: str) -> None:
    condition = sa.text(where)
    op.create_index(
        name,
        "jobs",
        columns,
        postgresql_where=condition,
        sqlite_where=condition,
        if_not_exists=True,
    )
