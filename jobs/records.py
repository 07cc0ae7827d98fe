"""The tables, as typed classes. Rows are plain records; :mod:`jobs.lifecycle` has the rules of a job.

Times are UTC (:class:`core.database.UTCDateTime`), enumerations are stored by value, ids are UUIDv7.
"""

import enum
import uuid
from datetime import datetime
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Mapped, mapped_column

from core.database import UTCDateTime
from jobs.lifecycle import OperationAction, OperationResult, Outcome, Priority, Role, Status
from jobs.phrases import Part

# SQLite generates numbers only for a key of the type INTEGER.
_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
# A missing value is SQL's NULL, not JSON's null.
JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def enumeration(kind: type[enum.StrEnum], name: str) -> sa.Enum:
    """Return a text column type with a CHECK over the enumeration's values."""
    return sa.Enum(
        kind,
        name=name,
        native_enum=False,
        create_constraint=True,
        length=16,
        values_callable=lambda members: [member.value for member in members],
    )


def partial_index(name: str, *columns: str, where: str) -> sa.Index:
    """Return an index of the rows that meet the SQL condition ``where``."""
    condition = sa.text(where)
    return sa.Index(name, *columns, postgresql_where=condition, sqlite_where=condition)


class Record(orm.DeclarativeBase):
    """The base of all tables; its naming convention gives each constraint a name, which migrations need."""

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
        dict[str, Any]: JSON,
        list[str]: JSON,
        str: sa.Text(),
        Status: enumeration(Status, "status"),
        Outcome: enumeration(Outcome, "outcome"),
        Priority: enumeration(Priority, "priority"),
        Role: enumeration(Role, "role"),
        Part: enumeration(Part, "part"),
        OperationAction: enumeration(OperationAction, "action"),
        OperationResult: enumeration(OperationResult, "result"),
    }


#: For tables with a composite key and small rows: on SQLite the key then is the table, instead of a second b-tree.
#: Tables with texts or bytes in their rows stay as they are: without a rowid SQLite reads those rows at each step of a
#: search, which makes it four times as slow at 3 KB a row, and the file larger.
KEY_IS_TABLE = {"sqlite_with_rowid": False}


def table(record: type[Record]) -> sa.Table:
    """Return the bare table of ``record``: statements that write run faster without the mapper."""
    bare = record.__table__
    assert isinstance(bare, sa.Table)  # noqa: S101 - narrows the declarative type for the checker
    return bare


class Account(Record):
    """An account: jobs, images and keys belong to one."""

    __tablename__ = "accounts"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime]
    #: The account's own storage quota in MiB, 0 for no quota; None: the settings' quota.
    storage_mb: Mapped[int | None]
    #: When a recount last counted the account's rows; None: never.
    storage_recounted_at: Mapped[datetime | None]


class StorageTotal(Record):
    """The bytes of one kind that an account stores, without the changes that are still in :class:`StorageChange`."""

    __tablename__ = "storage_totals"
    __table_args__ = (KEY_IS_TABLE,)

    account_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("accounts.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    bytes: Mapped[int] = mapped_column(sa.BigInteger())


class StorageChange(Record):
    """A change of the bytes that an account stores: written by triggers, folded into :class:`StorageTotal`.

    There is no foreign key: its check would lock the account's row at each change.
    """

    __tablename__ = "storage_changes"
    __table_args__ = (sa.Index(None, "account_id", "kind", "bytes"),)

    id: Mapped[int] = mapped_column(_SERIAL, primary_key=True, autoincrement=True)
    account_id: Mapped[uuid.UUID]
    kind: Mapped[str]
    bytes: Mapped[int] = mapped_column(sa.BigInteger())


class ApiKey(Record):
    """An API key: an account and a role. The key itself is not stored, only its keyed hash."""

    __tablename__ = "api_keys"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    account_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("accounts.id"), index=True)
    role: Mapped[Role]
    name: Mapped[str]
    #: HMAC-SHA256 of the key with the pepper, 32 bytes.
    digest: Mapped[bytes] = mapped_column(unique=True)
    #: The first and the last characters of the key, to recognize it.
    redacted_key: Mapped[str]
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    #: From this time on, the key is refused; None: it does not expire.
    expires_at: Mapped[datetime | None]
    #: The key's own limits; None: the settings' limits.
    requests_per_minute: Mapped[int | None]
    max_body_mb: Mapped[int | None]
    #: The highest class of its jobs; without one, that of its role.
    max_priority: Mapped[Priority | None] = mapped_column(enumeration(Priority, "max_priority"))


