"""The tables, typed. Rows are plain records: rules are in :mod:`jobs.lifecycle`, verbs in :mod:`jobs.store`.

Times are UTC (:class:`core.database.UTCDateTime`), enumerations are stored by value, ids are UUIDv7.
"""

from __future__ import annotations

import enum
import uuid
from datetime import datetime
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Mapped, mapped_column

from core.database import UTCDateTime
from jobs.delivery import AttemptKind, AttemptOutcome, AttemptState, DeliveryStatus
from jobs.lifecycle import Outcome, Priority, Role, Status
from jobs.phrases import Part

# A value that is not there is NULL, not the JSON value of that name.
_JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def _enum(kind: type[enum.StrEnum], name: str) -> sa.Enum:
    """Return a text column type with a CHECK over the enumeration's values."""
    return sa.Enum(
        kind,
        name=name,
        native_enum=False,
        create_constraint=True,
        length=16,
        values_callable=lambda members: [member.value for member in members],
    )


class Record(orm.DeclarativeBase):
    """The base of all tables; its naming convention gives every constraint a name to migrate by."""

    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UTCDateTime(),
        dict[str, Any]: _JSON,
        list[str]: _JSON,
        str: sa.Text(),
        Status: _enum(Status, "status"),
        Outcome: _enum(Outcome, "outcome"),
        Priority: _enum(Priority, "priority"),
        Role: _enum(Role, "role"),
        DeliveryStatus: _enum(DeliveryStatus, "status"),
        AttemptKind: _enum(AttemptKind, "kind"),
        AttemptState: _enum(AttemptState, "state"),
        AttemptOutcome: _enum(AttemptOutcome, "outcome"),
        Part: _enum(Part, "part"),
    }


#: For tables with a composite key and small rows: on SQLite the key then is the table, instead of a second b-tree.
#: Tables with texts or bytes in their rows stay as they are: without a rowid SQLite reads those rows at each step of a
#: search, which makes it four times as slow at 3 KB a row, and the file larger.
_KEY_IS_TABLE = {"sqlite_with_rowid": False}


def table(record: type[Record]) -> sa.Table:
    """Return the bare table of ``record``: statements that write run sooner without the mapper."""
    found = record.__table__
    assert isinstance(found, sa.Table)  # noqa: S101 - narrows the declarative type for the checker
    return found


class Account(Record):
    """Whom jobs, images and keys belong to."""

    __tablename__ = "accounts"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime]
    #: The storage quota of this account in MiB, 0 for none; None: as the settings say.
    storage_mb: Mapped[int | None]
    #: When all that it stores was last counted from the rows; None: not since the count began.
    storage_recounted_at: Mapped[datetime | None]


class StorageTotal(Record):
    """Bytes that an account stores of one kind, without what :class:`StorageChange` still holds."""

    __tablename__ = "storage_totals"
    __table_args__ = (_KEY_IS_TABLE,)

    account_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("accounts.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    bytes: Mapped[int] = mapped_column(sa.BigInteger())


class StorageChange(Record):
    """Bytes that came or went, written by the triggers of revision 0100 and folded into :class:`StorageTotal`.

    There is no foreign key: it would lock the account's row at each change.
    """

    __tablename__ = "storage_changes"
    __table_args__ = (sa.Index(None, "account_id", "kind", "bytes"),)

    id: Mapped[int] = mapped_column(
        sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True
    )
    account_id: Mapped[uuid.UUID]
    kind: Mapped[str]
    bytes: Mapped[int] = mapped_column(sa.BigInteger())


class ApiKey(Record):
    """A key: an account and a role. The key itself is not kept, only its keyed hash."""

    __tablename__ = "api_keys"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    account_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("accounts.id"), index=True)
    role: Mapped[Role]
    name: Mapped[str]
    #: HMAC-SHA256 of the key with the pepper, 32 bytes.
    digest: Mapped[bytes] = mapped_column(unique=True)
    #: The key's first and last characters, to recognise it by.
    redacted_key: Mapped[str]
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    #: Limits of its own; without them it goes by the settings.
    requests_per_minute: Mapped[int | None]
    max_body_mb: Mapped[int | None]
    #: The highest class of its jobs; without one, that of its role.
    max_priority: Mapped[Priority | None] = mapped_column(_enum(Priority, "max_priority"))


