"""The tables and indexes of revision 0100."""

from typing import Any, Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

_ID: Final = sa.Uuid()
_TEXT: Final = sa.Text()
_INTEGER: Final = sa.Integer()
_BIG: Final = sa.BigInteger()
_BOOLEAN: Final = sa.Boolean()
_DOUBLE: Final[sa.Double[float]] = sa.Double()
_BYTES: Final = sa.LargeBinary()
_TIME: Final = sa.DateTime(timezone=True)
_JSON: Final = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_SERIAL: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_PRIORITIES: Final = ("high", "normal", "low")
_STATUSES: Final = ("queued", "running", "succeeded", "failed", "cancelled")
#: On SQLite the key of the table is the table, instead of a second b-tree: see :mod:`jobs.records.declarative`.
_KEY_IS_TABLE: Final = {"sqlite_with_rowid": False}
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
    op.create_table(
        "accounts",
        *_key(_ID, "id"),
        *_required(_TEXT, "name"),
        *_required(_TIME, "created_at"),
        *_optional(_INTEGER, "storage_mb"),
        *_optional(_TIME, "storage_recounted_at"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "api_keys",
        *_key(_ID, "id"),
        _reference("account_id", "accounts"),
        _word("role", "read", "submit", "operate", "admin"),
        *_required(_TEXT, "name"),
        *_required(_BYTES, "digest"),
        *_required(_TEXT, "redacted_key"),
        *_required(_TIME, "created_at"),
        *_optional(_TIME, "revoked_at"),
        *_optional(_INTEGER, "requests_per_minute", "max_body_mb"),
        _word("max_priority", *_PRIORITIES, nullable=True),
        sa.UniqueConstraint("digest"),
    )
    _index("api_keys", "account_id")
    op.create_table(
        "storage_totals",
        _reference("account_id", "accounts", primary_key=True),
        *_key(_TEXT, "kind"),
        *_required(_BIG, "bytes"),
        **_KEY_IS_TABLE,
    )
    op.create_table(
        "storage_changes",
        sa.Column("id", _SERIAL, autoincrement=True, primary_key=True),
        *_required(_ID, "account_id"),
        *_required(_TEXT, "kind"),
        *_required(_BIG, "bytes"),
    )
    _index("storage_changes", "account_id", "kind", "bytes")


def _create_images() -> None:
    op.create_table(
        "image_bytes",
        _reference("account_id", "accounts", primary_key=True),
        *_key(_TEXT, "image_key"),
        *_required(_BYTES, "data"),
    )
    op.create_table(
        "images",
        *_key(_ID, "id"),
        _reference("account_id", "accounts"),
        *_required(_TEXT, "image_key", "detail", "pipeline", "media_type"),
        *_required(_INTEGER, "width", "height"),
        *_required(_TEXT, "original_sha256"),
        *_required(_INTEGER, "original_bytes"),
        *_required(_TEXT, "original_media_type"),
        *_required(_INTEGER, "original_width", "original_height", "orientation", "frames"),
        *_required(_TIME, "created_at"),
        *_optional(_TIME, "uploaded_at", "removed_at"),
        sa.UniqueConstraint("original_sha256", "account_id", "detail", "pipeline"),
    )
    _index("images", "account_id", "image_key")
    _partial("ix_images_uploaded", "images", ["uploaded_at"], "uploaded_at IS NOT NULL")
    op.create_table(
        "image_crashes",
        _reference("account_id", "accounts", primary_key=True),
        *_key(_TEXT, "image_key"),
        *_required(_INTEGER, "crashes"),
        *_required(_TIME, "last_crashed_at"),
        *_optional(_TIME, "quarantined_at", "released_at"),
        *_optional(_TEXT, "released_by"),
        **_KEY_IS_TABLE,
    )
    _partial(
        "ix_image_crashes_quarantined",
        "image_crashes",
        ["quarantined_at"],
        "quarantined_at IS NOT NULL",
    )


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        *_key(_ID, "id"),
        _reference("account_id", "accounts"),
        _word("status", *_STATUSES),
        *_required(_TEXT, "model"),
        *_optional(_TEXT, "question"),
        *_required(_JSON, "options", "metadata"),
        _word("priority", *_PRIORITIES),
        *_required(_TIME, "ordering_at", "not_before", "deadline_at"),
        *_required(_INTEGER, "attempt"),
        sa.Column("last_sequence_number", _BIG, server_default="0", nullable=False),
        *_required(_INTEGER, "crashes", "failures", "max_attempts"),
        *_optional(_JSON, "webhook"),
        *_optional(_TEXT, "lease_owner"),
        *_optional(_TIME, "lease_expires_at", "cancel_requested_at", "engine_stopped_at"),
        *_optional(_TEXT, "answer_text", "answer_rule"),
        *_optional(_JSON, "answer_value"),
        *_optional(_BOOLEAN, "answer_forced"),
        *_optional(_JSON, "votes"),
        *_optional(_DOUBLE, "confidence"),
        *_optional(_TEXT, "finish_reason", "error_code", "error_message"),
        *_optional(_BOOLEAN, "error_retryable"),
        *_optional(_INTEGER, "input_tokens", "cached_tokens", "image_tokens", "output_tokens"),
        *_optional(_DOUBLE, "engine_seconds"),
        *_optional(_TEXT, "idempotency_key", "fingerprint"),
        *_required(_TEXT, "request_id"),
        _reference("rerun_of", "jobs", nullable=True),
        _reference("group_id", "jobs", nullable=True),
        *_required(_TIME, "created_at"),
        *_optional(
            _TIME,
            "started_at",
            "first_token_at",
            "finished_at",
            "data_removed_at",
            "images_released_at",
            "trace_removed_at",
            "answer_removed_at",
            "timeline_removed_at",
        ),
        sa.CheckConstraint(
            "(status = 'running') = (lease_expires_at IS NOT NULL)", name="lease_expires_at"
        ),
        sa.CheckConstraint("(status = 'running') = (lease_owner IS NOT NULL)", name="lease_owner"),
        sa.CheckConstraint(
            "(status IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)",
            name="finished_at",
        ),
        sa.UniqueConstraint("account_id", "idempotency_key"),
    )
    _index("jobs", "account_id", "id")
    _index("jobs", "account_id", "status", "id")
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
        _reference("account_id", "accounts", primary_key=True),
        _word("priority", *_PRIORITIES, primary_key=True),
        *_required(_INTEGER, "step"),
        *_required(_BIG, "next_turn", "served_turn"),
        **_KEY_IS_TABLE,
    )
    op.create_index("ix_queue_turns_next", "queue_turns", ["next_turn", "step", "account_id"])
    op.create_table(
        "job_images",
        _reference("job_id", "jobs", primary_key=True),
        *_key(_INTEGER, "position"),
        _reference("image_id", "images"),
        *_required(_INTEGER, "tokens"),
        **_KEY_IS_TABLE,
    )
    _index("job_images", "image_id", "job_id")