class Image(Record):
    """An image of an account at one detail. The facts of the original stay; :class:`ImageBytes` has the bytes."""

    __tablename__ = "images"
    __table_args__ = (
        # The hash comes first, so that a search for it in all accounts uses the index too.
        sa.UniqueConstraint("original_sha256", "account_id", "detail", "pipeline"),
        sa.Index(None, "account_id", "image_key"),
        partial_index("ix_images_uploaded", "uploaded_at", where="uploaded_at IS NOT NULL"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    account_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("accounts.id"))
    #: sha256 of canonical bytes and pipeline version, hex: the engine's prefix cache finds the image by it.
    image_key: Mapped[str]
    detail: Mapped[str]
    pipeline: Mapped[str]
    media_type: Mapped[str]
    #: Of the canonical image, in pixels.
    width: Mapped[int]
    height: Mapped[int]
    original_sha256: Mapped[str]
    original_bytes: Mapped[int]
    original_media_type: Mapped[str]
    original_width: Mapped[int]
    original_height: Mapped[int]
    #: EXIF orientation of the original, 1 to 8; the canonical image has it applied.
    orientation: Mapped[int]
    frames: Mapped[int]
    created_at: Mapped[datetime]
    #: When the image was last uploaded without a job: then it outlives its last job. None: it was not.
    uploaded_at: Mapped[datetime | None]
    #: When the bytes were deleted.
    removed_at: Mapped[datetime | None]


class ImageBytes(Record):
    """The canonical bytes, once per account and image key."""

    __tablename__ = "image_bytes"

    account_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("accounts.id"), primary_key=True)
    image_key: Mapped[str] = mapped_column(primary_key=True)
    data: Mapped[bytes]


class ImageCrashes(Record):
    """An image of an account that an engine was processing when it crashed: see :mod:`jobs.store.quarantine`."""

    __tablename__ = "image_crashes"
    __table_args__ = (
        partial_index(
            "ix_image_crashes_quarantined", "quarantined_at", where="quarantined_at IS NOT NULL"
        ),
        KEY_IS_TABLE,
    )

    account_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("accounts.id"), primary_key=True)
    image_key: Mapped[str] = mapped_column(primary_key=True)
    #: Engine crashes since a job with the image last succeeded.
    crashes: Mapped[int]
    last_crashed_at: Mapped[datetime]
    quarantined_at: Mapped[datetime | None]
    released_at: Mapped[datetime | None]
    #: An actor, as in :class:`TimelineEntry`.
    released_by: Mapped[str | None]


def _stored(name: str, condition: str) -> sa.Index:
    """Return an index of the finished jobs that meet ``condition``, by their end."""
    return partial_index(name, "finished_at", where=f"finished_at IS NOT NULL AND {condition}")


