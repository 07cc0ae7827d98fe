"""The table of jobs, and what belongs to a job from its submission on."""

import uuid
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from jobs.lifecycle import Priority, Status
from jobs.records.declarative import JSON, Record, partial_index


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
        # What statistics of the queue count, so that they read no rows. SQLite needs the column of the condition too.
        partial_index(
            "ix_jobs_queued", "account_id", "priority", "not_before", where="status = 'queued'"
        ).ddl_if(dialect="postgresql"),
        partial_index(
            "ix_jobs_queued_status",
            "account_id",
            "priority",
            "not_before",
            "status",
            where="status = 'queued'",
        ).ddl_if(dialect="sqlite"),
        partial_index("ix_jobs_finished", "finished_at", where="status = 'succeeded'"),
        partial_index("ix_jobs_ended", "finished_at", where="finished_at IS NOT NULL"),
        # The jobs that retention has yet to process, per class of data: a processed job leaves the index.
        _stored("ix_jobs_images_stored", "images_released_at IS NULL AND data_removed_at IS NULL"),
        _stored("ix_jobs_trace_stored", "trace_removed_at IS NULL AND data_removed_at IS NULL"),
        _stored("ix_jobs_answer_stored", "answer_removed_at IS NULL AND data_removed_at IS NULL"),
        _stored("ix_jobs_timeline_stored", "timeline_removed_at IS NULL"),
        partial_index("ix_jobs_crashed", "id", where="crashes > 0"),
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
    #: Whether a guard made the model answer; None without an answer. It stays when the answer is removed.
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
    def answered(self) -> bool:
        """Whether the job has an answer, or had one that was removed."""
        return self.answer_text is not None or self.answer_forced is not None

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
