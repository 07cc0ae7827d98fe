"""Which job is claimed next, by whom, and with what in hand."""

from __future__ import annotations

import uuid
from collections import Counter
from datetime import timedelta

import pytest

from core.database import Database
from jobs.lifecycle import Priority, Status
from jobs.store import claims, commands, expiry, history, settle
from tests import factories, races
from tests.databases import Age


def test_nothing_is_claimed_from_an_empty_queue(database: Database) -> None:
    assert claims.claim(database, owner="worker-1", lease=factories.LEASE) is None


def test_a_claim_carries_what_the_worker_needs(database: Database, account_id: uuid.UUID) -> None:
    first, second = factories.make_image(b"first"), factories.make_image(b"second")
    job_id = factories.make_job(
        database,
        account_id,
        images=[(first, 4), (second, 9)],
        question="Which is larger?",
        options={"seed": 7},
        max_attempts=3,
        request_id="req_1",
    )

    claimed = factories.claim(database, "worker-1")

    assert (claimed.job_id, claimed.attempt, claimed.owner) == (job_id, 1, "worker-1")
    assert (claimed.question, claimed.options) == ("Which is larger?", {"seed": 7})
    assert (claimed.failures, claimed.max_attempts, claimed.request_id) == (0, 3, "req_1")
    assert claimed.account_id == account_id
    assert claimed.images == (
        claims.ClaimedImage(first.key, "image/png", 56, 56, 4),
        claims.ClaimedImage(second.key, "image/png", 56, 56, 9),
    )
    image = claims.image(database, account_id=account_id, key=second.key)
    assert image == second.data


def test_a_claim_makes_the_job_running_and_stores_the_attempt(
    database: Database, account_id: uuid.UUID
) -> None:
    job_id = factories.make_job(database, account_id)

    factories.claim(database, "worker-1")

    job = factories.get_job(database, job_id).job
    assert (job.status, job.attempt, job.lease_owner) == (Status.RUNNING, 1, "worker-1")
    assert job.lease_expires_at is not None
    assert job.started_at is not None
    assert timedelta(0) < job.lease_expires_at - job.started_at <= factories.LEASE * 1.01
    [view] = history.attempts(database, job_id)
    assert (view.attempt.number, view.attempt.worker) == (1, "worker-1")
    assert (view.attempt.outcome, view.attempt.ended_at, view.generations) == (None, None, ())


def test_the_question_does_not_show_in_the_repr_of_a_claim(
    database: Database, account_id: uuid.UUID
) -> None:
    factories.make_job(database, account_id, question="a secret question")

    assert "secret" not in repr(factories.claim(database))
    assert "secret" not in repr(factories.make_submission(account_id, question="secret"))


def test_jobs_of_one_class_are_claimed_in_the_order_of_their_submission(
    database: Database, account_id: uuid.UUID
) -> None:
    submitted = [factories.make_job(database, account_id) for _ in range(5)]

    assert [factories.claim(database).job_id for _ in range(5)] == submitted


def test_a_higher_class_is_claimed_first(database: Database, account_id: uuid.UUID) -> None:
    low, normal, high = (
        factories.make_job(database, account_id, priority=priority)
        for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH)
    )

    assert [factories.claim(database).job_id for _ in range(3)] == [high, normal, low]


@pytest.mark.parametrize(
    ("lower", "higher"), [(Priority.NORMAL, Priority.HIGH), (Priority.LOW, Priority.NORMAL)]
)
def test_sixteen_jobs_of_a_class_go_before_each_one_of_the_class_below(
    database: Database, account_id: uuid.UUID, lower: Priority, higher: Priority
) -> None:
    below = [factories.make_job(database, account_id, priority=lower) for _ in range(2)]
    for _ in range(40):
        factories.make_job(database, account_id, priority=higher)

    claimed = [factories.claim(database).job_id for _ in range(42)]

    first, second = (claimed.index(job_id) for job_id in below)
    # It begins behind the first job of the class above it, or behind a round of them.
    assert first == (1 if lower is Priority.NORMAL else 17)
    assert second - first == 17


def test_a_job_is_not_claimed_before_it_is_due(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    job_id = factories.make_job(database, account_id)
    claimed = factories.claim(database)
    settle.release(database, claimed, generation=None, wait=timedelta(seconds=30))

    assert claims.claim(database, owner="worker-2", lease=factories.LEASE) is None
    assert expiry.due(database, limit=10) == 0

    age(31)
    assert expiry.due(database, limit=10) == 1
    assert factories.claim(database, "worker-2").job_id == job_id


def test_a_waiting_job_does_not_hold_up_the_ones_behind_it(
    database: Database, account_id: uuid.UUID
) -> None:
    factories.make_job(database, account_id)
    behind = factories.make_job(database, account_id)
    settle.release(database, factories.claim(database), generation=None, wait=timedelta(seconds=30))

    assert factories.claim(database).job_id == behind


def test_a_job_past_its_deadline_is_not_claimed(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    factories.make_job(database, account_id, deadline=timedelta(seconds=10))
    age(11)

    assert claims.claim(database, owner="worker-1", lease=factories.LEASE) is None


def test_a_cancelled_job_is_not_claimed(database: Database, account_id: uuid.UUID) -> None:
    job_id = factories.make_job(database, account_id)
    commands.cancel(database, job_id, account_id=account_id, actor="key:test")

    assert claims.claim(database, owner="worker-1", lease=factories.LEASE) is None


def test_the_due_jobs_are_counted_up_to_a_limit(database: Database, account_id: uuid.UUID) -> None:
    for _ in range(4):
        factories.make_job(database, account_id)

    assert expiry.due(database, limit=10) == 4
    assert expiry.due(database, limit=3) == 3
    assert expiry.due(database, limit=0) == 0


def test_of_16_racing_threads_each_job_is_claimed_by_exactly_one(
    database: Database, account_id: uuid.UUID
) -> None:
    submitted = {factories.make_job(database, account_id) for _ in range(40)}

    def drain(owner: str) -> list[claims.Claim]:
        mine: list[claims.Claim] = []
        while (claimed := claims.claim(database, owner=owner, lease=factories.LEASE)) is not None:
            mine.append(claimed)
        return mine

    shares = races.race(*(lambda owner=f"worker-{n}": drain(owner) for n in range(16)))

    claimed = [one for share in shares for one in share]
    assert Counter(one.job_id for one in claimed) == Counter(submitted)
    assert {one.attempt for one in claimed} == {1}
    for one in claimed:
        assert factories.get_job(database, one.job_id).job.lease_owner == one.owner


def test_no_attempt_number_is_ever_used_twice_when_threads_fight_over_few_jobs(
    database: Database, account_id: uuid.UUID
) -> None:
    jobs = [factories.make_job(database, account_id) for _ in range(3)]

    def play(owner: str) -> list[tuple[uuid.UUID, int]]:
        mine: list[tuple[uuid.UUID, int]] = []
        for _ in range(6):
            claimed = claims.claim(database, owner=owner, lease=factories.LEASE)
            if claimed is not None:
                mine.append((claimed.job_id, claimed.attempt))
                assert settle.release(database, claimed, generation=None)
        return mine

    played = races.race(*(lambda owner=f"worker-{n}": play(owner) for n in range(8)))

    attempts = [attempt for share in played for attempt in share]
    assert len(attempts) == len(set(attempts))
    reported = {
        (job_id, view.attempt.number)
        for job_id in jobs
        for view in history.attempts(database, job_id)
    }
    assert set(attempts) == reported