class Job(Record):
    """A question about images and its state. The row is the truth."""

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
        partial_index("ix_jobs_claim", "ordering_at", "id", where="status = 'queued'"),
        # The queue of one account at one priority; see jobs.store.turns.waiting.
        partial_index(
            "ix_jobs_turn",
            "account_id",
            "priority",
            "ordering_at",
            "id",
            where="lease_owner IS NULL AND finished_at IS NULL",
        ),
        partial_index("ix_jobs_lease", "lease_expires_at", where="status = 'running'"),
        partial_index("ix_jobs_deadline", "deadline_at", where="status = 'queued'"),
        # What statistics of the queue count, so that they read no rows.
        partial_index(
            "ix_jobs_queued", "account_id", "priority", "not_before", where="status = 'queued'"
        ),
        partial_index("ix_jobs_finished", "finished_at", where="status = 'succeeded'"),
        partial_index("ix_jobs_ended", "finished_at", where="finished_at IS NOT NULL"),
        # The jobs that retention has yet to process, per class of data: a processed job leaves the index.
        _stored("ix_jobs_images_stored", "images_released_at IS NULL AND data_removed_at IS NULL"),
        _stored("ix_jobs_trace_stored", "trace_removed_at IS NULL AND data_removed_at IS NULL"),
        _stored("ix_jobs_answer_stored", "answer_removed_at IS NULL AND data_removed_at IS NULL"),
        _stored("ix_jobs_timeline_stored", "timeline_removed_at IS NULL"),
        partial_index("ix_jobs_rerun_of", "rerun_of", where="rerun_of IS NOT NULL"),
        partial_index("ix_jobs_group", "group_id", "id", where="group_id IS NOT NULL"),
        partial_index("ix_jobs_error", "error_code", "id", where="error_code IS NOT NULL"),
        sa.Index(None, "account_id", "id"),
        sa.Index(None, "account_id", "status", "id"),
        # Not on SQLite: without statistics, which are not gathered there, it would prefer this index to all those
        # above, and sort the queue for each claim.
        sa.Index("ix_jobs_status_id", "status", "id").ddl_if(dialect="postgresql"),
        # What SQLite has instead. A query has to have both conditions, so reports about a status and a time, which
        # find the end by ix_jobs_ended, do not use it.
        partial_index(
            "ix_jobs_ended_status",
            "status",
            "id",
            where="finished_at IS NOT NULL AND lease_owner IS NULL",
        ).ddl_if(dialect="sqlite"),
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
    #: The options of the job as submitted, with defaults filled in: max_output_tokens, temperature, samples and others.
    options: Mapped[dict[str, Any]]
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata")
    priority: Mapped[Priority]
    #: Due time minus the head start of the priority: jobs of one account and priority are claimed in this order.
    ordering_at: Mapped[datetime]
    #: No claim before this time.
    not_before: Mapped[datetime]
    deadline_at: Mapped[datetime]

    #: The fencing token: each claim adds one, and no value is used twice.
    attempt: Mapped[int]
    #: The last sequence number of an event that was assigned or reserved. The job's end gets the number after it.
    last_sequence_number: Mapped[int] = mapped_column(sa.BigInteger(), server_default="0")
    #: Leases lost.
    crashes: Mapped[int]
    #: Faults after an engine accepted the request.
    failures: Mapped[int]
    max_attempts: Mapped[int]
    #: The job's own webhook, which only :mod:`webhooks` can read; None: it has none.
    webhook: Mapped[dict[str, Any] | None]
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]
    engine_stopped_at: Mapped[datetime | None]

    answer_text: Mapped[str | None]
    #: The original of the text, with its typesetting; None: it is the same.
    answer_tex: Mapped[str | None]
    answer_rule: Mapped[str | None]
    #: The value of the text in the job's ``answer_format`` (:mod:`jobs.answers.values`); None: the text has none.
    answer_value: Mapped[Any | None] = mapped_column(JSON)
    #: Whether a guard made the model answer; None without an answer.
    answer_forced: Mapped[bool | None]
    #: How the job's samples voted (:class:`jobs.answers.votes.Tally`), and the winner's share; None: there was no vote.
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
    #: sha256 of the request that submitted the job, with images replaced by the sha256 of their bytes.
    fingerprint: Mapped[str | None]
    request_id: Mapped[str]
    rerun_of: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("jobs.id"))
    #: The id of the group's leader, its own if the job leads; see :mod:`jobs.store.groups`.
    group_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("jobs.id"))

    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    first_token_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    #: When question, answer and traces were deleted on request, and the job's images released.
    data_removed_at: Mapped[datetime | None]
    #: When retention removed each class of data: see :mod:`jobs.store.purge`.
    images_released_at: Mapped[datetime | None]
    trace_removed_at: Mapped[datetime | None]
    answer_removed_at: Mapped[datetime | None]
    timeline_removed_at: Mapped[datetime | None]

    @property
    def trace_removed(self) -> bool:
        """Whether the traces were removed, by request or by retention."""
        return self.data_removed_at is not None or self.trace_removed_at is not None

    @property
    def answer_removed(self) -> bool:
        """Whether question and answer were removed, by request or by retention."""
        return self.data_removed_at is not None or self.answer_removed_at is not None


