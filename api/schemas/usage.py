"""The usage of an account and its limits."""

from __future__ import annotations

import uuid
from typing import Literal, Self

from pydantic import Field

from api.schemas.parts import ResponseModel
from core import ids
from jobs.store.storage import AccountStorage as Stored
from jobs.store.storage import StorageKind


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
    deliveries_bytes: int = Field(
        description="Notifications and the receivers' responses, until retention removes them."
    )
    total_bytes: int
    limit_bytes: int | None = Field(description="The storage quota; null without a quota.")

    @classmethod
    def of(cls, usage: Stored) -> Self:
        """Return the response for ``usage``."""
        return cls(
            images_bytes=usage.by_kind[StorageKind.IMAGES],
            traces_bytes=usage.by_kind[StorageKind.TRACES],
            records_bytes=usage.by_kind[StorageKind.RECORDS],
            jobs_bytes=usage.by_kind[StorageKind.JOBS],
            deliveries_bytes=usage.by_kind[StorageKind.DELIVERIES],
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

    @classmethod
    def of(
        cls,
        account_id: uuid.UUID,
        *,
        stored: Stored,
        queue: QueueUsage,
        requests: RequestUsage,
    ) -> Self:
        """Return the response for the usage of an account."""
        return cls(
            account=ids.show("acct", account_id),
            storage=StorageUsage.of(stored),
            queue=queue,
            requests=requests,
        )
