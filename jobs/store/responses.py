"""What clients of OpenAI's surface sent with a job: their routes repeat it in the objects that show the job."""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final, Literal

import sqlalchemy as sa

from core.database import Database, Transaction
from jobs.records.declarative import table
from jobs.records.jobs import Job, ResponseEntry

#: A request that is still open reads the answer, and then removes the content itself.
_GRACE: Final = timedelta(minutes=1)

Surface = Literal["responses", "chat"]


@dataclass(frozen=True)
class NewResponse:
    """What is stored with a new job.

    Attributes:
        surface: the routes that create it.
        background: whether the client does not wait for the answer.
        requested: JSON, with images by their position in the job.
        discard: whether the content of the job is to be removed once it has ended.
    """

    surface: Surface
    background: bool
    requested: Mapping[str, Any] = field(repr=False)
    discard: bool = False

    def with_images(self, positions: Sequence[int]) -> "NewResponse":
        """Return the same for a job that gets only the images at ``positions``, in this order.

        A message whose image the job does not get has no position for it any more.
        """
        moved = {old: new for new, old in enumerate(positions)}
        items = [
            item
            | {
                "content": [
                    part | {"image": moved.get(part["image"])} if "image" in part else part
                    for part in item["content"]
                ]
            }
            for item in self.requested.get("input", ())
        ]
        return replace(self, requested={**self.requested, "input": items})


def add(transaction: Transaction, job_id: uuid.UUID, new: NewResponse) -> None:
    """Store what was sent with a job, in the transaction that stores the job."""
    transaction.execute(
        sa.insert(table(ResponseEntry)),
        {
            "job_id": job_id,
            "surface": new.surface,
            "background": new.background,
            "requested": dict(new.requested),
            "discard": new.discard,
        },
    )


def get(database: Database, job_id: uuid.UUID) -> ResponseEntry | None:
    """Return what was sent with a job, None for a job of the native routes."""
    with database.reading() as transaction:
        return transaction.session.get(ResponseEntry, job_id)


def remove_requested(transaction: Transaction, job_ids: Collection[uuid.UUID]) -> None:
    """Remove what was sent with jobs; their surface stays."""
    transaction.update(
        ResponseEntry, ResponseEntry.job_id.in_(job_ids), requested=sa.null(), discard=False
    )


def to_discard(database: Database, *, limit: int) -> list[uuid.UUID]:
    """Return up to ``limit`` jobs that ended a while ago, whose content is to be removed and whose request did not."""
    with database.reading() as transaction:
        # Not a join, which SQLite would begin with all jobs that have ended.
        ended = sa.exists().where(
            Job.id == ResponseEntry.job_id, Job.finished_at < transaction.now(-_GRACE)
        )
        wanted = (
            sa.select(ResponseEntry.job_id)
            # As the condition of its partial index, which SQLite compares as it is written.
            .where(sa.text("responses.discard"), ended)
            .limit(limit)
        )
        return list(transaction.execute(wanted).scalars())
