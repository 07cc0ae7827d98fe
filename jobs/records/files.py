"""The tables of files and of batches, as typed classes; see :mod:`jobs.store.files` and :mod:`jobs.store.batches`."""

import enum
import uuid
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from jobs.records.declarative import JSON, KEY_IS_TABLE, Record, enumeration, partial_index


class BatchStatus(enum.StrEnum):
    """The state of a batch."""

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether the state is final."""
        return self in (
            BatchStatus.COMPLETED,
            BatchStatus.FAILED,
            BatchStatus.EXPIRED,
            BatchStatus.CANCELLED,
        )


class LineState(enum.StrEnum):
    """The state of a line of a batch."""

    #: No job yet.
    WAITING = "waiting"
    #: Its job has not ended, or the batch has not seen the end.
    SUBMITTED = "submitted"
    #: In the output file.
    COMPLETED = "completed"
    #: In the error file, like the lines that expired or were cancelled.
    FAILED = "failed"


class FileEntry(Record):
    """A file of an account. It is visible once it is stored completely, and until it is removed."""

    __tablename__ = "files"
    __table_args__ = (
        sa.Index(None, "account_id", "id"),
        sa.Index(None, "account_id", "purpose", "id"),
        partial_index("ix_files_expiring", "expires_at", where="expires_at IS NOT NULL"),
        partial_index("ix_files_unstored", "touched_at", where="stored_at IS NULL"),
        partial_index("ix_files_removed", "removed_at", where="removed_at IS NOT NULL"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    account_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("accounts.id"))
    purpose: Mapped[str]
    filename: Mapped[str]
    #: The bytes that are stored so far.
    bytes: Mapped[int] = mapped_column(sa.BigInteger())
    created_at: Mapped[datetime]
    #: When the last bytes were added.
    touched_at: Mapped[datetime]
    #: When the file was complete; None: it is still being stored.
    stored_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    #: When it was removed: the rows of its bytes are deleted afterwards, a few at a time.
    removed_at: Mapped[datetime | None]


class FileChunk(Record):
    """Some bytes of a file, at most :data:`jobs.store.files.CHUNK_BYTES`."""

    __tablename__ = "file_chunks"

    file_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("files.id"), primary_key=True)
    #: The place of its first byte in the file.
    start: Mapped[int] = mapped_column(sa.BigInteger(), primary_key=True)
    data: Mapped[bytes]


class BatchEntry(Record):
    """The requests in a file, each of which becomes a job, and how far they are."""

    __tablename__ = "batches"
    __table_args__ = (
        sa.UniqueConstraint("account_id", "idempotency_key"),
        sa.Index(None, "account_id", "id"),
        partial_index("ix_batches_open", "served_at", "id", where="finished_at IS NULL"),
        partial_index("ix_batches_turns", "account_id", "served_at", where="finished_at IS NULL"),
        partial_index("ix_batches_input", "input_file_id", where="finished_at IS NULL"),
        partial_index("ix_batches_finished", "finished_at", where="finished_at IS NOT NULL"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    #: The account and the key that created it.
    account_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("accounts.id"))
    key_id: Mapped[uuid.UUID]
    endpoint: Mapped[str]
    #: The model of its first line.
    model: Mapped[str | None]
    status: Mapped[BatchStatus] = mapped_column(enumeration(BatchStatus, "status"))
    #: The final state that it is on its way to, once that is decided.
    ending: Mapped[BatchStatus | None] = mapped_column(enumeration(BatchStatus, "ending"))
    #: No foreign keys: files may be deleted.
    input_file_id: Mapped[uuid.UUID]
    output_file_id: Mapped[uuid.UUID | None]
    error_file_id: Mapped[uuid.UUID | None]
    completion_window: Mapped[str]
    output_expires_seconds: Mapped[int | None]
    metadata_: Mapped[dict[str, Any] | None] = mapped_column("metadata", JSON)
    #: The batch whose failed lines it repeats.
    retry_of: Mapped[uuid.UUID | None]
    #: The bytes of the input file that are validated, and its last line that is.
    validated: Mapped[int] = mapped_column(sa.BigInteger())
    last_line: Mapped[int]
    #: The lines of the input file that were read, without empty ones.
    total: Mapped[int]
    #: About what its lines take in the database, with their index entries.
    lines_bytes: Mapped[int] = mapped_column(sa.BigInteger(), server_default="0")
    completed: Mapped[int]
    failed: Mapped[int]
    #: The first faults of the input file, as the API shows them, and the number of all.
    faults: Mapped[list[Any] | None] = mapped_column(JSON)
    fault_count: Mapped[int]
    #: The last line that is written to the output file or to the error file.
    written_line: Mapped[int]
    #: The sum of the usage of its lines; None: no line has one.
    usage: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    #: The code of what it waits for, until ``not_before``.
    waiting_for: Mapped[str | None]
    not_before: Mapped[datetime]
    #: When a process last worked on it: the one that waits longest is next.
    served_at: Mapped[datetime]
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    idempotency_key: Mapped[str | None]
    fingerprint: Mapped[str | None]
    request_id: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    in_progress_at: Mapped[datetime | None]
    finalizing_at: Mapped[datetime | None]
    cancelling_at: Mapped[datetime | None]
    #: When it reached its final state.
    finished_at: Mapped[datetime | None]


class BatchLine(Record):
    """A line of a batch: its place in the input file, and the job that it became."""

    __tablename__ = "batch_lines"
    __table_args__ = (
        sa.Index(None, "batch_id", "state", "number"),
        sa.Index(None, "batch_id", "custom_id"),
        partial_index("ix_batch_lines_job_id", "job_id", where="job_id IS NOT NULL"),
        partial_index(
            "ix_batch_lines_ended", "batch_id", "number", where="state IN ('completed', 'failed')"
        ),
        KEY_IS_TABLE,
    )

    batch_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("batches.id"), primary_key=True)
    #: The number of the line in the input file, from 1 on.
    number: Mapped[int] = mapped_column(primary_key=True)
    custom_id: Mapped[str]
    start: Mapped[int] = mapped_column(sa.BigInteger())
    length: Mapped[int]
    state: Mapped[LineState] = mapped_column(enumeration(LineState, "state"))
    #: No foreign key: a line may outlive its job.
    job_id: Mapped[uuid.UUID | None]
    #: Why it has no job, or why the batch did not wait for the job.
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    error_status: Mapped[int | None]
    error_param: Mapped[str | None]
    #: The place of its answer in the output file, in bytes, once it is written.
    result_start: Mapped[int | None] = mapped_column(sa.BigInteger())
    result_length: Mapped[int | None]
