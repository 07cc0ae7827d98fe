"""A group as callers get it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field

from api.schemas.fields import Time
from api.schemas.jobs import Job, Notice
from api.schemas.parts import ResponseModel
from core import ids
from jobs import records
from jobs.lifecycle import Status
from jobs.store import history, positions


class GroupCounts(ResponseModel):
    """How many of the jobs stand where."""

    queued: int
    running: int
    succeeded: int
    failed: int
    cancelled: int


class GroupUsage(ResponseModel):
    """What the jobs cost so far, all those that an engine has taken."""

    jobs: int = Field(description="How many these are.")
    input_tokens: int
    cached_tokens: int = Field(
        description="Those of them that the engine had already: what it was saved."
    )
    prefilled_tokens: int = Field(description="Those of them that it had to compute.")
    output_tokens: int


class GroupUrls(ResponseModel):
    """Where to go on."""

    self: str
    jobs: str


class Group(ResponseModel):
    """Several questions about the same images, each a job. The first leads, so that the images are computed once."""

    id: str
    object: Literal["group"] = "group"
    finished: bool = Field(description="Whether all of its jobs have ended.")
    counts: GroupCounts
    usage: GroupUsage | None
    jobs: list[Job] = Field(description="In the order of the questions.")
    warnings: list[Notice] = Field(
        description="In the answer to a submission: what the caller should know. Else empty."
    )
    created_at: Time
    urls: GroupUrls

    @classmethod
    def of(
        cls, views: Sequence[history.JobView], *, last: positions.QueuePosition | None = None
    ) -> Self:
        """Return what callers see of a group with these jobs, at least one; ``last`` is the last one's place."""
        leader = views[0].job
        shown = ids.show("grp", leader.group_id or leader.id)
        states = Counter(view.job.status for view in views)
        return cls(
            id=shown,
            finished=all(status.terminal for status in states),
            counts=GroupCounts(**{status.value: states[status] for status in Status}),
            usage=_usage([view.job for view in views]),
            jobs=[Job.of(view, listed=True) for view in views],
            warnings=Notice.late(last, leader),
            created_at=leader.created_at,
            urls=GroupUrls(self=f"/v1/groups/{shown}", jobs=f"/v1/jobs?q=group:{shown}"),
        )


def _usage(jobs: Sequence[records.Job]) -> GroupUsage | None:
    billed = [job for job in jobs if job.input_tokens is not None]
    if not billed:
        return None
    reported = sum(job.input_tokens or 0 for job in billed)
    cached = sum(job.cached_tokens or 0 for job in billed)
    return GroupUsage(
        jobs=len(billed),
        input_tokens=reported,
        cached_tokens=cached,
        prefilled_tokens=reported - cached,
        output_tokens=sum(job.output_tokens or 0 for job in billed),
    )
