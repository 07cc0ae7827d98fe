"""What an account uses of what it may use."""

from __future__ import annotations

import uuid
from typing import Literal, Self

from pydantic import Field

from api.schemas.parts import ResponseModel
from core import ids
from jobs.store.storage import AccountStorage as Stored
from jobs.store.storage import StorageKind


class StorageUsage(ResponseModel):
    """What the account stores, in bytes; the indexes of the database do not count."""

    images_bytes: int = Field(description="Images as they are kept, each once.")
    traces_bytes: int = Field(
        description="Traces and prompts of attempts that have ended, with the copies that searches read."
    )
    jobs_bytes: int = Field(
        description="Questions and answers, with the copies that searches read."
    )
    records_bytes: int = Field(
        description="What stays when data are deleted: options and metadata, and 1 KiB for each job and 0.5 KiB "
        "for each image."
    )
    deliveries_bytes: int = Field(
        description="Webhook messages and the receivers' answers; they go with retention."
    )
    total_bytes: int
    limit_bytes: int | None = Field(description="The storage quota; null without one.")

    @classmethod
    def of(cls, usage: Stored) -> Self:
        """Return what callers see of ``usage``."""
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
    """The account's place in the queue."""

    queued: int = Field(description="Queued jobs, those that wait for another try included.")
    limit: int


class RequestUsage(ResponseModel):
    """What the key of this request may send."""

    limit_per_minute: int
    remaining: int = Field(description="Requests that it may send at once, after this one.")


class AccountUsage(ResponseModel):
    """What an account uses of what it may use."""

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
        """Return what callers see of an account's usage."""
        return cls(
            account=ids.show("acct", account_id),
            storage=StorageUsage.of(stored),
            queue=queue,
            requests=requests,
        )
