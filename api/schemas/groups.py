"""Groups in responses."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field

from api.framework import links
from api.schemas.fields import Time
from api.schemas.jobs import Job, Notice
from api.schemas.parts import ResponseModel
from core import ids
from jobs import records
from jobs.lifecycle import Status
from jobs.store import history, positions


class GroupCounts(ResponseModel):
    """The number of jobs in each status."""

    queued: int
    running: int
    succeeded: int
    failed: int
    cancelled: int


class GroupUsage(ResponseModel):
    """The tokens so far of all jobs that an engine has started."""

    jobs: int = Field(description="The number of these jobs.")
    input_tokens: int
    cached_tokens: int = Field(description="Input tokens from the engine's cache.")
    prefilled_tokens: int = Field(description="Input tokens that the engine computed.")
    output_tokens: int


class GroupUrls(ResponseModel):
    """Paths of related resources."""

    self: str
    jobs: str


class Group(ResponseModel):
    """Questions about the same images, each a job. The first job leads, so the engine computes the images once."""

    id: str
    object: Literal["group"] = "group"
    finished: bool = Field(description="Whether all jobs have ended.")
    counts: GroupCounts
    usage: GroupUsage | None
    jobs: list[Job] = Field(description="In the order of the questions.")
    warnings: list[Notice] = Field(description="Warnings about a new group; otherwise empty.")
    created_at: Time
    urls: GroupUrls

    @classmethod
    def of(
        cls, views: Sequence[history.JobView], *, last: positions.QueuePosition | None = None
    ) -> Self:
        """Return the response for a group of these jobs, at least one; ``last`` is the place of the last one."""
        leader = views[0].job
        group_id = ids.show("grp", leader.group_id or leader.id)
        states = Counter(view.job.status for view in views)
        return cls(
            id=group_id,
            finished=all(status.terminal for status in states),
            counts=GroupCounts(**{status.value: states[status] for status in Status}),
            usage=_usage([view.job for view in views]),
            jobs=[Job.of(view) for view in views],
            warnings=Notice.late(last, leader),
            created_at=leader.created_at,
            urls=GroupUrls(
                self=links.to(f"/v1/groups/{group_id}"),
                jobs=links.to(f"/v1/jobs?q=group:{group_id}"),
            ),
        )


def _usage(jobs: Sequence[records.jobs.Job]) -> GroupUsage | None:
    billed = [job for job in jobs if job.input_tokens is not None]
    if not billed:
        return None
    total = sum(job.input_tokens or 0 for job in billed)
    cached = sum(job.cached_tokens or 0 for job in billed)
    return GroupUsage(
        jobs=len(billed),
        input_tokens=total,
        cached_tokens=cached,
        prefilled_tokens=total - cached,
        output_tokens=sum(job.output_tokens or 0 for job in billed),
    )
