"""Reading jobs back: one, a page of them, by what they are, and where they stand in the queue."""

from __future__ import annotations

import dataclasses
import random
import uuid
from datetime import timedelta

import pytest
import sqlalchemy as sa

from core import ids
from core.database import Database, utcnow
from jobs import filters
from jobs.answers.extraction import Answer
from jobs.lifecycle import Priority, Status
from jobs.records.attempts import Attempt
from jobs.records.jobs import Job
from jobs.store import claims, commands, history, positions, settle, submission, traces
from tests import factories, races
from tests.databases import Age

ACTOR = "key:test"
ODD = [
    "plain",
    "with space",
    "a.b",
    "$",
    "[0]",
    'quo"te',
    "back\\slash",
    "apo'strophe",
    "per%cent_under",
    "umlaut ü",
    "圆",
    "🟢",
    "",
    "line\nbreak",
]


def found(database: Database, filters: history.Filter, **how: int) -> list[uuid.UUID]:
    """Return the ids of one long page."""
    views, more = history.page(database, filters, limit=how.get("limit", 100))
    assert not more
    return [view.job.id for view in views]


def test_a_job_is_seen_by_its_own_account_and_by_who_may_see_all(
    database: Database, account_id: uuid.UUID
) -> None:
    job_id = factories.make_job(database, account_id)
    other = factories.make_account(database)

    mine = history.get(database, job_id, account_id=account_id)
    assert mine is not None
    assert mine.job.id == job_id
    assert history.get(database, job_id, account_id=None) is not None
    assert history.get(database, job_id, account_id=other) is None
    assert history.get(database, ids.new(), account_id=account_id) is None
    assert found(database, history.Filter(account_id=other)) == []
    assert found(database, history.Filter(account_id=None)) == [job_id]


def test_the_states_of_many_jobs_come_in_one_answer(
    database: Database, account_id: uuid.UUID
) -> None:
    first, second = (factories.make_job(database, account_id) for _ in range(2))
    factories.claim(database)

    stands = history.status(database, [first, second, ids.new()])

    assert stands == {first: Status.RUNNING, second: Status.QUEUED}


@pytest.mark.parametrize("newest_first", [True, False])
def test_the_pages_of_500_jobs_of_one_moment_hold_each_exactly_once(
    database: Database, account_id: uuid.UUID, *, newest_first: bool
) -> None:
    made = [ids.new() for _ in range(500)]
    factories.insert_jobs(database, account_id, [{"id": job_id} for job_id in made])
    factories.insert_jobs(database, factories.make_account(database), [{}] * 5)
    filters = history.Filter(account_id=account_id)
    seen: list[uuid.UUID] = []
    more = True
    while more:
        views, more = history.page(
            database,
            filters,
            limit=77,
            after=seen[-1] if seen else None,
            newest_first=newest_first,
        )
        seen += [view.job.id for view in views]

    assert seen == sorted(made, reverse=newest_first)


def test_a_job_that_comes_in_while_pages_are_turned_changes_no_later_page(
    database: Database, account_id: uuid.UUID
) -> None:
    made = [factories.make_job(database, account_id) for _ in range(4)]
    filters = history.Filter(account_id=account_id)
    first, more = history.page(database, filters, limit=2)
    assert more
    factories.make_job(database, account_id)

    rest, more = history.page(database, filters, limit=2, after=first[-1].job.id)

    assert [view.job.id for view in [*first, *rest]] == made[::-1]
    assert not more