class Image(Record):
    """A picture of an account, at one detail. Facts of the original stay; the bytes are in ImageBytes."""

    __tablename__ = "images"
    __table_args__ = (
        # The hash comes first, so that a search for it over all accounts finds it too.
        sa.UniqueConstraint("original_sha256", "account_id", "detail", "pipeline"),
        sa.Index(None, "account_id", "image_key"),
        sa.Index(
            "ix_images_uploaded",
            "uploaded_at",
            postgresql_where=sa.text("uploaded_at IS NOT NULL"),
            sqlite_where=sa.text("uploaded_at IS NOT NULL"),
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    account_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("accounts.id"))
    #: sha256 of canonical bytes and pipeline version, hex: what the engine's prefix cache goes by.
    image_key: Mapped[str]
    detail: Mapped[str]
    pipeline: Mapped[str]
    media_type: Mapped[str]
    #: Of the canonical picture, in pixels.
    width: Mapped[int]
    height: Mapped[int]
    original_sha256: Mapped[str]
    original_bytes: Mapped[int]
    original_media_type: Mapped[str]
    original_width: Mapped[int]
    original_height: Mapped[int]
    #: EXIF orientation, 1 to 8; it has been applied.
    orientation: Mapped[int]
    frames: Mapped[int]
    created_at: Mapped[datetime]
    #: When it was last uploaded by itself: then it stays when its last job goes. None when it was not.
    uploaded_at: Mapped[datetime | None]
    #: Set when its bytes are gone.
    removed_at: Mapped[datetime | None]


class ImageBytes(Record):
    """The canonical bytes, once per account and image key."""

    __tablename__ = "image_bytes"

    account_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("accounts.id"), primary_key=True)
    image_key: Mapped[str] = mapped_column(primary_key=True)
    data: Mapped[bytes]


class ImageCrashes(Record):
    """A picture of an account that was being looked at when engines died: see :mod:`jobs.store.quarantine`."""

    __tablename__ = "image_crashes"
    __table_args__ = (
        sa.Index(
            "ix_image_crashes_quarantined",
            "quarantined_at",
            postgresql_where=sa.text("quarantined_at IS NOT NULL"),
            sqlite_where=sa.text("quarantined_at IS NOT NULL"),
        ),
        _KEY_IS_TABLE,
    )

    account_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("accounts.id"), primary_key=True)
    image_key: Mapped[str] = mapped_column(primary_key=True)
    #: Engines that died over it since it last did well.
    crashes: Mapped[int]
    last_crashed_at: Mapped[datetime]
    quarantined_at: Mapped[datetime | None]
    released_at: Mapped[datetime | None]
    #: As the timeline names actors.
    released_by: Mapped[str | None]


def _stored(name: str, condition: str) -> sa.Index:
    """Return an index of finished jobs by their end, of those that meet ``condition``."""
    stored = sa.text(f"finished_at IS NOT NULL AND {condition}")
    return sa.Index(name, "finished_at", postgresql_where=stored, sqlite_where=stored)


