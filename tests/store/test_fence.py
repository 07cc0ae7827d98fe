"""A worker that has lost its job can no longer write: whatever it tries finds nothing to change."""

from __future__ import annotations

import dataclasses
import random
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from core.database import Database
from jobs.answers.extraction import Answer
from jobs.lifecycle import Status
from jobs.records.declarative import Record
from jobs.records.jobs import Job
from jobs.store import claims, commands, expiry, history, traces
from jobs.store import settle as outcomes
from tests import databases, factories, races
from tests.databases import Age

FAULT = outcomes.Failure(code="engine_fault", message="The engine failed.", retryable=True)

Write = Callable[[Database, claims.Claim], object]

#: Every verb of a holder, and what it answers when the job is not its own any more.
WRITES: dict[str, tuple[Write, object]] = {
    "begin": (factories.begin, None),
    "append": (
        lambda database, claimed: (
            traces.append(
                database, owner=claimed.owner, pieces=[factories.make_piece(claimed, "late")]
            )
            != {(claimed.job_id, claimed.attempt)}
        ),
        False,
    ),
    "renew": (
        lambda database, claimed: claims.renew(
            database,
            owner=claimed.owner,
            held=[(claimed.job_id, claimed.attempt)],
            lease=factories.LEASE,
        ),
        set(),
    ),
    "watch": (
        lambda database, claimed: claims.watch(
            database, owner=claimed.owner, held=[(claimed.job_id, claimed.attempt)]
        ),
        {},
    ),
    "succeed": (
        lambda database, claimed: outcomes.succeed(
            database, claimed, answer=Answer("7", "boxed"), generation=factories.make_ended()
        ),
        False,
    ),
    "fail": (
        lambda database, claimed: outcomes.fail(
            database, claimed, FAULT, generation=factories.make_ended()
        ),
        False,
    ),
    "stop": (
        lambda database, claimed: outcomes.stop(
            database, claimed, generation=factories.make_ended()
        ),
        False,
    ),
    "retry": (
        lambda database, claimed: outcomes.retry(
            database, claimed, FAULT, generation=factories.make_ended(), rng=random.Random(1)
        ),
        False,
    ),
    "release": (
        lambda database, claimed: outcomes.release(
            database, claimed, generation=factories.make_ended(), fault=FAULT
        ),
        False,
    ),
}


def everything(database: Database) -> dict[str, list[Any]]:
    """Return all rows of all tables."""
    with database.reading() as transaction:
        return {
            table.name: sorted(map(repr, transaction.execute(sa.select(table)).all()))
            for table in Record.metadata.sorted_tables
        }


def lose(database: Database, age: Age) -> claims.Claim:
    """Claim a job, begin it, and let its lease run out and be swept."""
    zombie = factories.claim(database, "zombie")
    assert factories.begin(database, zombie) is not None
    age(61)
    swept = expiry.sweep(database, actor="sweeper:test", crash_limit=3, rng=random.Random(1))
    assert swept == expiry.Expired(requeued=1)
    return zombie


def assert_every_write_is_refused(database: Database, claimed: claims.Claim) -> None:
    """Try every verb of a holder; none of them changes a row."""
    before = everything(database)
    for verb, (write, refused) in WRITES.items():
        assert write(database, claimed) == refused, verb
        assert everything(database) == before, verb


