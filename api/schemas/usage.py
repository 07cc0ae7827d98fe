"""The usage of an account and its limits."""

from typing import Literal, Self

from pydantic import Field

from api.schemas.fields import Time
from api.schemas.parts import ResponseModel
from jobs.store.consumption import Dimension
from jobs.store.storage import AccountStorage


class StorageUsage(ResponseModel):
    """Stored bytes of the account, without the database's indexes."""

    images_bytes: int = Field(description="Stored images, each counted once.")
    traces_bytes: int = Field(
        description="Traces and prompts of ended attempts, including the copies for search."
    )
    jobs_bytes: int = Field(description="Questions and answers, including the copies for search.")
    records_bytes: int = Field(
        description="What remains after a deletion: options and metadata, plus 1 KiB for each job and batch, "
        "and 0.5 KiB for each image and each line of a batch."
    )
    files_bytes: int = Field(
        description="Files, also those that batches write, plus 0.5 KiB for each."
    )
    deliveries_bytes: int = Field(
        description="Notifications and the receivers' responses, until retention removes them."
    )
    total_bytes: int
    limit_bytes: int | None = Field(description="The storage quota; null without a quota.")

    @classmethod
    def of(cls, usage: AccountStorage) -> Self:
        """Return the response for ``usage``."""
        return cls(
            **{f"{kind}_bytes": count for kind, count in usage.by_kind.items()},
            total_bytes=usage.total,
            limit_bytes=usage.limit,
        )


class QueueUsage(ResponseModel):
    """The queued jobs of the account and their limit."""

    queued: int = Field(description="Queued jobs, including those that wait for another attempt.")
    limit: int


class RequestUsage(ResponseModel):
    """The rate limit of the key of this request."""

    limit_per_minute: int
    remaining: int = Field(description="Requests that the key may send immediately after this one.")


class UsageRow(ResponseModel):
    """What the jobs of a group used. Of a job with several attempts the last one counts."""

    day: str | None = Field(
        description="The day of the submission in UTC; null if `by` does not have it, as the next three.",
        examples=["2026-11-30"],
    )
    model: str | None
    account: str | None = Field(description="The id of the account.")
    account_name: str | None
    jobs: int = Field(description="Submitted jobs, those that have not ended included.")
    succeeded: int
    failed: int
    cancelled: int
    input_tokens: int = Field(description="Tokens of questions and images, of ended jobs.")
    cached_tokens: int = Field(description="Those of them that the engine had in its cache.")
    image_tokens: int = Field(description="Those of them that are of images.")
    output_tokens: int = Field(description="Tokens of reasoning and answers.")
    engine_seconds: float = Field(description="Time that an engine generated.")


class UsageReport(ResponseModel):
    """What jobs used, by the time of their submission."""

    since: Time
    until: Time
    by: list[Dimension]
    data: list[UsageRow] = Field(
        description="In the order of `by`; groups without jobs have no row."
    )


class AccountUsage(ResponseModel):
    """The usage of an account and its limits."""

    object: Literal["usage"] = "usage"
    account: str
    storage: StorageUsage
    queue: QueueUsage
    requests: RequestUsage
    report: UsageReport | None = Field(description="Null without `since`.")