class Job(Record):
    """A question about images, and all that becomes of it. The row is the truth."""

    __tablename__ = "jobs"
    __table_args__ = (
        sa.CheckConstraint("(status = 'running') = (lease_owner IS NOT NULL)", name="lease_owner"),
        sa.CheckConstraint(
            "(status = 'running') = (lease_expires_at IS NOT NULL)", name="lease_expires_at"
        ),
        sa.CheckConstraint(
            "(status IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)",
            name="finished_at",
        ),
        sa.UniqueConstraint("account_id", "idempotency_key"),
        sa.Index(
            "ix_jobs_claim",
            "ordering_at",
            "id",
            postgresql_where=sa.text("status = 'queued'"),
            sqlite_where=sa.text("status = 'queued'"),
        ),
        # The queue of one account in one class; see jobs.store.turns.waiting.
        sa.Index(
            "ix_jobs_turn",
            "account_id",
            "priority",
            "ordering_at",
            "id",
            postgresql_where=sa.text("lease_owner IS NULL AND finished_at IS NULL"),
            sqlite_where=sa.text("lease_owner IS NULL AND finished_at IS NULL"),
        ),
        sa.Index(
            "ix_jobs_lease",
            "lease_expires_at",
            postgresql_where=sa.text("status = 'running'"),
            sqlite_where=sa.text("status = 'running'"),
        ),
        sa.Index(
            "ix_jobs_deadline",
            "deadline_at",
            postgresql_where=sa.text("status = 'queued'"),
            sqlite_where=sa.text("status = 'queued'"),
        ),
        sa.Index(
            "ix_jobs_finished",
            "finished_at",
            postgresql_where=sa.text("status = 'succeeded'"),
            sqlite_where=sa.text("status = 'succeeded'"),
        ),
        sa.Index(
            "ix_jobs_ended",
            "finished_at",
            postgresql_where=sa.text("finished_at IS NOT NULL"),
            sqlite_where=sa.text("finished_at IS NOT NULL"),
        ),
        # What retention has to do, each class by itself: what is done leaves the index.
        _stored("ix_jobs_images_stored", "images_released_at IS NULL AND data_removed_at IS NULL"),
        _stored("ix_jobs_trace_stored", "trace_removed_at IS NULL AND data_removed_at IS NULL"),
        _stored("ix_jobs_answer_stored", "answer_removed_at IS NULL AND data_removed_at IS NULL"),
        _stored("ix_jobs_timeline_stored", "timeline_removed_at IS NULL"),
        sa.Index(
            "ix_jobs_rerun_of",
            "rerun_of",
            postgresql_where=sa.text("rerun_of IS NOT NULL"),
            sqlite_where=sa.text("rerun_of IS NOT NULL"),
        ),
        sa.Index(
            "ix_jobs_group",
            "group_id",
            "id",
            postgresql_where=sa.text("group_id IS NOT NULL"),
            sqlite_where=sa.text("group_id IS NOT NULL"),
        ),
        sa.Index(
            "ix_jobs_error",
            "error_code",
            "id",
            postgresql_where=sa.text("error_code IS NOT NULL"),
            sqlite_where=sa.text("error_code IS NOT NULL"),
        ),
        sa.Index(None, "account_id", "id"),
        sa.Index(None, "account_id", "status", "id"),
        # Not on SQLite: without statistics, which nobody gathers there, it would prefer this index to all
        # those above, and sort the queue for each claim.
        sa.Index("ix_jobs_status_id", "status", "id").ddl_if(dialect="postgresql"),
        sa.Index(
            "ix_jobs_metadata",
            "metadata",
            postgresql_using="gin",
            postgresql_ops={"metadata": "jsonb_path_ops"},
        ).ddl_if(dialect="postgresql"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    account_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("accounts.id"))
    status: Mapped[Status]
    model: Mapped[str]
    question: Mapped[str | None]
    #: What the caller asked for of sampling: max_output_tokens, temperature, top_p, seed.
    options: Mapped[dict[str, Any]]
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata")
    priority: Mapped[Priority]
    #: Due time minus the head start of the class: the order in which jobs of one account and class are claimed.
    ordering_at: Mapped[datetime]
    #: Not claimed before this.
    not_before: Mapped[datetime]
    deadline_at: Mapped[datetime]

    #: The fencing token: grows by one per claim, never reused.
    attempt: Mapped[int]
    #: The last number of an event that was given away or reserved. The end of a job is the number after it.
    last_sequence_number: Mapped[int] = mapped_column(sa.BigInteger(), server_default="0")
    #: Leases lost.
    crashes: Mapped[int]
    #: Faults after the engine took the request.
    failures: Mapped[int]
    max_attempts: Mapped[int]
    #: What the job itself asks to be told, as :class:`jobs.delivery.Webhook`; None: nothing.
    webhook: Mapped[dict[str, Any] | None]
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]
    engine_stopped_at: Mapped[datetime | None]

    answer_text: Mapped[str | None]
    answer_rule: Mapped[str | None]
    #: The text in the job's ``answer_format`` (:mod:`jobs.answers.values`); None when it holds none.
    answer_value: Mapped[Any | None] = mapped_column(_JSON)
    #: Whether the model was made to answer; None without an answer.
    answer_forced: Mapped[bool | None]
    #: How its samples voted (:class:`jobs.answers.votes.Tally`) and the winner's share; None: there was no vote.
    votes: Mapped[dict[str, Any] | None]
    confidence: Mapped[float | None] = mapped_column(sa.Double())
    finish_reason: Mapped[str | None]
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    error_retryable: Mapped[bool | None]
    input_tokens: Mapped[int | None]
    cached_tokens: Mapped[int | None]
    image_tokens: Mapped[int | None]
    output_tokens: Mapped[int | None]
    engine_seconds: Mapped[float | None]

    idempotency_key: Mapped[str | None]
    #: sha256 of the request that made the job, images by the sha256 of their bytes.
    fingerprint: Mapped[str | None]
    request_id: Mapped[str]
    rerun_of: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("jobs.id"))
    #: The id of the job that leads its group, its own if it leads; see :mod:`jobs.store.groups`.
    group_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("jobs.id"))

    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    first_token_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    #: Question, answer and traces were deleted on request, and its images released.
    data_removed_at: Mapped[datetime | None]
    #: By retention, each class by itself: see :mod:`jobs.store.retention`.
    images_released_at: Mapped[datetime | None]
    trace_removed_at: Mapped[datetime | None]
    answer_removed_at: Mapped[datetime | None]
    timeline_removed_at: Mapped[datetime | None]

    @property
    def trace_removed(self) -> bool:
        """Whether the traces are gone, by request or by retention."""
        return self.data_removed_at is not None or self.trace_removed_at is not None

    @property
    def answer_removed(self) -> bool:
        """Whether question and answer are gone, by request or by retention."""
        return self.data_removed_at is not None or self.answer_removed_at is not None