def _create_runs() -> None:
    op.create_table(
        "workers",
        *_key(_TEXT, "id"),
        *_required(_TEXT, "host"),
        *_required(_INTEGER, "pid"),
        *_required(_TEXT, "version"),
        *_required(_INTEGER, "slots"),
        *_required(_TIME, "started_at", "seen_at"),
        *_required(_BOOLEAN, "draining"),
        *_optional(_JSON, "engines"),
    )
    _index("workers", "seen_at")
    op.create_table(
        "attempts",
        _reference("job_id", "jobs", primary_key=True),
        *_key(_INTEGER, "number"),
        *_required(_TEXT, "worker"),
        *_required(_TIME, "claimed_at"),
        *_optional(_TIME, "ended_at"),
        _word(
            "outcome",
            "succeeded",
            "failed",
            "cancelled",
            "released",
            "retried",
            "lost",
            nullable=True,
        ),
        *_optional(_TEXT, "error_code", "error_message", "engine", "engine_version", "model"),
        *_optional(_JSON, "prompt", "sampling"),
        *_optional(_BIG, "valid_through"),
    )
    op.create_table(
        "generations",
        *_key(_ID, "job_id"),
        *_key(_INTEGER, "attempt", "number"),
        *_required(_TEXT, "rid"),
        *_optional(_TEXT, "output"),
        *_optional(_BYTES, "event_index"),
        *_optional(_JSON, "steps"),
        *_optional(_TEXT, "finish_reason"),
        *_optional(_INTEGER, "input_tokens", "cached_tokens", "image_tokens"),
        *_required(_INTEGER, "output_tokens"),
        *_required(_TIME, "started_at"),
        *_optional(_TIME, "first_token_at", "ended_at"),
        *_optional(_INTEGER, "continues", "valid_chars"),
        *_optional(_TEXT, "inserted"),
        sa.ForeignKeyConstraint(
            ["job_id", "attempt", "continues"],
            ["generations.job_id", "generations.attempt", "generations.number"],
        ),
        sa.ForeignKeyConstraint(["job_id", "attempt"], ["attempts.job_id", "attempts.number"]),
    )
    op.create_table(
        "trace_chunks",
        *_key(_ID, "job_id"),
        *_key(_INTEGER, "attempt", "generation", "position"),
        *_required(_TEXT, "text"),
        *_optional(_BYTES, "event_index"),
        *_optional(_BIG, "last_sequence_number"),
        *_required(_TIME, "at"),
        sa.ForeignKeyConstraint(
            ["job_id", "attempt", "generation"],
            ["generations.job_id", "generations.attempt", "generations.number"],
        ),
    )
    op.create_table(
        "findings",
        *_key(_ID, "job_id"),
        *_key(_INTEGER, "attempt", "generation"),
        *_key(_TEXT, "kind"),
        *_required(_INTEGER, "start_char", "end_char"),
        *_required(_TEXT, "action"),
        *_required(_JSON, "evidence"),
        *_required(_INTEGER, "tokens_saved"),
        *_required(_TIME, "found_at"),
        sa.ForeignKeyConstraint(
            ["job_id", "attempt", "generation"],
            ["generations.job_id", "generations.attempt", "generations.number"],
        ),
        **_KEY_IS_TABLE,
    )
    _index("findings", "kind", "job_id")
    op.create_table(
        "search_texts",
        sa.Column("id", _SERIAL, autoincrement=True, primary_key=True),
        _reference("job_id", "jobs"),
        _reference("account_id", "accounts"),
        _word("part", "question", "answer", "trace"),
        *_required(_TEXT, "text"),
    )
    _index("search_texts", "job_id", "part")
    op.create_table(
        "timeline",
        sa.Column("id", _SERIAL, autoincrement=True, primary_key=True),
        _reference("job_id", "jobs"),
        *_required(_TIME, "at"),
        *_required(_TEXT, "actor", "action"),
        *_required(_JSON, "changes"),
        *_optional(_BIG, "sequence_number"),
    )
    _index("timeline", "job_id", "id")


