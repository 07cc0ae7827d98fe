"""Operations: one action on all jobs that a query matches."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field

from api.schemas import fields
from api.schemas.fields import Time
from api.schemas.parts import JobError, Page, ResponseModel, fault
from api.schemas.requests import KeyHeaders, ParameterModel, RequestModel
from core import ids
from jobs import records

Action = Literal["rerun", "cancel", "delete", "run_now"]
Result = Literal["done", "skipped", "failed"]
#: An operation on more jobs than this must name their number.
UNCONFIRMED = 100


class OperationRequest(RequestModel):
    """An action, and the jobs that it is for."""

    action: Action
    query: Annotated[fields.Text, Field(min_length=1, max_length=1000)] = Field(
        description="The jobs, as in `q` of `GET /v1/jobs`. It must have at least one term."
    )
    account: Annotated[fields.Text, Field(max_length=255)] | None = Field(
        default=None,
        description="The name or id of an account, for operators; the default is all accounts.",
    )
    dry_run: bool = Field(default=False, description="Only count the jobs.")
    confirm: int | None = Field(
        default=None,
        ge=0,
        description="The most jobs that the operation may have, such as `matched` of a dry run. Required for more than "
        f"{UNCONFIRMED} jobs, and for a query without a qualifier.",
    )


class OperationHeaders(KeyHeaders):
    """The headers of the request for an operation."""


class OperationPreview(ResponseModel):
    """The number of jobs that an operation would have."""

    object: Literal["operation.preview"] = "operation.preview"
    action: Action
    query: str
    matched: int
    confirmation_required: bool = Field(description="Whether the operation needs `confirm`.")


class OperationsQuery(ParameterModel):
    """A page of operations."""

    after: str | None = Field(default=None, description="The `last_id` of the previous page.")
    limit: int = Field(default=20, ge=1, le=100, description="Maximum number on a page.")


class OperationJobsQuery(OperationsQuery):
    """A page of the jobs of an operation."""

    left: bool = Field(default=False, description="Only jobs that were skipped or failed.")


class Operation(ResponseModel):
    """One action on all jobs that a query matched when the operation began."""

    id: str
    object: Literal["operation"] = "operation"
    action: Action
    query: str
    account_id: str | None = Field(description="The account of the jobs; null: all accounts.")
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"] = Field(
        description="`succeeded` once all jobs have a result, even if some of them failed."
    )
    key_id: str = Field(description="The key that requested it.")
    key_name: str
    total: int | None = Field(description="Its jobs; null until all are collected.")
    done: int
    skipped: int = Field(description="Jobs for which there was nothing to do.")
    failed: int
    reasons: dict[str, int] = Field(description="How many jobs were skipped or failed, by reason.")
    waiting_for: str | None = Field(
        description="Why it does not continue now, such as `queue_full`; it continues on its own."
    )
    error: JobError | None = Field(description="Why the operation ended early.")
    created_at: Time
    started_at: Time | None
    finished_at: Time | None

    @classmethod
    def of(cls, operation: records.Operation) -> Self:
        """Return the response for an operation."""
        scope = operation.scope_id
        return cls.from_record(
            operation,
            id=ids.show("op", operation.id),
            action=operation.action.value,
            status=operation.status.value,
            account_id=None if scope is None else ids.show("acct", scope),
            key_id=ids.show("key", operation.key_id),
            total=None if operation.collected_at is None else operation.total,
            error=fault(operation.error_code, operation.error_message),
        )


class OperationList(Page[Operation, str]):
    """A page of operations, newest first."""


class OperationJob(ResponseModel):
    """A job of an operation."""

    job_id: str
    object: Literal["operation.job"] = "operation.job"
    result: Result | None = Field(description="Null while the operation has not reached it.")
    reason: str | None = Field(description="Why it was skipped or failed.")
    new_job_id: str | None = Field(description="The new job of a rerun.")

    @classmethod
    def of(cls, job: records.OperationJob) -> Self:
        """Return the response for a job of an operation."""
        new = job.new_job_id
        return cls.from_record(
            job,
            job_id=ids.show("job", job.job_id),
            result=None if job.result is None else job.result.value,
            new_job_id=None if new is None else ids.show("job", new),
        )


class OperationJobList(Page[OperationJob, str]):
    """A page of the jobs of an operation, the oldest first."""
