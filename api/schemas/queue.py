"""The state of the queue in responses, and of workers and engines for operators."""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field

from api.schemas.fields import Time
from api.schemas.parts import ResponseModel
from jobs.store import statistics
from jobs.store import workers as workforce
from webhooks.claims import Backlog


class QueueEngine(ResponseModel):
    """An engine, as a worker sees it."""

    url: str
    state: Literal["ok", "resting", "away"] = Field(
        description="`resting` after a failure; `away` while it does not respond."
    )
    model: str | None = Field(
        description="Null while the engine is away, like `version` and `window`."
    )
    version: str | None
    window: int | None = Field(description="Maximum number of concurrent generations.")
    reason: str | None = Field(description="Why the engine is away; null while it is not.")


class QueueWorker(ResponseModel):
    """A worker process."""

    id: str
    host: str
    version: str
    state: Literal["live", "draining", "silent"] = Field(
        description="`silent` if its last heartbeat is older than a lease."
    )
    slots: int = Field(description="Maximum number of concurrent jobs.")
    heartbeat_age_seconds: float
    started_at: Time
    engines: list[QueueEngine] = Field(
        description="Empty until the worker has checked its engines."
    )

    @classmethod
    def of(cls, seen: workforce.WorkerStatus) -> Self:
        """Return the response for a worker."""
        heartbeat = seen.heartbeat
        state: Literal["live", "draining", "silent"] = "silent"
        if seen.alive:
            state = "draining" if heartbeat.draining else "live"
        return cls.from_record(
            heartbeat,
            state=state,
            heartbeat_age_seconds=round(max(0.0, seen.age.total_seconds()), 3),
            started_at=seen.started_at,
            engines=[QueueEngine.from_record(engine) for engine in heartbeat.engines or ()],
        )


class QueueDeliveries(ResponseModel):
    """Pending webhook deliveries."""

    depth: int = Field(
        description="Deliveries that no receiver has accepted yet, including retries."
    )
    oldest_age_seconds: float | None = Field(
        description="Age of the oldest pending delivery; null without one."
    )

    @classmethod
    def of(cls, backlog: Backlog) -> Self:
        """Return the response for ``backlog``."""
        oldest = backlog.oldest
        return cls(
            depth=backlog.pending,
            oldest_age_seconds=None if oldest is None else round(oldest.total_seconds(), 3),
        )


class QueueState(ResponseModel):
    """The state of the queue, of the caller's account or, for operators, of all accounts."""

    object: Literal["queue"] = "queue"
    depth: int = Field(description="Queued jobs, including those that wait for another attempt.")
    due: int = Field(description="Queued jobs that can run now.")
    oldest_age_seconds: float | None = Field(
        description="How long the first due job has been due; null without one."
    )
    running: int
    submitted_per_minute: float = Field(description="Over the last five minutes.")
    finished_per_minute: float = Field(
        description="Jobs that ended, with any outcome, over the last five minutes."
    )
    deliveries: QueueDeliveries
    workers: list[QueueWorker] | None = Field(description="Null unless the caller is an operator.")
    engines: list[QueueEngine] | None = Field(
        description="The engines as live workers see them; null unless the caller is an operator."
    )

    @classmethod
    def of(
        cls,
        queue: statistics.QueueStatistics,
        *,
        backlog: Backlog,
        seen: Sequence[workforce.WorkerStatus] | None,
    ) -> Self:
        """Return the response for ``queue`` and ``backlog``, and for operators also for the workers in ``seen``."""
        minutes = statistics.RECENT.total_seconds() / 60
        oldest = queue.oldest
        return cls.from_record(
            queue,
            oldest_age_seconds=None if oldest is None else round(oldest.total_seconds(), 3),
            submitted_per_minute=round(queue.submitted / minutes, 1),
            finished_per_minute=round(queue.finished / minutes, 1),
            deliveries=QueueDeliveries.of(backlog),
            workers=None if seen is None else [QueueWorker.of(worker) for worker in seen],
            engines=None
            if seen is None
            else [QueueEngine.from_record(engine) for engine in workforce.engines(seen)],
        )
