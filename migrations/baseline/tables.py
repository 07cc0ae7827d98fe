"""The tables and indexes of revision 0100."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

_TIME: Final = sa.DateTime(timezone=True)
_JSON: Final = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_SERIAL: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
#: In the order of their creation: each refers to those before it, or to itself.
TABLES: Final = (
    "accounts",
    "api_keys",
    "storage_totals",
    "storage_changes",
    "image_bytes",
    "images",
    "image_crashes",
    "jobs",
    "queue_turns",
    "job_images",
    "workers",
    "attempts",
    "generations",
    "trace_chunks",
    "findings",
    "search_texts",
    "timeline",
    "webhook_endpoints",
    "webhook_secrets",
    "signing_keys",
    "webhook_queues",
    "webhook_recoveries",
    "outbox",
    "webhook_notifications",
    "webhook_deliveries",
    "webhook_attempts",
)


def create() -> None:
    """Create all tables and indexes."""
    _create_accounts()
    _create_images()
    _create_jobs()
    _create_runs()
    _create_receivers()
    _create_deliveries()
    if op.get_bind().dialect.name == "postgresql":
        _create_postgresql_indexes()


def drop() -> None:
    """Drop all tables, with their indexes and triggers."""
    for name in reversed(TABLES):
        op.drop_table(name)


def _create_accounts() -> None:
    """Create the tables of accounts, their keys, and what they store."""
    op.create_table(
        "accounts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("storage_mb", sa.Integer(), nullable=True),
        sa.Column("storage_recounted_at", _TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
        sa.UniqueConstraint("name", name=op.f("uq_accounts_name")),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column(
            "role",
            _words(
                "role",
                "read",
                "submit",
                "operate",
                "admin",
            ),
            nullable=False,
        ),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("redacted_key", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("revoked_at", _TIME, nullable=True),
        sa.Column("requests_per_minute", sa.Integer(), nullable=True),
        sa.Column("max_body_mb", sa.Integer(), nullable=True),
        sa.Column(
            "max_priority",
            _words(
                "max_priority",
                "high",
                "normal",
                "low",
            ),
            nullable=True,
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_api_keys_account_id_accounts")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("digest", name=op.f("uq_api_keys_digest")),
    )
    op.create_index("ix_api_keys_account_id", "api_keys", ["account_id"])
    op.create_table(
        "storage_totals",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_storage_totals_account_id_accounts")
        ),
        sa.PrimaryKeyConstraint("account_id", "kind", name=op.f("pk_storage_totals")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "storage_changes",
        sa.Column("id", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_storage_changes")),
    )
    op.create_index(
        "ix_storage_changes_account_id_kind_bytes",
        "storage_changes",
        ["account_id", "kind", "bytes"],
    )


def _create_images() -> None:
    """Create the tables of images, and what engines did over them."""
    op.create_table(
        "image_bytes",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("image_key", sa.Text(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_image_bytes_account_id_accounts")
        ),
        sa.PrimaryKeyConstraint("account_id", "image_key", name=op.f("pk_image_bytes")),
    )
    op.create_table(
        "images",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("image_key", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("pipeline", sa.Text(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("original_sha256", sa.Text(), nullable=False),
        sa.Column("original_bytes", sa.Integer(), nullable=False),
        sa.Column("original_media_type", sa.Text(), nullable=False),
        sa.Column("original_width", sa.Integer(), nullable=False),
        sa.Column("original_height", sa.Integer(), nullable=False),
        sa.Column("orientation", sa.Integer(), nullable=False),
        sa.Column("frames", sa.Integer(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("uploaded_at", _TIME, nullable=True),
        sa.Column("removed_at", _TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_images_account_id_accounts")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_images")),
        sa.UniqueConstraint(
            "original_sha256",
            "account_id",
            "detail",
            "pipeline",
            name=op.f("uq_images_original_sha256_account_id_detail_pipeline"),
        ),
    )
    op.create_index("ix_images_account_id_image_key", "images", ["account_id", "image_key"])
    _partial("ix_images_uploaded", "images", ["uploaded_at"], "uploaded_at IS NOT NULL")
    op.create_table(
        "image_crashes",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("image_key", sa.Text(), nullable=False),
        sa.Column("crashes", sa.Integer(), nullable=False),
        sa.Column("last_crashed_at", _TIME, nullable=False),
        sa.Column("quarantined_at", _TIME, nullable=True),
        sa.Column("released_at", _TIME, nullable=True),
        sa.Column("released_by", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_image_crashes_account_id_accounts")
        ),
        sa.PrimaryKeyConstraint("account_id", "image_key", name=op.f("pk_image_crashes")),
        sqlite_with_rowid=False,
    )
    _partial(
        "ix_image_crashes_quarantined",
        "image_crashes",
        ["quarantined_at"],
        "quarantined_at IS NOT NULL",
    )


def _create_jobs() -> None:
    """Create the tables of jobs and the queue."""
    op.create_table(
        "jobs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column(
            "status",
            _words(
                "status",
                "queued",
                "running",
                "succeeded",
                "failed",
                "cancelled",
            ),
            nullable=False,
        ),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("question", sa.Text(), nullable=True),
        sa.Column("options", _JSON, nullable=False),
        sa.Column("metadata", _JSON, nullable=False),
        sa.Column(
            "priority",
            _words(
                "priority",
                "high",
                "normal",
                "low",
            ),
            nullable=False,
        ),
        sa.Column("ordering_at", _TIME, nullable=False),
        sa.Column("not_before", _TIME, nullable=False),
        sa.Column("deadline_at", _TIME, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("last_sequence_number", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("crashes", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("webhook", _JSON, nullable=True),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_expires_at", _TIME, nullable=True),
        sa.Column("cancel_requested_at", _TIME, nullable=True),
        sa.Column("engine_stopped_at", _TIME, nullable=True),
        sa.Column("answer_text", sa.Text(), nullable=True),
        sa.Column("answer_rule", sa.Text(), nullable=True),
        sa.Column("answer_value", _JSON, nullable=True),
        sa.Column("answer_forced", sa.Boolean(), nullable=True),
        sa.Column("votes", _JSON, nullable=True),
        sa.Column("confidence", sa.Double(), nullable=True),
        sa.Column("finish_reason", sa.Text(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("error_retryable", sa.Boolean(), nullable=True),
        sa.Column("input_tokens", sa.Integer(), nullable=True),
        sa.Column("cached_tokens", sa.Integer(), nullable=True),
        sa.Column("image_tokens", sa.Integer(), nullable=True),
        sa.Column("output_tokens", sa.Integer(), nullable=True),
        sa.Column("engine_seconds", sa.Double(), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.Text(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("rerun_of", sa.Uuid(), nullable=True),
        sa.Column("group_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("started_at", _TIME, nullable=True),
        sa.Column("first_token_at", _TIME, nullable=True),
        sa.Column("finished_at", _TIME, nullable=True),
        sa.Column("data_removed_at", _TIME, nullable=True),
        sa.Column("images_released_at", _TIME, nullable=True),
        sa.Column("trace_removed_at", _TIME, nullable=True),
        sa.Column("answer_removed_at", _TIME, nullable=True),
        sa.Column("timeline_removed_at", _TIME, nullable=True),
        sa.CheckConstraint(
            "(status = 'running') = (lease_expires_at IS NOT NULL)",
            name=op.f("ck_jobs_lease_expires_at"),
        ),
        sa.CheckConstraint(
            "(status = 'running') = (lease_owner IS NOT NULL)", name=op.f("ck_jobs_lease_owner")
        ),
        sa.CheckConstraint(
            "(status IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)",
            name=op.f("ck_jobs_finished_at"),
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_jobs_account_id_accounts")
        ),
        sa.ForeignKeyConstraint(["group_id"], ["jobs.id"], name=op.f("fk_jobs_group_id_jobs")),
        sa.ForeignKeyConstraint(["rerun_of"], ["jobs.id"], name=op.f("fk_jobs_rerun_of_jobs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        sa.UniqueConstraint(
            "account_id", "idempotency_key", name=op.f("uq_jobs_account_id_idempotency_key")
        ),
    )
    op.create_index("ix_jobs_account_id_id", "jobs", ["account_id", "id"])
    op.create_index("ix_jobs_account_id_status_id", "jobs", ["account_id", "status", "id"])
    _partial("ix_jobs_claim", "jobs", ["ordering_at", "id"], "status = 'queued'")
    _partial("ix_jobs_deadline", "jobs", ["deadline_at"], "status = 'queued'")
    _partial("ix_jobs_ended", "jobs", ["finished_at"], "finished_at IS NOT NULL")
    # After ix_jobs_ended: of indexes with equal costs both databases use the one that was created last.
    _partial(
        "ix_jobs_answer_stored",
        "jobs",
        ["finished_at"],
        "finished_at IS NOT NULL AND answer_removed_at IS NULL AND data_removed_at IS NULL",
    )
    _partial("ix_jobs_error", "jobs", ["error_code", "id"], "error_code IS NOT NULL")
    _partial("ix_jobs_finished", "jobs", ["finished_at"], "status = 'succeeded'")
    _partial("ix_jobs_group", "jobs", ["group_id", "id"], "group_id IS NOT NULL")
    _partial(
        "ix_jobs_images_stored",
        "jobs",
        ["finished_at"],
        "finished_at IS NOT NULL AND images_released_at IS NULL AND data_removed_at IS NULL",
    )
    _partial("ix_jobs_lease", "jobs", ["lease_expires_at"], "status = 'running'")
    _partial("ix_jobs_rerun_of", "jobs", ["rerun_of"], "rerun_of IS NOT NULL")
    _partial(
        "ix_jobs_timeline_stored",
        "jobs",
        ["finished_at"],
        "finished_at IS NOT NULL AND timeline_removed_at IS NULL",
    )
    _partial(
        "ix_jobs_trace_stored",
        "jobs",
        ["finished_at"],
        "finished_at IS NOT NULL AND trace_removed_at IS NULL AND data_removed_at IS NULL",
    )
    _partial(
        "ix_jobs_turn",
        "jobs",
        ["account_id", "priority", "ordering_at", "id"],
        "lease_owner IS NULL AND finished_at IS NULL",
    )
    op.create_table(
        "queue_turns",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column(
            "priority",
            _words(
                "priority",
                "high",
                "normal",
                "low",
            ),
            nullable=False,
        ),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("next_turn", sa.BigInteger(), nullable=False),
        sa.Column("served_turn", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_queue_turns_account_id_accounts")
        ),
        sa.PrimaryKeyConstraint("account_id", "priority", name=op.f("pk_queue_turns")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_queue_turns_next", "queue_turns", ["next_turn", "step", "account_id"])
    op.create_table(
        "job_images",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Uuid(), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["image_id"], ["images.id"], name=op.f("fk_job_images_image_id_images")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_images_job_id_jobs")),
        sa.PrimaryKeyConstraint("job_id", "position", name=op.f("pk_job_images")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_job_images_image_id_job_id", "job_images", ["image_id", "job_id"])


def _create_runs() -> None:
    """Create the tables of attempts, generations, and what is known of them."""
    op.create_table(
        "workers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("seen_at", _TIME, nullable=False),
        sa.Column("draining", sa.Boolean(), nullable=False),
        sa.Column("engines", _JSON, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    op.create_index("ix_workers_seen_at", "workers", ["seen_at"])
    op.create_table(
        "attempts",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("claimed_at", _TIME, nullable=False),
        sa.Column("ended_at", _TIME, nullable=True),
        sa.Column(
            "outcome",
            _words(
                "outcome",
                "succeeded",
                "failed",
                "cancelled",
                "released",
                "retried",
                "lost",
            ),
            nullable=True,
        ),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("engine", sa.Text(), nullable=True),
        sa.Column("engine_version", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("prompt", _JSON, nullable=True),
        sa.Column("sampling", _JSON, nullable=True),
        sa.Column("valid_through", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_attempts_job_id_jobs")),
        sa.PrimaryKeyConstraint("job_id", "number", name=op.f("pk_attempts")),
    )
    op.create_table(
        "generations",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("rid", sa.Text(), nullable=False),
        sa.Column("output", sa.Text(), nullable=True),
        sa.Column("event_index", sa.LargeBinary(), nullable=True),
        sa.Column("steps", _JSON, nullable=True),
        sa.Column("finish_reason", sa.Text(), nullable=True),
        sa.Column("input_tokens", sa.Integer(), nullable=True),
        sa.Column("cached_tokens", sa.Integer(), nullable=True),
        sa.Column("image_tokens", sa.Integer(), nullable=True),
        sa.Column("output_tokens", sa.Integer(), nullable=False),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("first_token_at", _TIME, nullable=True),
        sa.Column("ended_at", _TIME, nullable=True),
        sa.Column("continues", sa.Integer(), nullable=True),
        sa.Column("valid_chars", sa.Integer(), nullable=True),
        sa.Column("inserted", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["job_id", "attempt", "continues"],
            ["generations.job_id", "generations.attempt", "generations.number"],
            name=op.f("fk_generations_job_id_attempt_continues_generations"),
        ),
        sa.ForeignKeyConstraint(
            ["job_id", "attempt"],
            ["attempts.job_id", "attempts.number"],
            name=op.f("fk_generations_job_id_attempt_attempts"),
        ),
        sa.PrimaryKeyConstraint("job_id", "attempt", "number", name=op.f("pk_generations")),
    )
    op.create_table(
        "trace_chunks",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("event_index", sa.LargeBinary(), nullable=True),
        sa.Column("last_sequence_number", sa.BigInteger(), nullable=True),
        sa.Column("at", _TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id", "attempt", "generation"],
            ["generations.job_id", "generations.attempt", "generations.number"],
            name=op.f("fk_trace_chunks_job_id_attempt_generation_generations"),
        ),
        sa.PrimaryKeyConstraint(
            "job_id", "attempt", "generation", "position", name=op.f("pk_trace_chunks")
        ),
    )
    op.create_table(
        "findings",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("start_char", sa.Integer(), nullable=False),
        sa.Column("end_char", sa.Integer(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("evidence", _JSON, nullable=False),
        sa.Column("tokens_saved", sa.Integer(), nullable=False),
        sa.Column("found_at", _TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id", "attempt", "generation"],
            ["generations.job_id", "generations.attempt", "generations.number"],
            name=op.f("fk_findings_job_id_attempt_generation_generations"),
        ),
        sa.PrimaryKeyConstraint(
            "job_id", "attempt", "generation", "kind", name=op.f("pk_findings")
        ),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_findings_kind_job_id", "findings", ["kind", "job_id"])
    op.create_table(
        "search_texts",
        sa.Column("id", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column(
            "part",
            _words(
                "part",
                "question",
                "answer",
                "trace",
            ),
            nullable=False,
        ),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_search_texts_account_id_accounts")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_search_texts_job_id_jobs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_search_texts")),
    )
    op.create_index("ix_search_texts_job_id_part", "search_texts", ["job_id", "part"])
    op.create_table(
        "timeline",
        sa.Column("id", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("changes", _JSON, nullable=False),
        sa.Column("sequence_number", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_timeline_job_id_jobs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_timeline")),
    )
    op.create_index("ix_timeline_job_id_id", "timeline", ["job_id", "id"])


def _create_receivers() -> None:
    """Create the tables of who receives webhooks, and the keys that sign them."""
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("event_types", _JSON, nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=True),
        sa.Column("redacted_secret", sa.Text(), nullable=False),
        sa.Column("previous_secret", sa.LargeBinary(), nullable=True),
        sa.Column("previous_expires_at", _TIME, nullable=True),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.Column("disabled_at", _TIME, nullable=True),
        sa.Column("disabled_reason", sa.Text(), nullable=True),
        sa.Column("failing_since", _TIME, nullable=True),
        sa.Column("last_failed_at", _TIME, nullable=True),
        sa.Column("deleted_at", _TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_webhook_endpoints_account_id_accounts")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_endpoints")),
    )
    op.create_index("ix_webhook_endpoints_account_id_id", "webhook_endpoints", ["account_id", "id"])
    op.create_table(
        "webhook_secrets",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("redacted_secret", sa.Text(), nullable=False),
        sa.Column("previous_secret", sa.LargeBinary(), nullable=True),
        sa.Column("previous_expires_at", _TIME, nullable=True),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_webhook_secrets_account_id_accounts")
        ),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_webhook_secrets")),
    )
    op.create_table(
        "signing_keys",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("private_key", sa.LargeBinary(), nullable=False),
        sa.Column("public_key", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.CheckConstraint("number = 1", name=op.f("ck_signing_keys_number")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_signing_keys")),
    )
    op.create_table(
        "webhook_queues",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("delivered_at", _TIME, nullable=True),
        sa.Column("served_at", _TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_webhook_queues_account_id_accounts")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_queues")),
    )
    op.create_table(
        "webhook_recoveries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("endpoint_id", sa.Uuid(), nullable=False),
        sa.Column("since", _TIME, nullable=False),
        sa.Column("last_delivery_id", sa.Uuid(), nullable=True),
        sa.Column("resent", sa.Integer(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("ended_at", _TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["endpoint_id"],
            ["webhook_endpoints.id"],
            name=op.f("fk_webhook_recoveries_endpoint_id_webhook_endpoints"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_recoveries")),
    )
    _partial("ix_webhook_recoveries_open", "webhook_recoveries", ["id"], "ended_at IS NULL")


def _create_deliveries() -> None:
    """Create the tables of notifications and their deliveries."""
    op.create_table(
        "outbox",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column(
            "status",
            _words("status", "queued", "running", "succeeded", "failed", "cancelled"),
            nullable=False,
        ),
        sa.Column("at", _TIME, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_outbox_job_id_jobs")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_outbox_account_id_accounts")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
    )
    op.create_index("ix_outbox_account_id_id", "outbox", ["account_id", "id"])
    op.create_table(
        "webhook_notifications",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("reduced_at", _TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["accounts.id"],
            name=op.f("fk_webhook_notifications_account_id_accounts"),
        ),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("fk_webhook_notifications_job_id_jobs")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_notifications")),
    )
    op.create_index("ix_webhook_notifications_job_id_id", "webhook_notifications", ["job_id", "id"])
    op.create_index("ix_webhook_notifications_created_at", "webhook_notifications", ["created_at"])
    _partial(
        "ix_webhook_notifications_unreduced",
        "webhook_notifications",
        ["created_at"],
        "reduced_at IS NULL AND job_id IS NOT NULL",
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("notification_id", sa.Uuid(), nullable=False),
        sa.Column("queue_id", sa.Uuid(), nullable=False),
        sa.Column("endpoint_id", sa.Uuid(), nullable=True),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column(
            "status",
            _words(
                "status",
                "pending",
                "delivered",
                "failed",
            ),
            nullable=False,
        ),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("attempt_count", sa.Integer(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("delivered_at", _TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["endpoint_id"],
            ["webhook_endpoints.id"],
            name=op.f("fk_webhook_deliveries_endpoint_id_webhook_endpoints"),
        ),
        sa.ForeignKeyConstraint(
            ["notification_id"],
            ["webhook_notifications.id"],
            name=op.f("fk_webhook_deliveries_notification_id_webhook_notifications"),
        ),
        sa.ForeignKeyConstraint(
            ["queue_id"],
            ["webhook_queues.id"],
            name=op.f("fk_webhook_deliveries_queue_id_webhook_queues"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
        sa.UniqueConstraint(
            "notification_id",
            "queue_id",
            "url",
            name=op.f("uq_webhook_deliveries_notification_id_queue_id_url"),
        ),
    )
    op.create_index(
        "ix_webhook_deliveries_endpoint_id_id", "webhook_deliveries", ["endpoint_id", "id"]
    )
    _partial(
        "ix_webhook_deliveries_pending", "webhook_deliveries", ["created_at"], "status = 'pending'"
    )
    op.create_table(
        "webhook_attempts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("delivery_id", sa.Uuid(), nullable=False),
        sa.Column("queue_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column(
            "kind",
            _words(
                "kind",
                "automatic",
                "manual",
                "recover",
                "test",
            ),
            nullable=False,
        ),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column(
            "state",
            _words(
                "state",
                "due",
                "sending",
                "ended",
            ),
            nullable=False,
        ),
        sa.Column("due_at", _TIME, nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("lease_expires_at", _TIME, nullable=True),
        sa.Column("started_at", _TIME, nullable=True),
        sa.Column("ended_at", _TIME, nullable=True),
        sa.Column(
            "outcome",
            _words(
                "outcome",
                "delivered",
                "failed",
                "lost",
                "skipped",
            ),
            nullable=True,
        ),
        sa.Column("url", sa.Text(), nullable=True),
        sa.Column("request_headers", _JSON, nullable=True),
        sa.Column("status_code", sa.Integer(), nullable=True),
        sa.Column("response_body", sa.LargeBinary(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column("next_at", _TIME, nullable=True),
        sa.CheckConstraint(
            "(state = 'ended') = (outcome IS NOT NULL)", name=op.f("ck_webhook_attempts_ended")
        ),
        sa.CheckConstraint(
            "(state = 'sending') = (lease_expires_at IS NOT NULL)",
            name=op.f("ck_webhook_attempts_lease_expires_at"),
        ),
        sa.ForeignKeyConstraint(
            ["delivery_id"],
            ["webhook_deliveries.id"],
            name=op.f("fk_webhook_attempts_delivery_id_webhook_deliveries"),
        ),
        sa.ForeignKeyConstraint(
            ["queue_id"],
            ["webhook_queues.id"],
            name=op.f("fk_webhook_attempts_queue_id_webhook_queues"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_attempts")),
        sa.UniqueConstraint(
            "delivery_id", "number", name=op.f("uq_webhook_attempts_delivery_id_number")
        ),
    )
    _partial("ix_webhook_attempts_due", "webhook_attempts", ["due_at"], "state = 'due'")
    _partial(
        "ix_webhook_attempts_queue",
        "webhook_attempts",
        ["queue_id", "due_at", "id"],
        "state = 'due'",
    )
    _partial(
        "ix_webhook_attempts_sending",
        "webhook_attempts",
        ["queue_id", "lease_expires_at"],
        "state = 'sending'",
    )


def _create_postgresql_indexes() -> None:
    """Create the indexes of jobs that only PostgreSQL has.

    Without statistics SQLite would prefer the one by status to all others, and sort the queue for each claim.
    """
    op.create_index("ix_jobs_status_id", "jobs", ["status", "id"])
    op.create_index(
        "ix_jobs_metadata",
        "jobs",
        ["metadata"],
        postgresql_using="gin",
        postgresql_ops={"metadata": "jsonb_path_ops"},
    )


def _words(name: str, *words: str) -> sa.Enum:
    """Return a text type with a CHECK over ``words``."""
    return sa.Enum(*words, name=name, native_enum=False, create_constraint=True, length=16)


def _partial(name: str, table: str, columns: list[str], condition: str) -> None:
    """Create an index of the rows that meet ``condition``."""
    where = sa.text(condition)
    op.create_index(name, table, columns, postgresql_where=where, sqlite_where=where)