def _create_receivers() -> None:
    op.create_table(
        "webhook_endpoints",
        *_key(_ID, "id"),
        _reference("account_id", "accounts"),
        *_required(_TEXT, "name", "url"),
        *_required(_JSON, "event_types"),
        *_optional(_BYTES, "secret"),
        *_required(_TEXT, "redacted_secret"),
        *_optional(_BYTES, "previous_secret"),
        *_optional(_TIME, "previous_expires_at"),
        *_required(_TIME, "created_at", "updated_at"),
        *_optional(_TIME, "disabled_at"),
        *_optional(_TEXT, "disabled_reason"),
        *_optional(_TIME, "failing_since", "last_failed_at", "deleted_at"),
    )
    _index("webhook_endpoints", "account_id", "id")
    op.create_table(
        "webhook_secrets",
        _reference("account_id", "accounts", primary_key=True),
        *_required(_BYTES, "secret"),
        *_required(_TEXT, "redacted_secret"),
        *_optional(_BYTES, "previous_secret"),
        *_optional(_TIME, "previous_expires_at"),
        *_required(_TIME, "created_at", "updated_at"),
    )
    op.create_table(
        "signing_keys",
        sa.Column("number", _INTEGER, autoincrement=False, primary_key=True),
        *_required(_BYTES, "private_key"),
        *_required(_TEXT, "public_key"),
        *_required(_TIME, "created_at"),
        sa.CheckConstraint("number = 1", name="number"),
    )
    op.create_table(
        "webhook_queues",
        *_key(_ID, "id"),
        _reference("account_id", "accounts"),
        *_required(_TEXT, "origin"),
        *_required(_INTEGER, "failures"),
        *_optional(_TIME, "delivered_at", "served_at"),
    )
    op.create_table(
        "webhook_recoveries",
        *_key(_ID, "id"),
        _reference("endpoint_id", "webhook_endpoints"),
        *_required(_TIME, "since"),
        *_optional(_ID, "last_delivery_id"),
        *_required(_INTEGER, "resent"),
        *_required(_TIME, "created_at"),
        *_optional(_TIME, "ended_at"),
    )
    _partial("ix_webhook_recoveries_open", "webhook_recoveries", ["id"], "ended_at IS NULL")


