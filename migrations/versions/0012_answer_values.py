"""Keep the answers of jobs as values beside their texts, and show them in the history."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")

_JOBS = """
CREATE {replacing} VIEW history_jobs AS
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
    jobs.id{added}
FROM jobs JOIN accounts ON accounts.id = jobs.account_id
"""
#: What this revision shows, behind all that was there.
_ADDED = ",\n    jobs.answer_value,\n    jobs.answer_forced"


def upgrade() -> None:
    """Add the column, empty: a value that is not kept is read from the text. On PostgreSQL grants on the view stay."""
    op.add_column("jobs", sa.Column("answer_value", _JSON, nullable=True))
    if op.get_bind().dialect.name == "postgresql":
        _make_view("OR REPLACE", added=_ADDED)
        return
    op.execute("DROP VIEW history_jobs")
    _make_view("", added=_ADDED)


def downgrade() -> None:
    """Take both back. A view that loses a column is made anew: grants on it have to be given again."""
    op.execute("DROP VIEW history_jobs")
    op.drop_column("jobs", "answer_value")
    _make_view("", added="")


def _make_view(replacing: str, *, added: str) -> None:
    postgres = op.get_bind().dialect.name == "postgresql"
    shown = _shown_on_postgresql if postgres else _shown_on_sqlite
    seconds = _seconds_on_postgresql if postgres else _seconds_on_sqlite
    op.execute(
        _JOBS.format(
            replacing=replacing,
            added=added,
            job=shown("job", "jobs.id"),
            account=shown("acct", "jobs.account_id"),
            rerun_of=shown("job", "jobs.rerun_of"),
            queued=seconds("jobs.created_at", "COALESCE(jobs.started_at, jobs.finished_at)"),
            first_token=seconds("jobs.started_at", "jobs.first_token_at"),
            run=seconds("jobs.started_at", "jobs.finished_at"),
            total=seconds("jobs.created_at", "jobs.finished_at"),
        )
    )


def _shown_on_postgresql(kind: str, column: str) -> str:
    return f"'{kind}_' || replace(CAST({column} AS text), '-', '')"


def _shown_on_sqlite(kind: str, column: str) -> str:
    return f"'{kind}_' || {column}"


def _seconds_on_postgresql(start: str, end: str) -> str:
    return f"CAST(round(extract(epoch FROM {end} - {start}), 3) AS double precision)"


def _seconds_on_sqlite(start: str, end: str) -> str:
    """Julian days are kept in milliseconds inside SQLite."""
    return f"round((julianday({end}) - julianday({start})) * 86400.0, 3)"