def test_after_its_lease_was_ended_a_zombie_writes_nothing(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    factories.make_job(database, account_id)
    zombie = lose(database, age)

    assert_every_write_is_refused(database, zombie)


@pytest.mark.parametrize("owner", ["another", "zombie"])
def test_after_a_newer_claim_a_zombie_writes_nothing(
    database: Database, account_id: uuid.UUID, age: Age, owner: str
) -> None:
    job_id = factories.make_job(database, account_id)
    zombie = lose(database, age)
    age(10)
    newer = factories.claim(database, owner)
    assert (newer.job_id, newer.attempt) == (job_id, 2)

    assert_every_write_is_refused(database, zombie)


def test_a_worker_with_the_right_number_and_another_name_writes_nothing(
    database: Database, account_id: uuid.UUID
) -> None:
    factories.make_job(database, account_id)
    mine = factories.claim(database, "mine")
    factories.begin(database, mine)

    assert_every_write_is_refused(database, dataclasses.replace(mine, owner="theirs"))


def test_after_the_end_of_the_job_its_worker_writes_nothing_more(
    database: Database, account_id: uuid.UUID
) -> None:
    job_id = factories.make_job(database, account_id)
    claimed = factories.claim(database)
    factories.begin(database, claimed)
    assert outcomes.succeed(
        database, claimed, answer=Answer("6", "boxed"), generation=factories.make_ended()
    )

    assert_every_write_is_refused(database, claimed)
    assert factories.get_job(database, job_id).job.answer_text == "6"


def test_a_late_worker_may_still_end_the_job_until_another_one_claims_it(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    job_id = factories.make_job(database, account_id)
    late = factories.claim(database)
    factories.begin(database, late)
    age(61)

    assert outcomes.succeed(
        database, late, answer=Answer("6", "boxed"), generation=factories.make_ended()
    )

    swept = expiry.sweep(database, actor="sweeper:test", crash_limit=3, rng=random.Random(1))
    assert swept == expiry.Expired()
    job = factories.get_job(database, job_id).job
    assert (job.status, job.crashes) == (Status.SUCCEEDED, 0)


def test_one_lost_job_does_not_prevent_writes_of_other_traces(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    factories.make_job(database, account_id)
    zombie = lose(database, age)
    healthy_id = factories.make_job(database, account_id)
    healthy = factories.claim(database, "zombie")
    assert healthy.job_id == healthy_id
    factories.begin(database, healthy)

    lost = traces.append(
        database,
        owner="zombie",
        pieces=[factories.make_piece(zombie, "late"), factories.make_piece(healthy, "on time")],
    )

    assert lost == {(zombie.job_id, 1)}
    assert [trace.text for trace in traces.read(database, healthy_id)] == ["on time"]
    assert [trace.text for trace in traces.read(database, zombie.job_id)] == [""]


def test_a_renewal_extends_held_leases_and_leaves_out_lost_ones(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    jobs = [factories.make_job(database, account_id) for _ in range(3)]
    held = [factories.claim(database, "me") for _ in jobs]
    outcomes.fail(database, held[1], FAULT, generation=None)
    age(50)

    stored = claims.renew(
        database,
        owner="me",
        held=[(one.job_id, one.attempt) for one in held],
        lease=factories.LEASE,
    )

    assert stored == {(jobs[0], 1), (jobs[2], 1)}
    age(50)
    swept = expiry.sweep(database, actor="sweeper:test", crash_limit=3, rng=random.Random(1))
    assert swept == expiry.Expired()


def test_the_watch_shows_cancels_and_deadlines_of_what_is_held(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    calm = factories.make_job(database, account_id)
    cancelled = factories.make_job(database, account_id)
    overdue = factories.make_job(database, account_id, deadline=timedelta(seconds=20))
    held = [(factories.claim(database, "me").job_id, 1) for _ in range(3)]
    commands.cancel(database, cancelled, account_id=account_id, actor="key:test")
    age(21)

    flags = claims.watch(database, owner="me", held=held)

    assert flags == {
        (calm, 1): claims.StopFlags(cancel=False, overdue=False),
        (cancelled, 1): claims.StopFlags(cancel=True, overdue=False),
        (overdue, 1): claims.StopFlags(cancel=False, overdue=True),
    }


def test_who_holds_nothing_renews_and_watches_nothing(database: Database) -> None:
    assert claims.renew(database, owner="me", held=[], lease=factories.LEASE) == set()
    assert claims.watch(database, owner="me", held=[]) == {}
    assert traces.append(database, owner="me", pieces=[]) == set()


def test_of_a_settlement_racing_a_sweep_exactly_one_wins(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    jobs = [factories.make_job(database, account_id) for _ in range(12)]
    held = [factories.claim(database, "me") for _ in jobs]
    for one in held:
        factories.begin(database, one)
    age(61)

    def settle() -> dict[uuid.UUID, bool]:
        return {
            one.job_id: outcomes.succeed(
                database, one, answer=Answer("6", "boxed"), generation=factories.make_ended()
            )
            for one in held
        }

    def sweep() -> dict[uuid.UUID, bool]:
        expiry.sweep(database, actor="sweeper:test", crash_limit=3, rng=random.Random(1))
        return {}

    won = races.race(settle, sweep, sweep)[0]

    for job_id in jobs:
        job = factories.get_job(database, job_id).job
        [view] = history.attempts(database, job_id)
        expected = ("succeeded", 0) if won[job_id] else ("queued", 1)
        assert (job.status, job.crashes) == expected
        assert view.attempt.outcome == ("succeeded" if won[job_id] else "lost")


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
def test_a_renewal_and_a_flush_that_meet_half_way_do_not_wait_for_each_other(
    database: Database, account_id: uuid.UUID
) -> None:
    jobs = [factories.make_job(database, account_id) for _ in range(9)]
    held = [factories.claim(database, "me") for _ in jobs]
    for one in held:
        factories.begin(database, one)
    keys = [(one.job_id, one.attempt) for one in held]

    def renew() -> int:
        return len(claims.renew(database, owner="me", held=keys, lease=factories.LEASE))

    def flush() -> int:
        pieces = [factories.make_piece(one, "text") for one in held]
        return len(traces.append(database, owner="me", pieces=pieces))

    with ThreadPoolExecutor(2) as pool:
        # Both begin to lock the rows, and are let go when both stand before the one in the middle, or one
        # behind the other.
        with database.transaction() as transaction:
            transaction.execute(sa.select(Job.id).where(Job.id == jobs[4]).with_for_update())
            running = [pool.submit(renew), pool.submit(flush)]
            assert databases.eventually_waiting(database, 2)
        assert [future.result(30) for future in running] == [9, 0]
