"""The views of revision 0100, in which people and reports read the history: see docs/history.md."""

from alembic import op

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
    jobs.answer_value,
    jobs.answer_forced,
    jobs.confidence,
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
    totals.input_tokens,
    totals.cached_tokens,
    totals.image_tokens,
    totals.output_tokens,
    {first_token} AS first_token_seconds,
    {engine} AS engine_seconds,
    {run} AS run_seconds,
    attempts.claimed_at,
    totals.started_at,
    totals.first_token_at,
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
    FROM generations
    GROUP BY job_id, attempt
) AS totals ON totals.job_id = attempts.job_id AND totals.attempt = attempts.number
"""

_TIMELINE = """
CREATE VIEW history_timeline AS
SELECT
    timeline.id AS entry,
    {job} AS job,
    accounts.name AS account,
    timeline.at,
    timeline.actor,
    timeline.action,
    {status} AS status,
    {error_code} AS error_code,
    timeline.changes,
    timeline.job_id
FROM timeline
JOIN jobs ON jobs.id = timeline.job_id
JOIN accounts ON accounts.id = jobs.account_id
"""

_DELIVERIES = """
CREATE VIEW history_deliveries AS
SELECT
    {delivery} AS delivery,
    {notification} AS notification,
    {job} AS job,
    accounts.name AS account,
    webhook_notifications.type,
    webhook_deliveries.status,
    {endpoint} AS endpoint,
    webhook_endpoints.name AS endpoint_name,
    webhook_queues.origin,
    webhook_attempts.number AS attempt,
    webhook_attempts.kind,
    webhook_attempts.state,
    webhook_attempts.outcome,
    webhook_attempts.status_code,
    COALESCE(webhook_attempts.error_code, webhook_deliveries.error_code) AS error_code,
    webhook_attempts.seconds,
    webhook_attempts.address,
    webhook_notifications.created_at,
    webhook_attempts.due_at,
    webhook_attempts.started_at,
    webhook_attempts.ended_at,
    webhook_attempts.next_at,
    webhook_deliveries.delivered_at,
    webhook_deliveries.id AS delivery_id,
    webhook_notifications.job_id
FROM webhook_attempts
JOIN webhook_deliveries ON webhook_deliveries.id = webhook_attempts.delivery_id
JOIN webhook_notifications ON webhook_notifications.id = webhook_deliveries.notification_id
JOIN webhook_queues ON webhook_queues.id = webhook_deliveries.queue_id
JOIN accounts ON accounts.id = webhook_notifications.account_id
LEFT JOIN webhook_endpoints ON webhook_endpoints.id = webhook_deliveries.endpoint_id
"""


def create() -> None:
    """Create the four views."""
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
            first_token=seconds("totals.started_at", "totals.first_token_at"),
            engine=seconds("totals.started_at", "totals.ended_at"),
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
    op.execute(
        _DELIVERIES.format(
            delivery=shown("dlv", "webhook_deliveries.id"),
            notification=shown("evt", "webhook_notifications.id"),
            job=shown("job", "webhook_notifications.job_id"),
            endpoint=shown("we", "webhook_deliveries.endpoint_id"),
        )
    )


def drop() -> None:
    """Drop them."""
    for view in ("history_deliveries", "history_timeline", "history_attempts", "history_jobs"):
        op.execute(f"DROP VIEW {view}")


def _shown_on_postgresql(kind: str, column: str) -> str:
    return f"'{kind}_' || replace(CAST({column} AS text), '-', '')"


def _shown_on_sqlite(kind: str, column: str) -> str:
    return f"'{kind}_' || {column}"


def _seconds_on_postgresql(start: str, end: str) -> str:
    return f"CAST(round(extract(epoch FROM {end} - {start}), 3) AS double precision)"


def _seconds_on_sqlite(start: str, end: str) -> str:
    """Return the difference; SQLite stores Julian days as milliseconds."""
    return f"round((julianday({end}) - julianday({start})) * 86400.0, 3)"
