"""The state of the queue in responses, and of workers and engines for operators."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self

from pydantic import Field

from api.schemas import cursors, fields
from api.schemas.fields import Time
from api.schemas.parameters import ParameterModel
from api.schemas.parts import Page, ResponseModel
from api.schemas.requests import RequestModel
from core import ids
from jobs.store import pauses, statistics
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
    cordoned: bool = Field(description="Whether the engine gets no new jobs, because of a cordon.")
    running: int = Field(description="Streams that run on the engine.")


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


class QueuePause(ResponseModel):
    """A pause of the queue. Without an account and a priority it is of all jobs."""

    id: str
    object: Literal["queue.pause"] = "queue.pause"
    account_id: str | None
    account: str | None
    priority: Literal["high", "normal", "low"] | None
    reason: str | None
    paused_at: Time
    paused_by: str | None = Field(description="The actor; null unless the caller is an operator.")
    paused_by_name: str | None = Field(description="The name of its key; null as above.")
    resumed_at: Time | None
    resumed_by: str | None = Field(description="As `paused_by`.")
    resumed_by_name: str | None = Field(description="As `paused_by_name`.")

    @classmethod
    def of(cls, pause: pauses.PauseView, *, names: Mapping[str, str] | None) -> Self:
        """Return the response for a pause; ``names`` has those of the keys, None: the caller is no operator."""
        account_id = pause.account_id
        open_ = names is not None
        return cls.from_record(
            pause,
            id=ids.show("qp", pause.id),
            account_id=None if account_id is None else ids.show("acct", account_id),
            priority=None if pause.priority is None else pause.priority.value,
            paused_by=pause.paused_by if open_ else None,
            paused_by_name=names.get(pause.paused_by) if names is not None else None,
            resumed_by=pause.resumed_by if open_ else None,
            resumed_by_name=names.get(pause.resumed_by or "") if names is not None else None,
        )


class QueuePauseList(Page[QueuePause, str]):
    """A page of pauses, newest first."""


class QueueScope(RequestModel):
    """The part of the queue that is resumed: that of a pause with the same account and priority."""

    account: Annotated[fields.Text, Field(max_length=255)] | None = Field(
        default=None, description="The name or id of an account; default: all accounts."
    )
    priority: Literal["high", "normal", "low"] | None = Field(
        default=None, description="Default: all priorities."
    )


class QueuePauseRequest(QueueScope):
    """The part of the queue that is paused, and why."""

    reason: Annotated[fields.Text, Field(max_length=500)] | None = Field(
        default=None, description="Shown wherever the pause is."
    )


class QueueResumed(ResponseModel):
    """A pause has ended."""

    object: Literal["queue.resumed"] = "queue.resumed"


class QueuePausesQuery(ParameterModel):
    """A page of pauses."""

    after: Annotated[uuid.UUID, cursors.of("qp")] | None = Field(
        default=None, description=cursors.DESCRIPTION
    )
    limit: int = Field(default=20, ge=1, le=100, description="Maximum number on a page.")


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
    pauses: list[QueuePause] = Field(
        description="The active pauses, of the same accounts. Paused jobs stay queued."
    )
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
        paused: Sequence[QueuePause],
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
            pauses=list(paused),
            workers=None if seen is None else [QueueWorker.of(worker) for worker in seen],
            engines=None
            if seen is None
            else [QueueEngine.from_record(engine) for engine in workforce.engines(seen)],
        )