def _create_deliveries() -> None:
    op.create_table(
        "outbox",
        *_key(_ID, "id"),
        _reference("job_id", "jobs"),
        _reference("account_id", "accounts"),
        _word("status", *_STATUSES),
        *_required(_TIME, "at"),
    )
    _index("outbox", "account_id", "id")
    op.create_table(
        "webhook_notifications",
        *_key(_ID, "id"),
        _reference("account_id", "accounts"),
        *_required(_TEXT, "type"),
        _reference("job_id", "jobs", nullable=True),
        *_required(_BYTES, "payload"),
        *_required(_TIME, "created_at"),
        *_optional(_TIME, "reduced_at"),
    )
    _index("webhook_notifications", "job_id", "id")
    _index("webhook_notifications", "created_at")
    _partial(
        "ix_webhook_notifications_unreduced",
        "webhook_notifications",
        ["created_at"],
        "reduced_at IS NULL AND job_id IS NOT NULL",
    )
    op.create_table(
        "webhook_deliveries",
        *_key(_ID, "id"),
        _reference("notification_id", "webhook_notifications"),
        _reference("queue_id", "webhook_queues"),
        _reference("endpoint_id", "webhook_endpoints", nullable=True),
        *_required(_TEXT, "url"),
        _word("status", "pending", "delivered", "failed"),
        *_optional(_TEXT, "error_code"),
        *_required(_INTEGER, "attempt_count"),
        *_required(_TIME, "created_at"),
        *_optional(_TIME, "delivered_at"),
        sa.UniqueConstraint("notification_id", "queue_id", "url"),
    )
    _index("webhook_deliveries", "endpoint_id", "id")
    _partial(
        "ix_webhook_deliveries_pending", "webhook_deliveries", ["created_at"], "status = 'pending'"
    )
    op.create_table(
        "webhook_attempts",
        *_key(_ID, "id"),
        _reference("delivery_id", "webhook_deliveries"),
        _reference("queue_id", "webhook_queues"),
        *_required(_INTEGER, "number"),
        _word("kind", "automatic", "manual", "recover", "test"),
        *_required(_INTEGER, "step"),
        _word("state", "due", "sending", "ended"),
        *_required(_TIME, "due_at"),
        *_optional(_TEXT, "owner"),
        *_optional(_TIME, "lease_expires_at", "started_at", "ended_at"),
        _word("outcome", "delivered", "failed", "lost", "skipped", nullable=True),
        *_optional(_TEXT, "url"),
        *_optional(_JSON, "request_headers"),
        *_optional(_INTEGER, "status_code"),
        *_optional(_BYTES, "response_body"),
        *_optional(_TEXT, "error_code"),
        *_optional(_DOUBLE, "seconds"),
        *_optional(_TEXT, "address"),
        *_optional(_TIME, "next_at"),
        sa.CheckConstraint("(state = 'ended') = (outcome IS NOT NULL)", name="ended"),
        sa.CheckConstraint(
            "(state = 'sending') = (lease_expires_at IS NOT NULL)", name="lease_expires_at"
        ),
        sa.UniqueConstraint("delivery_id", "number"),
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
    _index("jobs", "status", "id")
    op.create_index(
        "ix_jobs_metadata",
        "jobs",
        ["metadata"],
        postgresql_using="gin",
        postgresql_ops={"metadata": "jsonb_path_ops"},
    )


def _key(kind: sa.types.TypeEngine[Any], *names: str) -> list[sa.Column[Any]]:
    """Return columns of the primary key."""
    return [sa.Column(name, kind, primary_key=True) for name in names]


def _required(kind: sa.types.TypeEngine[Any], *names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind, nullable=False) for name in names]


def _optional(kind: sa.types.TypeEngine[Any], *names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind, nullable=True) for name in names]


def _reference(
    name: str, table: str, *, primary_key: bool = False, nullable: bool = False
) -> sa.Column[Any]:
    """Return a foreign key to the id of ``table``."""
    key = sa.ForeignKey(f"{table}.id")
    return sa.Column(name, _ID, key, primary_key=primary_key, nullable=nullable)


def _word(
    name: str, *words: str, primary_key: bool = False, nullable: bool = False
) -> sa.Column[Any]:
    """Return a column of text with a CHECK over ``words``."""
    kind = sa.Enum(*words, name=name, native_enum=False, create_constraint=True, length=16)
    return sa.Column(name, kind, primary_key=primary_key, nullable=nullable)


def _index(table: str, *columns: str) -> None:
    op.create_index(f"ix_{table}_{'_'.join(columns)}", table, columns)


def _partial(name: str, table: str, columns: list[str], condition: str) -> None:
    """Create an index of the rows that meet ``condition``."""
    where = sa.text(condition)
    op.create_index(name, table, columns, postgresql_where=where, sqlite_where=where)
