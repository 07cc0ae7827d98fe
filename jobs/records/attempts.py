"""The tables of what engines did for a job: attempts, generations, their text, and what guards found."""

import uuid
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from jobs.lifecycle import Outcome
from jobs.records.declarative import KEY_IS_TABLE, Record, partial_index


class Attempt(Record):
    """One claim of a job and how it ended."""

    __tablename__ = "attempts"
    # For reports about a time, and for lists of the jobs of an engine or a worker.
    __table_args__ = (
        sa.Index(None, "claimed_at"),
        # Only lists have their conditions: for a report by engine about a time, SQLite would walk all engines.
        partial_index("ix_attempts_engine_job_id", "engine", "job_id", where="engine > ''"),
        partial_index("ix_attempts_worker_job_id", "worker", "job_id", where="worker > ''"),
    )

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