def test_jobs_are_found_by_state_and_time(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    old = factories.make_job(database, account_id)
    factories.claim(database)
    age(600)
    young = factories.make_job(database, account_id)
    created = factories.get_job(database, young).job.created_at

    def by(**filters: object) -> list[uuid.UUID]:
        return found(database, history.Filter(account_id=account_id, **filters))  # type: ignore[arg-type] # by name

    assert by(statuses=[Status.RUNNING]) == [old]
    assert by(statuses=[Status.RUNNING, Status.QUEUED]) == [young, old]
    assert by(statuses=[Status.FAILED]) == []
    assert by(created_after=created) == [young]
    assert by(created_before=created) == [old]
    assert by(created_after=created - timedelta(hours=1), created_before=created) == [old]
    assert by(created_after=created + timedelta(microseconds=1)) == []


@pytest.mark.parametrize("part", ["key", "value"])
def test_jobs_are_found_by_metadata_with_any_characters(
    database: Database, account_id: uuid.UUID, part: str
) -> None:
    pairs = [(odd, "v") if part == "key" else ("k", odd) for odd in ODD]
    made = {
        pair: factories.make_job(database, account_id, metadata={pair[0]: pair[1], "other": "x"})
        for pair in pairs
    }

    for pair, job_id in made.items():
        filters = history.Filter(account_id=account_id, metadata={pair[0]: pair[1]})
        assert found(database, filters) == [job_id], pair
    both = history.Filter(account_id=account_id, metadata=dict([pairs[0], ("other", "x")]))
    assert found(database, both) == [made[pairs[0]]]
    neither = history.Filter(account_id=account_id, metadata=dict([pairs[0], ("other", "y")]))
    assert found(database, neither) == []


def test_jobs_are_found_by_their_image(database: Database, account_id: uuid.UUID) -> None:
    submitted, other = factories.make_image(b"one"), factories.make_image(b"two")
    image_id = submission.store_image(database, account_id=account_id, image=submitted)
    first = factories.make_job(database, account_id, images=[(submitted, 4), (other, 4)])
    second = factories.make_job(database, account_id, images=[(image_id, 4)])
    stranger = factories.make_account(database)
    theirs = factories.make_job(database, stranger, images=[(submitted, 4)])

    def by(**filters: object) -> list[uuid.UUID]:
        return found(database, history.Filter(**filters))  # type: ignore[arg-type] # by name

    assert by(account_id=account_id, image_id=image_id) == [second, first]
    assert by(account_id=account_id, image_sha256=submitted.original.sha256) == [second, first]
    assert by(account_id=account_id, image_sha256=other.original.sha256) == [first]
    assert by(account_id=None, image_sha256=submitted.original.sha256) == [theirs, second, first]
    assert by(account_id=stranger, image_id=image_id) == []


def test_every_attempt_is_shown_in_order_with_its_streams(
    database: Database, account_id: uuid.UUID
) -> None:
    job_id = factories.make_job(database, account_id)
    for name in ("first", "second"):
        claimed = factories.claim(database, name)
        factories.begin(database, claimed)
        settle.release(database, claimed, generation=factories.make_ended(name))
    factories.claim(database, "third")

    shown = [
        (view.attempt.number, view.attempt.worker, [stream.output for stream in view.generations])
        for view in history.attempts(database, job_id)
    ]

    assert shown == [(1, "first", ["first"]), (2, "second", ["second"]), (3, "third", [])]


def test_a_rerun_is_linked_both_ways(database: Database, account_id: uuid.UUID) -> None:
    original = factories.make_job(database, account_id)
    reruns = tuple(factories.make_job(database, account_id, rerun_of=original) for _ in range(2))

    assert factories.get_job(database, original).reruns == reruns
    assert factories.get_job(database, reruns[0]).job.rerun_of == original
    listed, _ = history.page(database, history.Filter(account_id), limit=10)
    assert {view.job.id: view.reruns for view in listed} == {
        original: reruns,
        **dict.fromkeys(reruns, ()),
    }


def test_jobs_are_found_by_what_ran_them_and_by_their_crashes(
    database: Database, account_id: uuid.UUID
) -> None:
    first, second = (factories.make_job(database, account_id) for _ in range(2))
    factories.begin(database, factories.claim(database, "worker-1"))
    factories.claim(database, "worker-2")
    with database.transaction("test") as transaction:
        lost = sa.update(Job).where(Job.id == second).values(crashes=2)
        transaction.execute(lost)
        engine = sa.update(Attempt).where(Attempt.job_id == first).values(engine="http://e:1")
        transaction.execute(engine)

    def listed(query: str) -> list[uuid.UUID]:
        parsed = filters.parse(query, now=utcnow())
        return found(database, dataclasses.replace(parsed, account_id=account_id))

    assert listed("worker:worker-1") == [first]
    assert listed("worker:worker-2") == [second]
    assert listed('engine:"http://e:1"') == [first]
    assert listed("engine:other") == []
    assert listed("crashes:>0") == listed("crashes:>=2") == [second]
    assert listed("crashes:>2") == []
    assert listed(f"id:{ids.show('job', first)}") == [first]
    assert set(listed(f"id:{ids.show('job', first)[:10]}")) >= {first}


def test_an_account_in_the_query_never_widens_the_scope(
    database: Database, account_id: uuid.UUID
) -> None:
    own = factories.make_job(database, account_id)
    other = factories.make_account(database, "other one")
    factories.make_job(database, other)
    named = filters.parse('account:"other one"', now=utcnow())
    unknown = filters.parse("account:nobody", now=utcnow())
    by_id = filters.parse(f"account:{ids.show('acct', account_id)}", now=utcnow())

    assert len(found(database, named)) == 1
    assert found(database, dataclasses.replace(named, account_id=account_id)) == []
    assert found(database, unknown) == []
    assert found(database, by_id) == [own]


def test_a_running_job_shows_how_far_it_is(database: Database, account_id: uuid.UUID) -> None:
    job_id = factories.make_job(database, account_id)
    claimed = factories.claim(database)
    factories.begin(database, claimed)
    traces.append(
        database, owner=claimed.owner, pieces=[factories.make_piece(claimed, "a", position=2)]
    )

    view = factories.get_job(database, job_id)

    assert view.progress == history.Progress(output_tokens=30, samples_done=0)
    assert view.queue is None


def test_a_queued_job_shows_its_place(database: Database, account_id: uuid.UUID) -> None:
    low = factories.make_job(database, account_id, priority=Priority.LOW)
    normal = factories.make_job(database, account_id)
    waiting = factories.make_job(database, account_id)
    settle.release(database, factories.claim(database), generation=None, wait=timedelta(seconds=60))
    assert factories.get_job(database, normal).queue is not None
    high = factories.make_job(database, account_id, priority=Priority.HIGH)

    def place(job_id: uuid.UUID) -> int | None:
        queue = factories.get_job(database, job_id).queue
        return queue.position if queue else None

    # The one that was given back is not due, so nobody waits for it.
    assert [place(high), place(waiting), place(low)] == [1, 2, 3]
    factories.claim(database)
    assert [place(high), place(waiting), place(low)] == [None, 1, 2]


def test_there_is_no_estimate_until_20_jobs_have_finished(
    database: Database, account_id: uuid.UUID
) -> None:
    now = utcnow()
    ran = {
        "status": Status.SUCCEEDED,
        "started_at": now - timedelta(seconds=30),
        "finished_at": now - timedelta(seconds=20),
    }
    factories.insert_jobs(database, account_id, [ran] * 19)
    waiting = factories.make_job(database, account_id)
    last = factories.make_job(database, account_id)
    assert factories.get_job(database, waiting).queue == positions.QueuePosition(1, None)

    factories.insert_jobs(database, account_id, [ran])
    assert factories.get_job(database, last).queue == positions.QueuePosition(2, 20)

    # Two run at once, so a turn takes two.
    lease = {"lease_owner": "worker-1", "lease_expires_at": now + timedelta(hours=1)}
    factories.insert_jobs(database, account_id, [{"status": Status.RUNNING} | lease] * 2)
    assert factories.get_job(database, last).queue == positions.QueuePosition(2, 10)


def test_a_queued_job_is_cancelled_at_once(database: Database, account_id: uuid.UUID) -> None:
    job_id = factories.make_job(database, account_id)

    stands = commands.cancel(database, job_id, account_id=account_id, actor=ACTOR)

    job = factories.get_job(database, job_id).job
    assert stands is job.status is Status.CANCELLED
    assert job.cancel_requested_at is not None
    assert job.finished_at is not None
    assert job.engine_stopped_at is None


def test_a_cancel_of_a_running_job_only_requests_its_stop(
    database: Database, account_id: uuid.UUID
) -> None:
    job_id = factories.make_job(database, account_id)
    factories.claim(database)

    assert commands.cancel(database, job_id, account_id=account_id, actor=ACTOR) is Status.RUNNING
    asked_at = factories.get_job(database, job_id).job.cancel_requested_at
    assert asked_at is not None
    assert commands.cancel(database, job_id, account_id=account_id, actor=ACTOR) is Status.RUNNING

    assert factories.get_job(database, job_id).job.cancel_requested_at == asked_at


@pytest.mark.parametrize("end", [Status.SUCCEEDED, Status.FAILED, Status.CANCELLED])
def test_a_cancel_does_not_change_a_finished_job(
    database: Database, account_id: uuid.UUID, end: Status
) -> None:
    job_id = factories.make_job(database, account_id)
    claimed = factories.claim(database)
    if end is Status.SUCCEEDED:
        settle.succeed(
            database, claimed, answer=Answer("6", "boxed"), generation=factories.make_ended()
        )
    elif end is Status.FAILED:
        settle.fail(
            database, claimed, settle.Failure("engine_fault", "It failed."), generation=None
        )
    else:
        settle.stop(database, claimed, generation=None)
    before = factories.get_job(database, job_id).job

    assert commands.cancel(database, job_id, account_id=account_id, actor=ACTOR) is end

    after = factories.get_job(database, job_id).job
    assert (after.status, after.finished_at, after.cancel_requested_at) == (
        end,
        before.finished_at,
        None,
    )


def test_a_job_of_another_account_is_not_cancelled(
    database: Database, account_id: uuid.UUID
) -> None:
    job_id = factories.make_job(database, account_id)
    other = factories.make_account(database)

    assert commands.cancel(database, job_id, account_id=other, actor=ACTOR) is None
    assert commands.cancel(database, ids.new(), account_id=account_id, actor=ACTOR) is None
    assert factories.get_job(database, job_id).job.status is Status.QUEUED


def test_jobs_are_cancelled_while_workers_claim_them_and_each_ends_as_reported(
    database: Database, account_id: uuid.UUID
) -> None:
    jobs = [factories.make_job(database, account_id) for _ in range(20)]

    def cancel() -> dict[uuid.UUID, Status | None]:
        order = random.Random(1).sample(jobs, len(jobs))
        return {
            job_id: commands.cancel(database, job_id, account_id=account_id, actor=ACTOR)
            for job_id in order
        }

    def work() -> dict[uuid.UUID, Status | None]:
        while claims.claim(database, owner="worker-1", lease=factories.LEASE) is not None:
            pass
        return {}

    answered = races.race(cancel, work, work)[0]

    assert history.status(database, jobs) == answered


def test_every_reader_of_a_query_keeps_to_its_status_and_error(
    database: Database, account_id: uuid.UUID
) -> None:
    # Erasures and operations act on what these return.
    ended = {"finished_at": utcnow()}
    rows = factories.job_rows(
        account_id,
        [
            {"status": Status.FAILED, "error_code": "engine_fault", **ended},
            {"status": Status.FAILED, "error_code": "engine_rejected", **ended},
            {"status": Status.SUCCEEDED, **ended},
            {},
        ],
    )
    with database.transaction() as transaction:
        transaction.execute(sa.insert(Job), rows)
    wanted = history.Filter(account_id, statuses=[Status.FAILED], error_codes=["engine_fault"])
    last = uuid.UUID(int=2**128 - 1)

    assert history.erasable(database, wanted, limit=9) == [rows[0]["id"]]
    assert history.unfinished(database, wanted, limit=9) == []
    assert history.count(database, wanted, limit=9) == 1
    assert history.matching(database, wanted, after=None, before=last, limit=9) == [rows[0]["id"]]
