"""Followers wait for their leader: until its first token, its end, or a bounded time. Nothing that dies holds them."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from core.database import Database
from jobs.lifecycle import Priority, Status
from jobs.records.jobs import Job
from jobs.store import (
    claims,
    commands,
    expiry,
    groups,
    history,
    settle,
    submission,
    timeline,
    traces,
)
from tests import factories
from tests.databases import Age

ACTOR = "key:test"
FOLLOWERS = 3


def submit(database: Database, account_id: uuid.UUID, **facts: object) -> list[uuid.UUID]:
    """Submit a group; return its jobs, the leader first."""
    followers = [
        submission.Follower(f"Question {number}?", {"max_output_tokens": 64})
        for number in range(1, FOLLOWERS + 1)
    ]
    leader = factories.make_job(database, account_id, followers=followers, **facts)
    return [view.job.id for view in history.group(database, leader, account_id=account_id)]


def claimable(database: Database) -> int:
    return expiry.due(database, limit=100)


def next_job(database: Database) -> uuid.UUID | None:
    """Claim the best job, if there is one."""
    claimed = claims.claim(database, owner="worker-2", lease=factories.LEASE)
    return claimed.job_id if claimed else None


def first_token(database: Database, leader: claims.Claim) -> None:
    assert not traces.append(
        database, owner=leader.owner, pieces=[factories.make_piece(leader, "It")]
    )


def started(database: Database) -> claims.Claim:
    """Claim the leader and begin its stream."""
    leader = factories.claim(database)
    factories.begin(database, leader)
    return leader


def test_a_group_is_stored_whole_with_one_image_and_one_key(
    database: Database, account_id: uuid.UUID
) -> None:
    jobs = submit(database, account_id, idempotency_key="k", fingerprint="f")

    views = history.group(database, jobs[0], account_id=account_id)
    assert [view.job.question for view in views] == [
        "How many circles are there?", "Question 1?", "Question 2?", "Question 3?",
    ]  # fmt: skip
    assert {view.job.group_id for view in views} == {jobs[0]}
    assert len({view.images[0].image.id for view in views}) == 1
    assert [view.job.idempotency_key for view in views] == ["k", None, None, None]
    assert submit(database, account_id, idempotency_key="k", fingerprint="f") == jobs
    assert {entry.action for job in jobs for entry in timeline.read(database, job, limit=9)[0]} == {
        "submitted"
    }
    other = factories.make_account(database)
    assert history.group(database, jobs[0], account_id=other) == []


def test_a_group_that_cannot_be_stored_whole_is_not_stored(
    database: Database, account_id: uuid.UUID
) -> None:
    unkeepable = {"seed": object()}
    followers = [submission.Follower("One?", {}), submission.Follower("Two?", unkeepable)]
    with pytest.raises((sa.exc.StatementError, TypeError)):
        factories.make_job(database, account_id, followers=followers)

    assert history.page(database, history.Filter(account_id=None), limit=5) == ([], False)


def test_the_leader_is_claimed_first_and_its_followers_after_its_first_token(
    database: Database, account_id: uuid.UUID
) -> None:
    jobs = submit(database, account_id)
    other = factories.make_job(database, account_id, priority=Priority.LOW)

    leader = started(database)
    assert leader.job_id == jobs[0]
    assert claimable(database) == 1
    assert next_job(database) == other
    assert next_job(database) is None

    first_token(database, leader)

    assert claimable(database) == FOLLOWERS
    assert [next_job(database) for _ in jobs] == [*jobs[1:], None]


def ended(database: Database, leader: claims.Claim) -> None:
    assert settle.succeed(database, leader, answer=None, generation=factories.make_ended())


def failed(database: Database, leader: claims.Claim) -> None:
    assert settle.fail(database, leader, settle.Failure("engine_rejected", "No."), generation=None)


def stopped(database: Database, leader: claims.Claim) -> None:
    commands.cancel(database, leader.job_id, account_id=None, actor=ACTOR)
    assert settle.stop(database, leader, generation=None)


@pytest.mark.parametrize("end", [ended, failed, stopped])
def test_the_end_of_a_leader_frees_its_followers(
    database: Database,
    account_id: uuid.UUID,
    end: Callable[[Database, claims.Claim], None],
) -> None:
    submit(database, account_id)
    leader = started(database)
    assert claimable(database) == 0

    end(database, leader)

    assert claimable(database) == FOLLOWERS


def test_a_leader_that_is_cancelled_before_it_ran_frees_its_followers(
    database: Database, account_id: uuid.UUID
) -> None:
    jobs = submit(database, account_id)
    commands.cancel(database, jobs[0], account_id=None, actor=ACTOR)

    assert [next_job(database) for _ in jobs] == [*jobs[1:], None]


def test_a_leader_whose_worker_is_gone_holds_its_followers_for_a_minute_at_most(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    jobs = submit(database, account_id)
    started(database)
    age(30)
    assert claimable(database) == 0

    age(31)

    assert [next_job(database) for _ in jobs] == [*jobs[1:], None]
    assert factories.get_job(database, jobs[0]).job.status is Status.RUNNING


def test_a_leader_that_waits_for_another_attempt_holds_no_follower(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    submit(database, account_id)
    leader = started(database)
    fault = settle.Failure("engine_fault", "It broke.", retryable=True)
    assert settle.retry(database, leader, fault, generation=None, rng=random.Random(1))
    assert claimable(database) == 0

    age(61)

    assert claimable(database) == FOLLOWERS + 1


def test_while_the_leader_waits_in_a_long_queue_its_followers_do(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    """However late it begins: else they would all begin with it."""
    submit(database, account_id)
    age(600)

    assert claimable(database) == 1


def test_released_followers_are_noted_for_the_wakeup(
    database: Database, account_id: uuid.UUID
) -> None:
    woken: list[int] = []
    database.listen(
        lambda note: woken.append(note.jobs) if isinstance(note, groups.FollowersReleased) else None
    )
    factories.make_job(database, account_id)
    alone = started(database)
    first_token(database, alone)
    ended(database, alone)
    submit(database, account_id)
    leader = started(database)
    assert woken == []

    first_token(database, leader)
    next_job(database)
    ended(database, leader)

    assert woken == [FOLLOWERS, FOLLOWERS - 1]


def test_the_place_of_a_job_counts_the_followers_before_it(
    database: Database, account_id: uuid.UUID
) -> None:
    submit(database, account_id)
    after = factories.make_job(database, account_id)

    place = factories.get_job(database, after).queue

    assert place is not None
    assert place.position == 2 + FOLLOWERS


@pytest.mark.parametrize("dialect", ["postgresql"])  # SQLite has no two writers at once.
def test_a_follower_is_not_claimed_while_its_leader_is_being_claimed(
    database: Database, account_id: uuid.UUID
) -> None:
    """Whoever claims at the same moment passes the locked leader by, and must not take what stands behind it."""
    jobs = submit(database, account_id)
    with database.transaction() as transaction:
        transaction.execute(sa.select(Job.id).where(Job.id == jobs[0]).with_for_update())

        assert next_job(database) is None