class HeldJob(Record):
    """A job whose client waits for the answer on an open connection; see :mod:`jobs.store.holds`."""

    __tablename__ = "held_jobs"
    __table_args__ = (sa.Index(None, "until"),)

    job_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("jobs.id"), primary_key=True)
    #: From this time on, nobody waits.
    until: Mapped[datetime]


class ResponseEntry(Record):
    """What a client of OpenAI's surface sent with a job, for the objects that show it there.

    A job of the native routes has no entry; see :mod:`jobs.store.responses`.
    """

    __tablename__ = "responses"
    __table_args__ = (partial_index("ix_responses_discard", "job_id", where="discard"),)

    job_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("jobs.id"), primary_key=True)
    #: The routes that created it: ``responses`` or ``chat``.
    surface: Mapped[str]
    #: Whether the client did not wait for the answer.
    background: Mapped[bool]
    #: The fields that the object repeats, with images by their position in the job; None: removed with the answer.
    requested: Mapped[dict[str, Any] | None]
    #: Whether the content of the job is to be removed once it has ended.
    discard: Mapped[bool]


class QueueTurn(Record):
    """The turn of an account at one priority of the queue; see :mod:`jobs.store.turns`."""

    __tablename__ = "queue_turns"
    __table_args__ = (
        sa.Index("ix_queue_turns_next", "next_turn", "step", "account_id"),
        KEY_IS_TABLE,
    )

    account_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("accounts.id"), primary_key=True)
    priority: Mapped[Priority] = mapped_column(primary_key=True)
    #: How far a claim moves the turn, see :data:`jobs.lifecycle.TURN_STEP`.
    step: Mapped[int]
    #: The number at which its next job is claimed; the lowest number is first.
    next_turn: Mapped[int] = mapped_column(sa.BigInteger())
    #: The number at which its last job was claimed, or at which the row was inserted.
    served_turn: Mapped[int] = mapped_column(sa.BigInteger())


