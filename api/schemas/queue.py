"""The queue as callers get it, and for operators the workers and engines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field

from api.schemas.fields import Time
from api.schemas.parts import ResponseModel
from jobs.store import statistics
from jobs.store import workers as workforce
from webhooks.claims import Backlog


class QueueEngine(ResponseModel):
    """An engine as a worker sees it."""

    url: str
    state: Literal["ok", "resting", "away"] = Field(
        description="`resting` after a fault; `away` when it does not answer."
    )
    model: str | None = Field(description="Null while it is away, as the two below.")
    version: str | None
    window: int | None = Field(description="Streams that it runs at once.")

    @classmethod
    def of(cls, engine: workforce.EngineState) -> Self:
        """Return what callers see of ``engine``."""
        return cls(
            url=engine.url,
            state=engine.state,
            model=engine.model,
            version=engine.version,
            window=engine.window,
        )


class QueueWorker(ResponseModel):
    """A worker process."""

    id: str
    host: str
    version: str
    state: Literal["live", "draining", "silent"] = Field(
        description="`silent` when its last heartbeat is older than a lease."
    )
    slots: int = Field(description="Jobs it runs at once, at most.")
    heartbeat_age_seconds: float
    started_at: Time
    engines: list[QueueEngine] = Field(description="Empty until it has asked them.")

    @classmethod
    def of(cls, seen: workforce.WorkerStatus) -> Self:
        """Return what callers see of a worker."""
        heartbeat = seen.heartbeat
        state: Literal["live", "draining", "silent"] = "silent"
        if seen.alive:
            state = "draining" if heartbeat.draining else "live"
        return cls(
            id=heartbeat.id,
            host=heartbeat.host,
            version=heartbeat.version,
            state=state,
            slots=heartbeat.slots,
            heartbeat_age_seconds=round(max(0.0, seen.age.total_seconds()), 3),
            started_at=seen.started_at,
            engines=[QueueEngine.of(engine) for engine in heartbeat.engines or ()],
        )


class QueueDeliveries(ResponseModel):
    """Webhooks that are still to be told."""

    depth: int = Field(description="Those whose receiver has not taken them, retries included.")
    oldest_age_seconds: float | None = Field(
        description="Since when the first of them is to be told; null without one."
    )

    @classmethod
    def of(cls, backlog: Backlog) -> Self:
        """Return what callers see of ``backlog``."""
        oldest = backlog.oldest
        return cls(
            depth=backlog.pending,
            oldest_age_seconds=None if oldest is None else round(oldest.total_seconds(), 3),
        )


class QueueState(ResponseModel):
    """How the queue does: of the caller's account, or of all for operators."""

    object: Literal["queue"] = "queue"
    depth: int = Field(description="Queued jobs, those that wait for another try included.")
    due: int = Field(description="Those of them that could be run now.")
    oldest_age_seconds: float | None = Field(
        description="For how long the first of those has been due; null without one."
    )
    running: int
    submitted_per_minute: float = Field(description="Over the last five minutes.")
    finished_per_minute: float = Field(description="The same, however jobs ended.")
    deliveries: QueueDeliveries
    workers: list[QueueWorker] | None = Field(description="For operators; else null.")
    engines: list[QueueEngine] | None = Field(
        description="For operators, as the live workers see them; else null."
    )

    @classmethod
    def of(
        cls,
        queue: statistics.QueueStatistics,
        *,
        backlog: Backlog,
        seen: Sequence[workforce.WorkerStatus] | None,
    ) -> Self:
        """Return what callers see of ``queue`` and ``backlog``; with what is ``seen`` of workers, for operators."""
        minutes = statistics.RECENT.total_seconds() / 60
        oldest = queue.oldest
        return cls(
            depth=queue.depth,
            due=queue.due,
            oldest_age_seconds=None if oldest is None else round(oldest.total_seconds(), 3),
            running=queue.running,
            submitted_per_minute=round(queue.submitted / minutes, 1),
            finished_per_minute=round(queue.finished / minutes, 1),
            deliveries=QueueDeliveries.of(backlog),
            workers=None if seen is None else [QueueWorker.of(worker) for worker in seen],
            engines=None
            if seen is None
            else [QueueEngine.of(engine) for engine in workforce.engines(seen)],
        )
