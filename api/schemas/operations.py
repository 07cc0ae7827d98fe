"""Operations: one action on all jobs that a query matches."""

from __future__ import annotations

import uuid
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from api.schemas import cursors, fields
from api.schemas.fields import Time
from api.schemas.parameters import KeyHeaders, ParameterModel
from api.schemas.parts import JobError, Page, ResponseModel, fault
from api.schemas.requests import RequestModel
from core import ids
from jobs import records

Action = Literal["rerun", "cancel", "delete", "run_now", "erase_account"]
Result = Literal["done", "skipped", "failed"]
#: An operation on more jobs than this must name their number.
UNCONFIRMED = 100
#: The most jobs that a request can name one by one.
MAX_JOB_IDS = 1000


def _job_id(text: str) -> uuid.UUID:
    parsed = ids.parse("job", text)
    if parsed is None:
        raise ValueError("This must be the id of a job: `job_` and 32 hex digits.")
    return parsed


_JobId = Annotated[uuid.UUID, BeforeValidator(_job_id), WithJsonSchema({"type": "string"})]


class OperationRequest(RequestModel):
    """An action, and the jobs that it is for."""

    action: Action
    query: Annotated[fields.Text, Field(min_length=1, max_length=1000)] | None = Field(
        default=None,
        description="The jobs, as in `q` of `GET /v1/jobs`. It must have at least one term.",
    )
    job_ids: Annotated[list[_JobId], Field(min_length=1, max_length=MAX_JOB_IDS)] | None = Field(
        default=None, description="The jobs, one by one, instead of a query."
    )
    account: Annotated[fields.Text, Field(max_length=255)] | None = Field(
        default=None,
        description="The name or id of an account, for operators; the default is all accounts. "
        "`erase_account` erases this account.",
    )
    dry_run: bool = Field(default=False, description="Only count the jobs.")
    confirm: int | None = Field(
        default=None,
        ge=0,
        description="The most jobs that the operation may have, such as `matched` of a dry run. Required for more than "
        f"{UNCONFIRMED} jobs, and for a query without a qualifier.",
    )

    @model_validator(mode="after")
    def _jobs_or_account(self) -> Self:
        given = sum(value is not None for value in (self.query, self.job_ids))
        if self.action == "erase_account":
            if given or self.account is None:
                raise ValueError(
                    "To erase an account, this must have `account`, and neither `query` nor `job_ids`."
                )
        elif given != 1:
            raise ValueError("This must have exactly one of `query` and `job_ids`.")
        return self


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

    after: Annotated[uuid.UUID, cursors.of("op")] | None = Field(
        default=None, description=cursors.DESCRIPTION
    )
    limit: int = Field(default=20, ge=1, le=100, description="Maximum number on a page.")


class OperationJobsQuery(OperationsQuery):
    """A page of the jobs of an operation."""

    after: Annotated[uuid.UUID, cursors.of("job")] | None = Field(
        default=None, description=cursors.DESCRIPTION
    )
    left: bool = Field(default=False, description="Only jobs that were skipped or failed.")


class Operation(ResponseModel):
    """One action on all jobs that a query matched when the operation began."""

    id: str
    object: Literal["operation"] = "operation"
    action: Action
    query: str = Field(description="Empty if the request named the jobs or an account.")
    account_id: str | None = Field(
        description="The account of the jobs, or the one that is erased; null: all accounts."
    )
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
        description="Why it does not continue now, such as `queue_full` or `jobs_running`; it continues on its own."
    )
    error: JobError | None = Field(description="Why the operation ended early.")
    created_at: Time
    started_at: Time | None
    finished_at: Time | None

    @classmethod
    def of(cls, operation: records.operations.Operation) -> Self:
        """Return the response for an operation."""
        scope = operation.scope_id
        return cls.from_record(
            operation,
            id=ids.show("op", operation.id),
            action="erase_account" if operation.erases_account else operation.action.value,
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
    def of(cls, job: records.operations.OperationJob) -> Self:
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
