"""Index what lists, queues and views of long histories read, and store how far a reindex is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0105"
down_revision = "0104"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
#: Two conditions, so that only lists use the index: SQLite would prefer it for reports about a status and a time.
_ENDED = "finished_at IS NOT NULL AND lease_owner IS NULL"
#: The pairs of metadata on SQLite, which has no index for JSON. The name puts it among the indexes of a search. A
#: reindex adds the pairs of older jobs (revision 0110): with 500,000 jobs, that took six seconds of the write lock.
_PAIRS = "search_index_metadata"
_INSERT_PAIRS = f"INSERT INTO {_PAIRS} (key, value, job_id) SELECT pair.key, pair.value, {{job}}.id"
_SQLITE_PAIRS = (
    f"""
    CREATE TABLE {_PAIRS} (
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        job_id CHAR(32) NOT NULL,
        PRIMARY KEY (key, value, job_id)
    ) WITHOUT ROWID
    """,
    f"CREATE INDEX ix_{_PAIRS}_job_id ON {_PAIRS} (job_id)",
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

#: Like the view of revision 0100, but an attempt's generations are found by its key: with a join of all generations by
#: attempt, each query of the view summed up the whole history.
_TOTALS = {
    "input_tokens": "sum(input_tokens)",
    "cached_tokens": "sum(cached_tokens)",
    "image_tokens": "sum(image_tokens)",
    "output_tokens": "sum(output_tokens)",
    "started_at": "min(started_at)",
    "first_token_at": "min(first_token_at)",
    "ended_at": "max(ended_at)",
}
_OF_ATTEMPT = (
    "FROM generations WHERE generations.job_id = attempts.job_id"
    " AND generations.attempt = attempts.number"
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
    if _on_sqlite():
        op.execute("DROP VIEW history_attempts")
    op.execute(_attempts(by_key=True))
    if _on_sqlite():
        _partial_index("ix_jobs_ended_status", ["status", "id"], _ENDED)
        for statement in _SQLITE_PAIRS:
            op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    if _on_sqlite():
        op.execute("DROP VIEW history_attempts")
    op.execute(_attempts(by_key=False))
    if _on_sqlite():
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


def _on_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"


def _attempts(*, by_key: bool) -> str:
    """Return the statement that creates the view of attempts; PostgreSQL replaces it, so that grants stay."""
    sums = ", ".join(f"{value} AS {name}" for name, value in _TOTALS.items())
    total = {name: f"totals.{name}" for name in _TOTALS}
    if not by_key:
        joined = (
            f"LEFT JOIN (SELECT job_id, attempt, {sums} FROM generations GROUP BY job_id, attempt) AS totals"
            " ON totals.job_id = attempts.job_id AND totals.attempt = attempts.number"
        )
    elif _on_sqlite():
        # Without LATERAL, each column has a query of its own, which runs if the column is read.
        joined = ""
        total = {name: f"(SELECT {value} {_OF_ATTEMPT})" for name, value in _TOTALS.items()}
    else:
        joined = f"LEFT JOIN LATERAL (SELECT {sums} {_OF_ATTEMPT}) AS totals ON true"
    shown = (
        "'job_' || attempts.job_id"
        if _on_sqlite()
        else "'job_' || replace(CAST(attempts.job_id AS text), '-', '')"
    )
    return f"""
    CREATE {"" if _on_sqlite() else "OR REPLACE"} VIEW history_attempts AS
    SELECT
        {shown} AS job,
        accounts.name AS account,
        attempts.number AS attempt,
        attempts.worker,
        attempts.outcome,
        attempts.error_code,
        attempts.error_message,
        attempts.engine,
        attempts.engine_version,
        attempts.model,
        {total["input_tokens"]} AS input_tokens,
        {total["cached_tokens"]} AS cached_tokens,
        {total["image_tokens"]} AS image_tokens,
        {total["output_tokens"]} AS output_tokens,
        {_seconds(total["started_at"], total["first_token_at"])} AS first_token_seconds,
        {_seconds(total["started_at"], total["ended_at"])} AS engine_seconds,
        {_seconds("attempts.claimed_at", "attempts.ended_at")} AS run_seconds,
        attempts.claimed_at,
        {total["started_at"]} AS started_at,
        {total["first_token_at"]} AS first_token_at,
        attempts.ended_at,
        attempts.job_id
    FROM attempts
    JOIN jobs ON jobs.id = attempts.job_id
    JOIN accounts ON accounts.id = jobs.account_id
    {joined}
    """


def _seconds(start: str, end: str) -> str:
    if _on_sqlite():
        return f"round((julianday({end}) - julianday({start})) * 86400.0, 3)"
    return f"CAST(round(extract(epoch FROM {end} - {start}), 3) AS double precision)"