class QueuePause(Record):
    """A pause of the queue, which claims respect; see :mod:`jobs.store.pauses`."""

    __tablename__ = "queue_pauses"
    __table_args__ = (
        sa.Index(
            "uq_queue_pauses_active",
            "scope",
            unique=True,
            postgresql_where=sa.text("resumed_at IS NULL"),
            sqlite_where=sa.text("resumed_at IS NULL"),
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    #: The account and the priority as one text, so that an active pause of both, or of neither, is unique.
    scope: Mapped[str]
    #: None: of all accounts.
    account_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("accounts.id"))
    #: None: of all priorities.
    priority: Mapped[Priority | None]
    paused_at: Mapped[datetime]
    #: An actor, as in :class:`TimelineEntry`; so is ``resumed_by``.
    paused_by: Mapped[str]
    reason: Mapped[str | None]
    resumed_at: Mapped[datetime | None]
    resumed_by: Mapped[str | None]


class JobImage(Record):
    """An image of a job, by its position in the request."""

    __tablename__ = "job_images"
    # By job too, so that the newest jobs of an image come first: one of them is likely to need it still.
    __table_args__ = (sa.Index(None, "image_id", "job_id"), KEY_IS_TABLE)

    job_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("jobs.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("images.id"))
    #: Visual tokens, as the served model counts them.
    tokens: Mapped[int]


class Attempt(Record):
    """One claim of a job and how it ended."""

    __tablename__ = "attempts"
    # For reports about a time.
    __table_args__ = (sa.Index(None, "claimed_at"),)

    job_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    #: The worker's id. Here and in ``jobs.lease_owner`` it is no foreign key: a worker's row is deleted when the
    #: worker stops, and the history keeps its id.
    worker: Mapped[str]
    claimed_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    outcome: Mapped[Outcome | None]
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    engine: Mapped[str | None]
    engine_version: Mapped[str | None]
    model: Mapped[str | None]
    #: The chat messages as sent, with images replaced by their keys.
    prompt: Mapped[dict[str, Any] | None]
    sampling: Mapped[dict[str, Any] | None]
    #: The sequence number of the attempt's last stored event. Once the attempt has ended, later ones are void: live
    #: readers may have seen them, and nothing stores them.
    valid_through: Mapped[int | None] = mapped_column(sa.BigInteger())


class Generation(Record):
    """One engine stream of an attempt, and its raw output."""

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
    #: The id by which the engine knows the stream, 32 hex characters.
    rid: Mapped[str]
    #: The raw text; None while the stream runs: then :class:`TraceChunk` has it.
    output: Mapped[str | None]
    #: Which events the output was sent in, packed by :mod:`jobs.events.index`.
    event_index: Mapped[bytes | None]
    #: The steps of the output, with the version of the rules that found them: see :mod:`jobs.store.steps`.
    steps: Mapped[dict[str, Any] | None]
    finish_reason: Mapped[str | None]
    input_tokens: Mapped[int | None]
    cached_tokens: Mapped[int | None]
    image_tokens: Mapped[int | None]
    output_tokens: Mapped[int]
    started_at: Mapped[datetime]
    first_token_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    #: The generation of the same attempt that this one continues: after the first ``valid_chars`` characters of its
    #: text, followed by the text ``inserted``.
    continues: Mapped[int | None]
    valid_chars: Mapped[int | None]
    inserted: Mapped[str | None]


class FindingEntry(Record):
    """A finding of a guard in a generation; see :class:`jobs.findings.Finding`."""

    __tablename__ = "findings"
    __table_args__ = (
        sa.ForeignKeyConstraint(
            ["job_id", "attempt", "generation"],
            ["generations.job_id", "generations.attempt", "generations.number"],
        ),
        sa.Index(None, "kind", "job_id"),
        KEY_IS_TABLE,
    )

    job_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    generation: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    #: The place in the generation's text: its first character, and the character after its last.
    start_char: Mapped[int]
    end_char: Mapped[int]
    action: Mapped[str]
    evidence: Mapped[dict[str, Any]]
    tokens_saved: Mapped[int]
    found_at: Mapped[datetime]


class TraceChunk(Record):
    """A piece of a running generation's output: appended about once a second, folded into the output at the end."""

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
    #: Which events the text was sent in, packed by :mod:`jobs.events.index`, and the number of the last of them.
    event_index: Mapped[bytes | None]
    last_sequence_number: Mapped[int | None] = mapped_column(sa.BigInteger())
    at: Mapped[datetime]


class SearchText(Record):
    """A part of a job, normalized for search: see :mod:`jobs.store.search`.

    Only the migrations know the index of texts, because the two databases have nothing in common there: on SQLite it is
    the table ``search_index``, which triggers update, on PostgreSQL the column ``words`` and its index.
    """

    __tablename__ = "search_texts"
    __table_args__ = (sa.Index(None, "job_id", "part"),)

    id: Mapped[int] = mapped_column(_SERIAL, primary_key=True, autoincrement=True)
    job_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("jobs.id"))
    account_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("accounts.id"))
    part: Mapped[Part]
    #: A long text is split into several rows that overlap.
    text: Mapped[str]


class ReindexProgress(Record):
    """How far ``longlook db reindex`` is: one row while it runs or after it was interrupted."""

    __tablename__ = "reindex_progress"

    #: Always 1.
    id: Mapped[int] = mapped_column(primary_key=True)
    #: The rules by which it normalizes texts; a reindex by other rules starts from the beginning.
    pipeline: Mapped[str]
    #: The last job whose texts are rebuilt, and how many are.
    reached: Mapped[uuid.UUID]
    jobs: Mapped[int] = mapped_column(sa.BigInteger())
    at: Mapped[datetime]


class OutboxEntry(Record):
    """A move of a job that receivers have not been notified of yet; see :mod:`jobs.store.outbox`."""

    __tablename__ = "outbox"
    __table_args__ = (sa.Index(None, "account_id", "id"),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    job_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("jobs.id"))
    account_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("accounts.id"))
    #: The state that the job moved to.
    status: Mapped[Status]
    #: When it moved.
    at: Mapped[datetime]


