"""What the sweeper picks up: dead leases, and deadlines that pass in the queue."""

from __future__ import annotations

import random
import uuid
from datetime import timedelta

import pytest

from core.database import Database
from jobs.answers.extraction import Answer
from jobs.lifecycle import Outcome, Status
from jobs.store import claims, commands, expiry, history, settle, traces, workers
from tests import factories, races
from tests.databases import Age
from tests.databases import now as database_time


def sweep(database: Database, *, crash_limit: int = 3, leases: bool = True) -> expiry.Expired:
    """Sweep once."""
    return expiry.sweep(
        database,
        actor="sweeper:test",
        crash_limit=crash_limit,
        rng=random.Random(1),
        leases=leases,
    )


def test_a_living_lease_is_left_alone(database: Database, account_id: uuid.UUID, age: Age) -> None:
    factories.make_job(database, account_id)
    factories.claim(database)
    age(59)

    assert sweep(database) == expiry.Expired()


def test_a_dead_lease_puts_the_job_back_with_a_crash_counted(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    job_id = factories.make_job(database, account_id)
    factories.claim(database)
    age(61)

    assert sweep(database) == expiry.Expired(requeued=1)

    job = factories.get_job(database, job_id).job
    assert (job.status, job.crashes, job.failures) == (Status.QUEUED, 1, 0)
    assert (job.lease_owner, job.error_code) == (None, None)
    [view] = history.attempts(database, job_id)
    assert (view.attempt.outcome, view.attempt.error_code) == (Outcome.LOST, "worker_lost")
    assert claims.claim(database, owner="other", lease=factories.LEASE) is None
    age(6)
    assert factories.claim(database, "other").attempt == 2


def end_leases(database: Database, owner: str) -> expiry.Expired:
    """End the leases of a dead worker."""
    return expiry.end_leases(
        database, owner=owner, actor="sweeper:test", crash_limit=3, rng=random.Random(1)
    )


def test_the_jobs_of_a_dead_worker_are_due_at_once_and_those_of_others_stay(
    database: Database, account_id: uuid.UUID
) -> None:
    lost, kept = (factories.make_job(database, account_id) for _ in range(2))
    claimed = factories.claim(database, "dead")
    factories.claim(database, "living")

    assert end_leases(database, "dead") == expiry.Expired(requeued=1)

    job = factories.get_job(database, lost).job
    assert (job.status, job.crashes, job.lease_owner) == (Status.QUEUED, 1, None)
    assert factories.get_job(database, kept).job.lease_owner == "living"
    [view] = history.attempts(database, lost)
    assert (view.attempt.outcome, view.attempt.error_code) == (Outcome.LOST, "worker_lost")
    # What the dead worker left in flight has no effect.
    assert traces.append(
        database, owner="dead", pieces=[factories.make_piece(claimed, "late")]
    ) == {(lost, 1)}
    assert end_leases(database, "dead") == expiry.Expired()
    assert factories.claim(database, "next").attempt == 2


def test_a_job_whose_workers_keep_dying_waits_and_then_fails(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    job_id = factories.make_job(database, account_id)
    factories.claim(database, "first")
    assert end_leases(database, "first").requeued == 1
    factories.claim(database, "second")
    assert end_leases(database, "second").requeued == 1
    assert claims.claim(database, owner="third", lease=factories.LEASE) is None
    age(30)
    factories.claim(database, "third")
    assert end_leases(database, "third").failed == 1
    assert factories.get_job(database, job_id).job.error_code == "worker_lost"


def test_more_jobs_of_a_dead_worker_than_a_batch_holds(
    database: Database, account_id: uuid.UUID
) -> None:
    for _ in range(201):
        factories.make_job(database, account_id)
        factories.claim(database, "dead")

    assert end_leases(database, "dead") == expiry.Expired(requeued=200, more=True)
    assert end_leases(database, "dead") == expiry.Expired(requeued=1)


def test_too_many_crashes_fail_the_job(database: Database, account_id: uuid.UUID, age: Age) -> None:
    job_id = factories.make_job(database, account_id)
    for expected in (
        expiry.Expired(requeued=1),
        expiry.Expired(requeued=1),
        expiry.Expired(failed=1),
    ):
        age(20)
        factories.claim(database)
        age(61)
        assert sweep(database) == expected

    job = factories.get_job(database, job_id).job
    assert (job.status, job.crashes, job.error_code) == (Status.FAILED, 3, "worker_lost")
    assert job.finished_at is not None


def test_a_dead_lease_of_a_job_to_be_cancelled_cancels_it(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    job_id = factories.make_job(database, account_id)
    factories.claim(database)
    commands.cancel(database, job_id, account_id=account_id, actor="key:test")
    age(61)

    assert sweep(database) == expiry.Expired(cancelled=1)

    job = factories.get_job(database, job_id).job
    assert (job.status, job.engine_stopped_at) == (Status.CANCELLED, None)


def test_the_partial_trace_of_a_lost_attempt_is_folded_and_stored(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    job_id = factories.make_job(database, account_id)
    claimed = factories.claim(database)
    factories.begin(database, claimed)
    for position, text in enumerate(("Let me ", "look at ", "it.")):
        traces.append(
            database,
            owner=claimed.owner,
            pieces=[factories.make_piece(claimed, text, position=position)],
        )
    age(61)

    sweep(database)

    [trace] = traces.read(database, job_id)
    assert (trace.text, trace.complete, trace.finish_reason) == ("Let me look at it.", True, "lost")
    assert trace.output_tokens == 30


def test_after_an_outage_leases_are_left_alone_but_deadlines_are_not(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    factories.make_job(database, account_id)
    factories.claim(database)
    factories.make_job(database, account_id, deadline=timedelta(seconds=30))
    age(61)

    assert sweep(database, leases=False) == expiry.Expired(overdue=1)
    assert sweep(database) == expiry.Expired(requeued=1)


def test_a_job_whose_deadline_passes_in_the_queue_fails_without_usage(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    job_id = factories.make_job(database, account_id, deadline=timedelta(seconds=30))
    age(31)

    assert sweep(database) == expiry.Expired(overdue=1)

    job = factories.get_job(database, job_id).job
    assert (job.status, job.error_code, job.error_retryable) == (
        Status.FAILED,
        "deadline_exceeded",
        False,
    )
    assert (job.attempt, job.output_tokens, job.started_at) == (0, None, None)


def test_a_running_jobs_deadline_is_its_workers_business(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    factories.make_job(database, account_id, deadline=timedelta(seconds=30))
    factories.claim(database)
    age(31)

    assert sweep(database) == expiry.Expired()


def test_one_sweep_is_bounded_and_the_next_takes_the_rest(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    factories.insert_jobs(database, account_id, [{}] * 205)
    age(3601)

    assert sweep(database).overdue == 200
    assert sweep(database).overdue == 5


def test_sweepers_at_the_same_time_end_each_lease_once(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    jobs = [factories.make_job(database, account_id) for _ in range(20)]
    for _ in jobs:
        factories.claim(database)
    age(61)

    swept = races.race(*(lambda: sweep(database) for _ in range(4)))

    assert sum(one.requeued for one in swept) == 20
    assert {factories.get_job(database, job_id).job.crashes for job_id in jobs} == {1}


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
def test_a_server_says_for_how_long_it_has_been_up(database: Database) -> None:
    assert expiry.uptime(database) > timedelta(0)


@pytest.mark.parametrize("sign", ["flush", "heartbeat", "none"])
def test_a_lost_attempt_counts_its_seconds_up_to_the_last_sign_of_life(
    database: Database, account_id: uuid.UUID, age: Age, sign: str
) -> None:
    job_id = factories.make_job(database, account_id)
    claimed = factories.claim(database)
    factories.begin(database, claimed)
    age(5)
    if sign == "flush":
        traces.append(database, owner=claimed.owner, pieces=[factories.make_piece(claimed, "I")])
    elif sign == "heartbeat":
        heartbeat = workers.WorkerHeartbeat(claimed.owner, "h", 1, "1", slots=1)
        workers.beat(database, heartbeat, alive=timedelta(minutes=1))
    age(200)

    assert sweep(database) == expiry.Expired(requeued=1)

    seconds = 0 if sign == "none" else 5
    first = factories.get_job(database, job_id).job.engine_seconds
    [view] = history.attempts(database, job_id)
    [generation] = view.generations
    assert generation.ended_at is not None
    lasted = (generation.ended_at - generation.started_at).total_seconds()
    assert first == pytest.approx(lasted, abs=0.001)
    assert seconds <= lasted < seconds + 100
    age(30)
    again = factories.claim(database, "other")
    factories.begin(database, again)
    age(7)
    ended = factories.make_ended("It is 6.", ended_at=database_time(database))
    assert settle.succeed(database, again, answer=Answer("6", "boxed"), generation=ended)
    total = factories.get_job(database, job_id).job.engine_seconds
    assert total is not None
    assert first is not None
    assert total - first >= 7
