"""The tables of operations on many jobs."""

import uuid
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from jobs.lifecycle import OperationAction, OperationResult, Status
from jobs.records.declarative import KEY_IS_TABLE, Record, partial_index


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
    #: Whether the account is erased with its jobs; the action is a deletion. None: no.
    erases_account: Mapped[bool | None]
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
        partial_index(
            "ix_operation_jobs_new",
            "operation_id",
            "new_job_id",
            where="new_job_id IS NOT NULL",
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
