"""Accounts take turns: nobody's backlog delays another account's next job by more than a turn."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
import sqlalchemy as sa

from core import failpoints
from core.database import Database, utcnow
from jobs.lifecycle import HEAD_START, Priority, Status
from jobs.records.jobs import Job
from jobs.records.queue import QueueTurn
from jobs.store import claims, commands, positions, settle, submission, turns
from tests import factories, races
from tests.databases import Age

ACTOR = "key:test"
_CLAIM = """
import sys
from core.database import Database
from jobs.store import claims
from tests import factories
claims.claim(Database(sys.argv[1]), owner="victim", lease=factories.LEASE)
"""


def queue(
    database: Database, account_id: uuid.UUID, jobs: int, priority: Priority = Priority.NORMAL
) -> None:
    """Put many jobs of an account into the queue at once."""
    row = {"priority": priority, "ordering_at": utcnow() - HEAD_START[priority]}
    factories.insert_jobs(database, account_id, [row for _ in range(jobs)])


def claimed_accounts(database: Database, count: int) -> list[uuid.UUID]:
    """Claim so many jobs; return whose they are."""
    return [factories.claim(database).account_id for _ in range(count)]


def place(database: Database, job_id: uuid.UUID) -> positions.QueuePosition:
    """Return the place of a queued job."""
    found = factories.get_job(database, job_id).queue
    assert found is not None
    return found


def queued(database: Database) -> set[uuid.UUID]:
    """Return the ids of all queued jobs."""
    with database.reading() as transaction:
        rows = transaction.execute(sa.select(Job.id).where(Job.status == Status.QUEUED))
        return set(rows.scalars())


def kept_turns(database: Database) -> set[tuple[uuid.UUID, Priority]]:
    """Return the accounts and classes that have a row."""
    with database.reading() as transaction:
        rows = transaction.execute(sa.select(QueueTurn.account_id, QueueTurn.priority))
        return {(row.account_id, row.priority) for row in rows}


def test_the_first_job_of_an_account_comes_before_the_second_of_a_backlog(
    database: Database, account_id: uuid.UUID
) -> None:
    queue(database, account_id, 6_000)
    queue(database, account_id, 1_000, Priority.HIGH)
    claimed_accounts(database, 3)
    other = factories.make_account(database)
    job_id = factories.make_job(database, other)

    assert place(database, job_id).position <= 2
    assert other in claimed_accounts(database, 2)


def test_new_accounts_that_keep_coming_do_not_hold_up_a_backlog(
    database: Database, account_id: uuid.UUID
) -> None:
    claimed: list[uuid.UUID] = []
    for owner in [factories.make_account(database) for _ in range(8)]:
        queue(database, owner, 3)
    queue(database, account_id, 8)
    for _ in range(8):
        other = factories.make_account(database)
        factories.make_job(database, other)
        claimed += claimed_accounts(database, 3)

    # Each of the 17 accounts has its first turn, and each of the nine with more jobs its second one.
    assert account_id in claimed
    assert (claimed + claimed_accounts(database, 10)).count(account_id) >= 2


def test_accounts_with_a_backlog_take_turns(database: Database) -> None:
    owners = [factories.make_account(database) for _ in range(3)]
    for owner, jobs in zip(owners, (40, 20, 10), strict=True):
        queue(database, owner, jobs)

    claimed = claimed_accounts(database, 70)

    for start in range(0, 30, 3):
        assert set(claimed[start : start + 3]) == set(owners)
    for start in range(30, 50, 2):
        assert set(claimed[start : start + 2]) == set(owners[:2])
    assert set(claimed[50:]) == {owners[0]}


def test_an_account_that_was_away_neither_gains_nor_loses(
    database: Database, account_id: uuid.UUID
) -> None:
    other = factories.make_account(database)
    for _ in range(20):
        factories.make_job(database, account_id)
        factories.claim(database)
        turns.remove_passed(database)
    for owner in (account_id, other):
        queue(database, owner, 10)

    claimed = claimed_accounts(database, 20)

    for start in range(2, 20, 2):
        assert set(claimed[start : start + 2]) == {account_id, other}, claimed


def test_one_job_at_a_time_gets_no_more_turns_than_a_backlog(
    database: Database, account_id: uuid.UUID
) -> None:
    queue(database, account_id, 30)
    other = factories.make_account(database)
    claimed: list[uuid.UUID] = []
    for _ in range(20):
        if not any(
            factories.get_job(database, job).job.account_id == other for job in queued(database)
        ):
            factories.make_job(database, other)
        claimed += claimed_accounts(database, 1)
        turns.remove_passed(database)

    assert abs(claimed.count(other) - claimed.count(account_id)) <= 1


def test_jobs_that_were_cancelled_cost_no_turn(database: Database, account_id: uuid.UUID) -> None:
    mine = [factories.make_job(database, account_id) for _ in range(20)]
    for job_id in mine[:15]:
        commands.cancel(database, job_id, account_id=account_id, actor=ACTOR)
    other = factories.make_account(database)
    queue(database, other, 20)

    claimed = claimed_accounts(database, 10)

    for start in range(0, 10, 2):
        assert set(claimed[start : start + 2]) == {account_id, other}, claimed


def test_turns_that_were_missed_are_not_made_up_for(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    queue(database, account_id, 10)
    held = [factories.claim(database) for _ in range(10)]
    for claim in held:
        settle.release(database, claim, generation=None, wait=timedelta(seconds=30))
    others = [factories.make_account(database) for _ in range(2)]
    for other in others:
        queue(database, other, 20)
    assert account_id not in claimed_accounts(database, 20)

    age(31)

    assert claimed_accounts(database, 9).count(account_id) in (3, 4)


def test_a_retried_job_keeps_its_position_in_its_account(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    jobs = [factories.make_job(database, account_id) for _ in range(3)]
    first = factories.claim(database)
    fault = settle.Failure("engine_fault", "No.", retryable=True)
    factories.begin(database, first)
    settle.retry(database, first, fault, generation=factories.make_ended(), rng=random.Random(1))
    age(61)

    assert [factories.claim(database).job_id for _ in range(3)] == jobs


def test_a_group_gives_its_account_no_more_turns(database: Database, account_id: uuid.UUID) -> None:
    followers = [submission.Follower("And how many squares?", {}) for _ in range(5)]
    factories.make_job(database, account_id, followers=followers)
    leader = factories.claim(database)
    factories.begin(database, leader)
    settle.succeed(database, leader, answer=None, generation=factories.make_ended())
    other = factories.make_account(database)
    queue(database, other, 5)

    claimed = claimed_accounts(database, 10)

    for start in range(0, 10, 2):
        assert set(claimed[start : start + 2]) == {account_id, other}, claimed


def test_a_low_job_is_claimed_before_all_later_ones(
    database: Database, account_id: uuid.UUID
) -> None:
    low = factories.make_job(database, account_id, priority=Priority.LOW)
    other = factories.make_account(database)
    queue(database, other, 300, Priority.HIGH)
    queue(database, other, 30)

    claimed = []
    for turn in range(300):
        claimed.append(factories.claim(database).job_id)
        if turn == 30:
            queue(database, other, 30)

    assert low in claimed


@pytest.mark.parametrize("place_of_death", ["claim.commit", "claim.committed"])
def test_a_claimer_that_is_killed_loses_no_job_and_no_turn(
    database: Database, database_url: str, account_id: uuid.UUID, place_of_death: str
) -> None:
    other = factories.make_account(database)
    mine, theirs = (factories.make_job(database, owner) for owner in (account_id, other))
    first = place(database, mine).position == 1
    killed = subprocess.run(
        [sys.executable, "-c", _CLAIM, database_url],
        env=os.environ | {failpoints.VARIABLE: f"{place_of_death}=kill"},
        check=False,
    )
    assert killed.returncode == -9

    left = [mine, theirs] if first else [theirs, mine]
    if place_of_death == "claim.committed":
        left = left[1:]
    assert [factories.claim(database).job_id for _ in left] == left
    assert claims.claim(database, owner="worker-1", lease=factories.LEASE) is None


def test_rows_are_removed_once_their_turn_has_passed(
    database: Database, account_id: uuid.UUID
) -> None:
    factories.insert_jobs(database, account_id, [{}])
    assert kept_turns(database) == {(account_id, Priority.NORMAL)}
    assert turns.remove_passed(database) == 0

    factories.claim(database)
    assert turns.remove_passed(database) == 0
    other = factories.make_account(database)
    queue(database, other, 5)
    claimed_accounts(database, 5)

    assert turns.remove_passed(database) == 1
    assert kept_turns(database) == {(other, Priority.NORMAL)}


def test_jobs_whose_turns_are_missing_are_claimed_all_the_same(
    database: Database, account_id: uuid.UUID
) -> None:
    factories.insert_jobs(database, account_id, [{}, {}])
    with database.transaction() as transaction:
        transaction.execute(sa.delete(QueueTurn))

    assert claimed_accounts(database, 2) == [account_id] * 2


def test_a_job_that_goes_back_to_the_queue_has_a_turn_again(
    database: Database, account_id: uuid.UUID
) -> None:
    factories.make_job(database, account_id)
    held = factories.claim(database)
    with database.transaction() as transaction:
        transaction.execute(sa.delete(QueueTurn))

    settle.release(database, held, generation=None)

    assert kept_turns(database) == {(account_id, Priority.NORMAL)}


@pytest.mark.parametrize("dialect", ["postgresql"])  # SQLite has no two writers at once.
def test_two_claims_at_once_serve_two_accounts_and_a_third_waits_for_neither(
    database: Database, account_id: uuid.UUID
) -> None:
    other = factories.make_account(database)
    for owner in (account_id, other):
        queue(database, owner, 5)
    with database.transaction() as transaction:
        one = claims.by_turn(transaction, "worker-1", factories.LEASE)
        with database.transaction() as second:
            two = claims.by_turn(second, "worker-2", factories.LEASE)
            three = factories.claim(database, "worker-3")

    assert one is not None
    assert two is not None
    assert {one.values["account_id"], two.values["account_id"]} == {account_id, other}
    assert len({one.id, two.id, three.job_id}) == 3


@pytest.mark.parametrize("dialect", ["postgresql"])
def test_a_claim_that_finds_all_turns_taken_takes_its_turn_after_them(
    database: Database, account_id: uuid.UUID
) -> None:
    """Else it would be the next job of the longest backlog, and cost that no turn."""
    tried, ended = threading.Event(), threading.Event()

    def pauses() -> Iterator[float]:
        yield 0.0
        tried.set()
        ended.wait(30)
        yield 0.0

    def claim() -> None:
        found.append(
            claims.claim(database, owner="worker-2", lease=factories.LEASE, pauses_seconds=pauses())
        )

    queue(database, account_id, 5)
    found: list[claims.Claim | None] = []
    claimer = threading.Thread(target=claim)
    with database.transaction() as transaction:
        assert claims.by_turn(transaction, "worker-1", factories.LEASE) is not None
        claimer.start()
        assert tried.wait(30)
        other = factories.make_account(database)
        job_id = factories.make_job(database, other)
    ended.set()
    claimer.join(30)

    assert [one and one.job_id for one in found] == [job_id]


@pytest.mark.parametrize("dialect", ["postgresql"])
def test_a_submission_in_progress_keeps_its_turn_and_lets_claims_pass(
    database: Database, account_id: uuid.UUID
) -> None:
    factories.make_job(database, account_id)
    factories.claim(database)
    other = factories.make_account(database)
    queue(database, other, 5)
    claimed_accounts(database, 5)
    with database.transaction() as transaction:
        turns.enter(transaction, account_id, Priority.NORMAL)
        assert turns.remove_passed(database) == 0
        queue(database, account_id, 1)
        assert claimed_accounts(database, 1) == [account_id]

    assert (account_id, Priority.NORMAL) in kept_turns(database)


def test_claimers_at_once_claim_each_job_once(database: Database) -> None:
    owners = [factories.make_account(database) for _ in range(3)]
    for owner in owners:
        queue(database, owner, 16)

    def claimer(name: str) -> Callable[[], list[uuid.UUID]]:
        return lambda: [factories.claim(database, name).job_id for _ in range(12)]

    claimed = races.race(*(claimer(f"worker-{number}") for number in range(4)))

    assert len({job_id for of_one in claimed for job_id in of_one}) == 48
    assert queued(database) == set()


@pytest.mark.parametrize("seed", range(4))
def test_places_are_the_order_in_which_jobs_are_claimed(database: Database, seed: int) -> None:
    rng = random.Random(seed)
    owners = [factories.make_account(database) for _ in range(4)]
    for _ in range(70):
        match rng.choice(["submit"] * 6 + ["claim", "claim", "cancel", "release", "remove"]):
            case "submit":
                owner, kind = rng.choice(owners), rng.choice(list(Priority))
                for _ in range(rng.choice([1, 1, 4])):
                    factories.make_job(database, owner, priority=kind)
            case "cancel":
                for job_id in sorted(queued(database))[:2]:
                    commands.cancel(database, job_id, account_id=None, actor=ACTOR)
            case "release":
                held = claims.claim(database, owner="worker-1", lease=factories.LEASE)
                if held is not None:
                    wait = timedelta(hours=rng.choice([0, 1]))
                    settle.release(database, held, generation=None, wait=wait)
            case "remove":
                turns.remove_passed(database)
            case _:
                claims.claim(database, owner="worker-1", lease=factories.LEASE)
    reported = {job_id: place(database, job_id) for job_id in queued(database)}

    claimed: list[uuid.UUID] = []
    while (held := claims.claim(database, owner="worker-1", lease=factories.LEASE)) is not None:
        claimed.append(held.job_id)

    assert len(claimed) > 20
    assert [reported[job_id].position for job_id in claimed] == list(range(1, len(claimed) + 1))
    assert not any(reported[job_id].at_least for job_id in claimed)


def test_a_place_that_is_not_counted_to_its_end_says_so(
    database: Database, account_id: uuid.UUID
) -> None:
    queue(database, account_id, 150)
    others = [factories.make_account(database) for _ in range(3)]
    for other in others:
        queue(database, other, 70)
    job_id = factories.make_job(database, account_id)
    job = factories.get_job(database, job_id).job

    with database.reading() as transaction:
        at_once = positions.PositionForecast().of(transaction, job)

    assert place(database, job_id) == positions.QueuePosition(361, None)
    assert at_once.at_least
    assert 100 <= at_once.position < 361


def test_the_estimate_of_a_long_queue_is_of_the_whole_queue(
    database: Database, account_id: uuid.UUID
) -> None:
    now = utcnow()
    ran = {
        "status": Status.SUCCEEDED,
        "started_at": now,
        "finished_at": now + timedelta(seconds=10),
    }
    factories.insert_jobs(database, account_id, [ran] * 20)
    queue(database, account_id, 150)
    other = factories.make_account(database)
    queue(database, other, 70)
    job = factories.get_job(database, factories.make_job(database, account_id)).job

    with database.reading() as transaction:
        at_once = positions.PositionForecast().of(transaction, job)

    assert (at_once.at_least, at_once.eta_seconds) == (True, 2210)
    assert place(database, job.id) == positions.QueuePosition(221, 2210)