class TimelineEntry(Record):
    """A change of a job and who made it. Append-only; a lease renewal adds no entry."""

    __tablename__ = "timeline"
    __table_args__ = (sa.Index(None, "job_id", "id"),)

    id: Mapped[int] = mapped_column(_SERIAL, primary_key=True, autoincrement=True)
    job_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("jobs.id"))
    at: Mapped[datetime]
    #: ``key:key_…``, ``worker:…``, ``sweeper:…`` or ``operator:…``.
    actor: Mapped[str]
    #: One word in the past tense, such as ``claimed``.
    action: Mapped[str]
    #: The columns that changed, with their new values.
    changes: Mapped[dict[str, Any]]
    #: The number of the event that streams show for it, when it changed the status; see :mod:`jobs.store.event_log`.
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
    #: The engines as this worker sees them (url, state, model, version, window); None before it has asked them.
    engines: Mapped[list[dict[str, Any]] | None] = mapped_column(JSON)
    #: When an operator told it to take no more jobs, and the actor.
    drain_requested_at: Mapped[datetime | None]
    drain_requested_by: Mapped[str | None]


class Installation(Record):
    """The only row is about this database itself; see :mod:`core.redis_prefix`."""

    __tablename__ = "installation"
    __table_args__ = (sa.CheckConstraint("number = 1", name="single"),)

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    #: 12 hexadecimal digits: part of the prefix of all keys in Redis.
    id: Mapped[str]


class EngineCordon(Record):
    """An engine that gets no new jobs, until an operator removes the cordon."""

    __tablename__ = "engine_cordons"

    url: Mapped[str] = mapped_column(primary_key=True)
    cordoned_at: Mapped[datetime]
    #: An actor, as in :class:`TimelineEntry`.
    cordoned_by: Mapped[str]
    reason: Mapped[str | None]


class Operation(Record):
    """An action on all jobs that a query matched, and how far it is; see :mod:`jobs.store.operations`."""

    __tablename__ = "operations"
    __table_args__ = (
        sa.UniqueConstraint("account_id", "idempotency_key"),
        sa.Index(None, "account_id", "id"),
        partial_index("ix_operations_open", "served_at", "id", where="finished_at IS NULL"),
    )

    #: Also the upper bound of its jobs: a job with a later id was submitted after the operation.
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    #: The account and the key that requested it, and the key's name at that time.
    account_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("accounts.id"))
    key_id: Mapped[uuid.UUID]
    key_name: Mapped[str]
    action: Mapped[OperationAction]
    query: Mapped[str]
    #: The account of the jobs; None: of all accounts.
    scope_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("accounts.id"))
    status: Mapped[Status]
    #: The most jobs that it may have, which the caller confirmed.
    max_jobs: Mapped[int]
    #: When all its jobs were collected; None: more may follow.
    collected_at: Mapped[datetime | None]
    #: The last job that was collected, then the last one that was acted on; None: none yet.
    last_job_id: Mapped[uuid.UUID | None]
    total: Mapped[int]
    done: Mapped[int]
    skipped: Mapped[int]
    failed: Mapped[int]
    #: How many jobs were skipped or failed, by reason.
    reasons: Mapped[dict[str, Any]]
    #: The code of what it waits for, until ``not_before``.
    waiting_for: Mapped[str | None]
    not_before: Mapped[datetime]
    #: When a process last worked on it: the one that waits longest is next.
    served_at: Mapped[datetime]
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    idempotency_key: Mapped[str | None]
    fingerprint: Mapped[str | None]
    request_id: Mapped[str]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class OperationJob(Record):
    """A job of an operation, and what came of it. The set is decided once, before the first job changes."""

    __tablename__ = "operation_jobs"
    __table_args__ = (
        partial_index(
            "ix_operation_jobs_left", "operation_id", "job_id", where="reason IS NOT NULL"
        ),
        KEY_IS_TABLE,
    )

    operation_id: Mapped[uuid.UUID] = mapped_column(
        sa.ForeignKey("operations.id"), primary_key=True
    )
    #: No foreign key: its check would lock the rows of thousands of jobs while the set is collected.
    job_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    result: Mapped[OperationResult | None]
    #: Why the job was skipped, or failed.
    reason: Mapped[str | None]
    #: The new job of a rerun.
    new_job_id: Mapped[uuid.UUID | None]
