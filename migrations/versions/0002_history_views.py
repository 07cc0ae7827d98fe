"""Make the views in which people read the history, an index of what ended when, and a place for engines' states."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")

_JOBS = """
CREATE VIEW history_jobs AS
SELECT
    {job} AS job,
    {account} AS account_id,
    accounts.name AS account,
    jobs.status,
    jobs.model,
    jobs.priority,
    jobs.question,
    jobs.answer_text AS answer,
    jobs.answer_rule,
    jobs.finish_reason,
    jobs.error_code,
    jobs.error_message,
    jobs.error_retryable,
    jobs.attempt AS attempts,
    jobs.crashes,
    jobs.failures,
    jobs.max_attempts,
    (SELECT count(*) FROM job_images WHERE job_images.job_id = jobs.id) AS images,
    jobs.input_tokens,
    jobs.cached_tokens,
    jobs.image_tokens,
    jobs.output_tokens,
    jobs.engine_seconds,
    {queued} AS queued_seconds,
    {first_token} AS first_token_seconds,
    {run} AS run_seconds,
    {total} AS total_seconds,
    jobs.lease_owner AS worker,
    jobs.metadata,
    jobs.options,
    jobs.request_id,
    {rerun_of} AS rerun_of,
    jobs.created_at,
    jobs.not_before,
    jobs.deadline_at,
    jobs.started_at,
    jobs.first_token_at,
    jobs.cancel_requested_at,
    jobs.engine_stopped_at,
    jobs.finished_at,
    jobs.data_removed_at,
    jobs.id
FROM jobs JOIN accounts ON accounts.id = jobs.account_id
"""

_ATTEMPTS = """
CREATE VIEW history_attempts AS
SELECT
    {job} AS job,
    accounts.name AS account,
    attempts.number AS attempt,
    attempts.worker,
    attempts.outcome,
    attempts.error_code,
    attempts.error_message,
    attempts.engine,
    attempts.engine_version,
    attempts.model,
    streams.input_tokens,
    streams.cached_tokens,
    streams.image_tokens,
    streams.output_tokens,
    {first_token} AS first_token_seconds,
    {engine} AS engine_seconds,
    {run} AS run_seconds,
    attempts.claimed_at,
    streams.started_at,
    streams.first_token_at,
    attempts.ended_at,
    attempts.job_id
FROM attempts
JOIN jobs ON jobs.id = attempts.job_id
JOIN accounts ON accounts.id = jobs.account_id
LEFT JOIN (
    SELECT
        job_id,
        attempt,
        sum(input_tokens) AS input_tokens,
        sum(cached_tokens) AS cached_tokens,
        sum(image_tokens) AS image_tokens,
        sum(output_tokens) AS output_tokens,
        min(started_at) AS started_at,
        min(first_token_at) AS first_token_at,
        max(ended_at) AS ended_at
    FROM samples
    GROUP BY job_id, attempt
) AS streams ON streams.job_id = attempts.job_id AND streams.attempt = attempts.number
"""

_TIMELINE = """
CREATE VIEW history_timeline AS
SELECT
    timeline.id AS entry,
    {job} AS job,
    accounts.name AS account,
    timeline.at,
    timeline.actor,
    timeline.event,
    {status} AS status,
    {error_code} AS error_code,
    timeline.changes,
    timeline.job_id
FROM timeline
JOIN jobs ON jobs.id = timeline.job_id
JOIN accounts ON accounts.id = jobs.account_id
"""


def upgrade() -> None:
    """Make the three views, the index and the column."""
    op.add_column("workers", sa.Column("engines", _JSON, nullable=True))
    op.create_index(
        "ix_jobs_ended",
        "jobs",
        ["finished_at"],
        postgresql_where=sa.text("finished_at IS NOT NULL"),
        sqlite_where=sa.text("finished_at IS NOT NULL"),
        # On a large PostgreSQL it is made beforehand, without a lock: docs/explanation/migrations.md.
        if_not_exists=True,
    )
    postgres = op.get_bind().dialect.name == "postgresql"
    shown = _shown_on_postgresql if postgres else _shown_on_sqlite
    seconds = _seconds_on_postgresql if postgres else _seconds_on_sqlite
    member = "timeline.changes ->> '{}'" if postgres else "json_extract(timeline.changes, '$.{}')"
    op.execute(
        _JOBS.format(
            job=shown("job", "jobs.id"),
            account=shown("acct", "jobs.account_id"),
            rerun_of=shown("job", "jobs.rerun_of"),
            queued=seconds("jobs.created_at", "COALESCE(jobs.started_at, jobs.finished_at)"),
            first_token=seconds("jobs.started_at", "jobs.first_token_at"),
            run=seconds("jobs.started_at", "jobs.finished_at"),
            total=seconds("jobs.created_at", "jobs.finished_at"),
        )
    )
    op.execute(
        _ATTEMPTS.format(
            job=shown("job", "attempts.job_id"),
            first_token=seconds("streams.started_at", "streams.first_token_at"),
            engine=seconds("streams.started_at", "streams.ended_at"),
            run=seconds("attempts.claimed_at", "attempts.ended_at"),
        )
    )
    op.execute(
        _TIMELINE.format(
            job=shown("job", "timeline.job_id"),
            status=member.format("status"),
            error_code=member.format("error_code"),
        )
    )


def downgrade() -> None:
    """Drop them."""
    for view in ("history_timeline", "history_attempts", "history_jobs"):
        op.execute(f"DROP VIEW {view}")
    op.drop_index("ix_jobs_ended", "jobs")
    op.drop_column("workers", "engines")


def _shown_on_postgresql(kind: str, column: str) -> str:
    return f"'{kind}_' || replace(CAST({column} AS text), '-', '')"


def _shown_on_sqlite(kind: str, column: str) -> str:
    return f"'{kind}_' || {column}"


def _seconds_on_postgresql(start: str, end: str) -> str:
    return f"CAST(round(extract(epoch FROM {end} - {start}), 3) AS double precision)"


def _seconds_on_sqlite(start: str, end: str) -> str:
    """Julian days are kept in milliseconds inside SQLite."""
    return f"round((julianday({end}) - julianday({start})) * 86400.0, 3)"
