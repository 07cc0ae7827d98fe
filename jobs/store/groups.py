"""Groups: jobs with several questions about the same images. The first job leads, the others follow.

The ``group_id`` of all jobs of a group is the leader's id. The engine computes the images once if the leader comes
first, so the followers wait for it. What they wait for is in the leader's row, and the wait ends whatever process dies.
"""

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa

from core.database import Now, Transaction
from jobs.lifecycle import Status
from jobs.records.declarative import table
from jobs.records.jobs import Job
from jobs.store import timeline

#: A follower waits at most this long after its leader's start: the leader's worker or engine may be gone.
LONGEST_WAIT = timedelta(seconds=60)

_JOB = table(Job).c


@dataclass(frozen=True)
class FollowersReleased:
    """The number of followers that no longer wait: a note for the process that wakes workers after the commit."""

    jobs: int


def free() -> sa.ColumnElement[bool]:
    """Return the condition of a job not to be held by its leader.

    A leader holds its followers until its first token, its end, or :data:`LONGEST_WAIT` after its first start.
    """
    leader = table(Job).alias().c
    holds = sa.and_(
        leader.first_token_at.is_(None),
        leader.finished_at.is_(None),
        sa.or_(leader.started_at.is_(None), leader.started_at > Now(-LONGEST_WAIT)),
    )
    # A subquery instead of EXISTS, for which PostgreSQL may read all leaders.
    held = sa.select(holds).where(leader.id == _JOB.group_id, leader.id != _JOB.id)
    return sa.not_(sa.func.coalesce(held.scalar_subquery(), sa.false(), type_=sa.Boolean()))


_FOLLOWERS = sa.select(sa.func.count(_JOB.id)).where(
    _JOB.group_id.in_(sa.bindparam("leaders", expanding=True)), timeline.standing(Status.QUEUED)
)


def record_released(transaction: Transaction, leaders: Collection[uuid.UUID]) -> None:
    """Note how many queued jobs follow ``leaders``, which no longer hold them."""
    followers = transaction.scalar(_FOLLOWERS, {"leaders": list(leaders)})
    if followers:
        transaction.notes.append(FollowersReleased(followers))
