"""Engines and workers in responses, and what operators do to them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from api.schemas import fields
from api.schemas.fields import Time
from api.schemas.parts import ResponseModel
from api.schemas.queue import QueueEngine, QueueWorker
from api.schemas.requests import RequestModel


class FleetEngine(QueueEngine):
    """An engine, and its cordon."""

    cordoned: bool = Field(description="Whether all live workers respect the cordon by now.")
    cordoned_at: Time | None = Field(description="Null without a cordon, as the next three.")
    cordoned_by: str | None
    cordoned_by_name: str | None = Field(description="The name of the key in `cordoned_by`.")
    reason: str | None


class FleetEngines(ResponseModel):
    """The engines that live workers report."""

    object: Literal["list"] = "list"
    data: list[FleetEngine]
    has_more: Literal[False] = False


class FleetWorker(QueueWorker):
    """A worker process, and the jobs that it runs."""

    running: int
    drain_requested_at: Time | None = Field(
        description="Since when an operator wants it to take no more jobs; null: no operator does. `state` is "
        "`draining` once the worker respects it."
    )
    drain_requested_by: str | None


class FleetWorkers(ResponseModel):
    """The worker processes."""

    object: Literal["list"] = "list"
    data: list[FleetWorker]
    has_more: Literal[False] = False


class EngineName(RequestModel):
    """An engine."""

    url: Annotated[fields.Text, Field(min_length=1, max_length=2000)] = Field(
        description="As in `GET /v1/engines`."
    )


class EngineCordonRequest(EngineName):
    """An engine, and why it gets no new jobs."""

    reason: Annotated[fields.Text, Field(max_length=500)] | None = None


class WorkerName(RequestModel):
    """A worker process."""

    worker: Annotated[fields.Text, Field(min_length=1, max_length=255)] = Field(
        description="The `id` in `GET /v1/workers`."
    )