class QueueTurn(Record):
    """The turn of an account in a class of the queue; see :mod:`jobs.store.turns`."""

    __tablename__ = "queue_turns"
    __table_args__ = (
        sa.Index("ix_queue_turns_next", "next_turn", "step", "account_id"),
        _KEY_IS_TABLE,
    )

    account_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("accounts.id"), primary_key=True)
    priority: Mapped[Priority] = mapped_column(primary_key=True)
    #: How far a claim moves it, see :data:`jobs.lifecycle.TURN_STEP`.
    step: Mapped[int]
    #: The turn at which its next job is claimed; the lowest one is first.
    next_turn: Mapped[int] = mapped_column(sa.BigInteger())
    #: The turn at which its last job was claimed, or at which it entered.
    served_turn: Mapped[int] = mapped_column(sa.BigInteger())


class JobImage(Record):
    """A job's pictures, in the order asked."""

    __tablename__ = "job_images"
    # By job too, so that the newest jobs of an image come first: one of them is likely to need it still.
    __table_args__ = (sa.Index(None, "image_id", "job_id"), _KEY_IS_TABLE)

    job_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("jobs.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("images.id"))
    #: Visual tokens by the served model's own arithmetic.
    tokens: Mapped[int]


class Attempt(Record):
    """One claim of a job and how it ended."""

    __tablename__ = "attempts"

    job_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    worker: Mapped[str]
    claimed_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    outcome: Mapped[Outcome | None]
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    engine: Mapped[str | None]
    engine_version: Mapped[str | None]
    model: Mapped[str | None]
    #: The chat messages as sent, pictures by their keys.
    prompt: Mapped[dict[str, Any] | None]
    sampling: Mapped[dict[str, Any] | None]
    #: The number of its last event that was written; later ones that were told meanwhile are void once it has ended.
    valid_through: Mapped[int | None] = mapped_column(sa.BigInteger())


class Generation(Record):
    """One engine stream of an attempt: its raw output, whole once it has ended."""

    __tablename__ = "generations"
    __table_args__ = (
        sa.ForeignKeyConstraint(["job_id", "attempt"], ["attempts.job_id", "attempts.number"]),
        sa.ForeignKeyConstraint(
            ["job_id", "attempt", "continues"],
            ["generations.job_id", "generations.attempt", "generations.number"],
        ),
    )

    job_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    #: The engine's id of the stream, 32 hex characters.
    rid: Mapped[str]
    #: The raw text; None while running, when it is in TraceChunk.
    output: Mapped[str | None]
    #: The index of the output, see :mod:`jobs.events.index`.
    event_index: Mapped[bytes | None]
    #: The steps of the output by some version of the rules, see :mod:`jobs.store.steps`.
    steps: Mapped[dict[str, Any] | None]
    finish_reason: Mapped[str | None]
    input_tokens: Mapped[int | None]
    cached_tokens: Mapped[int | None]
    image_tokens: Mapped[int | None]
    output_tokens: Mapped[int]
    started_at: Mapped[datetime]
    first_token_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    #: The stream of the same attempt that this one goes on from: after the first ``kept`` characters of
    #: its text, and after the words ``inserted``.
    continues: Mapped[int | None]
    kept_chars: Mapped[int | None]
    inserted: Mapped[str | None]


class FindingEntry(Record):
    """What a guard found in a sample; see :class:`jobs.findings.Finding`."""

    __tablename__ = "findings"
    __table_args__ = (
        sa.ForeignKeyConstraint(
            ["job_id", "attempt", "generation"],
            ["generations.job_id", "generations.attempt", "generations.number"],
        ),
        sa.Index(None, "kind", "job_id"),
        _KEY_IS_TABLE,
    )

    job_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    generation: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    #: Characters of the sample's text.
    start_char: Mapped[int]
    end_char: Mapped[int]
    action: Mapped[str]
    evidence: Mapped[dict[str, Any]]
    tokens_saved: Mapped[int]
    found_at: Mapped[datetime]


class TraceChunk(Record):
    """A piece of a running sample's output, appended about once a second and folded at its end."""

    __tablename__ = "trace_chunks"
    __table_args__ = (
        sa.ForeignKeyConstraint(
            ["job_id", "attempt", "generation"],
            ["generations.job_id", "generations.attempt", "generations.number"],
        ),
    )

    job_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    generation: Mapped[int] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    #: The index of the text, see :mod:`jobs.events.index`, and the number of its last mark.
    event_index: Mapped[bytes | None]
    last_sequence_number: Mapped[int | None] = mapped_column(sa.BigInteger())
    at: Mapped[datetime]


class SearchText(Record):
    """A part of a job, as it is spelled to be searched: see :mod:`jobs.store.search`.

    What it is found by is its migration's alone, for the two databases have nothing in common there: on SQLite the
    table ``search_index``, which triggers keep in step, on PostgreSQL the column ``words`` and its index.
    """

    __tablename__ = "search_texts"
    __table_args__ = (sa.Index(None, "job_id", "part"),)

    id: Mapped[int] = mapped_column(
        sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True
    )
    job_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("jobs.id"))
    account_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("accounts.id"))
    part: Mapped[Part]
    #: Long ones are in several rows that overlap.
    text: Mapped[str]


class TimelineEntry(Record):
    """A change of a job and who made it. Append-only; renewals are no entries."""

    __tablename__ = "timeline"
    __table_args__ = (sa.Index(None, "job_id", "id"),)

    id: Mapped[int] = mapped_column(
        sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True
    )
    job_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("jobs.id"))
    at: Mapped[datetime]
    #: ``key:key_…``, ``worker:…``, ``sweeper:…`` or ``operator:…``.
    actor: Mapped[str]
    action: Mapped[str]
    #: The columns that changed, with their new values.
    changes: Mapped[dict[str, Any]]
    #: Under which callers are told of it, when it moved the job on; see :mod:`jobs.store.event_log`.
    sequence_number: Mapped[int | None] = mapped_column(sa.BigInteger())


class Worker(Record):
    """A worker process and its heartbeat."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    host: Mapped[str]
    pid: Mapped[int]
    version: Mapped[str]
    slots: Mapped[int]
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime] = mapped_column(index=True)
    draining: Mapped[bool]
    #: The engines as this worker sees them, None before it has asked: url, state, model, version, window.
    engines: Mapped[list[dict[str, Any]] | None] = mapped_column(_JSON)
