"""The usage of an account and its limits."""

from typing import Literal, Self

from pydantic import Field

from api.schemas.parts import ResponseModel
from jobs.store.storage import AccountStorage


class StorageUsage(ResponseModel):
    """Stored bytes of the account, without the database's indexes."""

    images_bytes: int = Field(description="Stored images, each counted once.")
    traces_bytes: int = Field(
        description="Traces and prompts of ended attempts, including the copies for search."
    )
    jobs_bytes: int = Field(description="Questions and answers, including the copies for search.")
    records_bytes: int = Field(
        description="What remains after a deletion: options and metadata, plus 1 KiB for each job and 0.5 KiB for "
        "each image."
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


class AccountUsage(ResponseModel):
    """The usage of an account and its limits."""

    object: Literal["usage"] = "usage"
    account: str
    storage: StorageUsage
    queue: QueueUsage
    requests: RequestUsage
