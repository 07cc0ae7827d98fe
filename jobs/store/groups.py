"""Jobs that ask several questions about the same images: the first leads, the others follow.

A group is named after its leader: ``group_id`` of all its jobs is the leader's id. The engine computes the
images once if the leader comes first, so followers wait until it has; everything that they wait for stands
in the leader's own row, and whatever dies, the wait ends by itself.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa

from core.database import Now, Transaction
from jobs.lifecycle import Status
from jobs.records import Job, table
from jobs.store import timeline

#: After its leader's start a follower waits no longer than this: the leader's worker or engine may be gone.
LONGEST_WAIT = timedelta(seconds=60)

_JOB = table(Job).c


@dataclass(frozen=True)
class FollowersReleased:
    """Followers that wait no longer, noted for those who ring for them once it is committed."""

    jobs: int


def free() -> sa.ColumnElement[bool]:
    """Return the condition of waiting for no leader.

    A leader holds its followers until its first token, its end, or :data:`LONGEST_WAIT` after its first start.
    """
    leader = table(Job).alias().c
    holds = sa.and_(
        leader.first_token_at.is_(None),
        leader.finished_at.is_(None),
        sa.or_(leader.started_at.is_(None), leader.started_at > Now(-LONGEST_WAIT)),
    )
    # A value rather than EXISTS, which PostgreSQL may answer by reading all leaders at once.
    held = sa.select(holds).where(leader.id == _JOB.group_id, leader.id != _JOB.id)
    return sa.not_(sa.func.coalesce(held.scalar_subquery(), sa.false(), type_=sa.Boolean()))


_FOLLOWERS = sa.select(sa.func.count(_JOB.id)).where(
    _JOB.group_id.in_(sa.bindparam("leaders", expanding=True)), timeline.standing(Status.QUEUED)
)


def record_released(transaction: Transaction, leaders: Collection[uuid.UUID]) -> None:
    """Note how many jobs wait for those of ``leaders`` that lead, because these hold them no longer."""
    followers: int = transaction.execute(_FOLLOWERS, {"leaders": list(leaders)}).scalar_one()
    if followers:
        transaction.notes.append(FollowersReleased(followers))
