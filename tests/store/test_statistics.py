"""What is told of the queue and of the workers, of one account or of all."""

from __future__ import annotations

import dataclasses
import random
import uuid
from datetime import timedelta

from core.database import Database
from jobs.answers.extraction import Answer
from jobs.lifecycle import Priority
from jobs.store import commands, settle, statistics, workers
from tests import factories
from tests.databases import Age

ALIVE = timedelta(seconds=30)
OK = workers.EngineState(url="http://a", state="ok", model="tiny-qvq", version="1", window=8)
AWAY = workers.EngineState(url="http://a", state="away")
ONE = workers.WorkerHeartbeat(id="one", host="here", pid=1, version="1", slots=8)


def test_the_statistics_of_an_empty_queue(database: Database) -> None:
    assert statistics.queue(database, account_id=None) == statistics.QueueStatistics(
        0, 0, None, 0, 0, 0
    )


def test_what_waits_runs_and_ended_is_counted_by_account(
    database: Database, account_id: uuid.UUID
) -> None:
    other = factories.make_account(database)
    for _ in range(2):
        factories.make_job(database, account_id)
    cancelled = factories.make_job(database, other)
    commands.cancel(database, cancelled, account_id=None, actor="key:test")
    ended, _running = factories.claim(database), factories.claim(database)
    settle.succeed(database, ended, answer=Answer("6", "boxed"), generation=factories.make_ended())
    factories.make_job(database, account_id)
    factories.make_job(database, other)

    everybody = statistics.queue(database, account_id=None)
    mine = statistics.queue(database, account_id=account_id)

    assert (everybody.depth, everybody.due, everybody.running) == (2, 2, 1)
    assert (everybody.submitted, everybody.finished) == (5, 2)
    assert (mine.depth, mine.due, mine.running) == (1, 1, 1)
    assert (mine.submitted, mine.finished) == (3, 1)


def test_a_job_that_waits_for_another_attempt_is_queued_but_neither_due_nor_old(
    database: Database, account_id: uuid.UUID
) -> None:
    factories.make_job(database, account_id)
    fault = settle.Failure("engine_fault", "It failed.", retryable=True)
    settle.retry(database, factories.claim(database), fault, generation=None, rng=random.Random(1))
    factories.postpone(database)

    queue = statistics.queue(database, account_id=None)

    assert (queue.depth, queue.due, queue.oldest) == (1, 0, None)


def test_the_queue_has_statistics_by_priority(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    nothing = statistics.QueuedByPriority()
    assert statistics.waiting(database) == dict.fromkeys(Priority, nothing)
    factories.make_job(database, account_id, priority=Priority.HIGH)
    fault = settle.Failure("engine_fault", "It failed.", retryable=True)
    settle.retry(database, factories.claim(database), fault, generation=None, rng=random.Random(1))
    factories.postpone(database)
    factories.make_job(database, account_id, priority=Priority.LOW)
    factories.make_job(database, factories.make_account(database), priority=Priority.LOW)

    before = statistics.waiting(database)
    age(601)
    after = statistics.waiting(database)

    assert before[Priority.HIGH] == statistics.QueuedByPriority(due=0, later=1)
    assert (before[Priority.LOW].due, before[Priority.LOW].later) == (2, 0)
    assert before[Priority.NORMAL] == nothing
    assert (after[Priority.HIGH].due, after[Priority.HIGH].later) == (1, 0)
    oldest = after[Priority.LOW].oldest
    assert oldest is not None
    assert timedelta(seconds=601) <= oldest < timedelta(seconds=1201)


def test_what_each_worker_holds_is_counted_by_its_name(
    database: Database, account_id: uuid.UUID
) -> None:
    for _ in range(3):
        factories.make_job(database, account_id)
    held = [factories.claim(database, owner=owner) for owner in ("one", "two", "two")]
    assert statistics.held(database) == {"one": 1, "two": 2}

    settle.release(database, held[0], generation=None)

    assert statistics.held(database) == {"two": 2}


def test_age_is_counted_from_when_a_job_was_due(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    factories.make_job(database, account_id)
    age(100)
    factories.make_job(database, account_id)

    oldest = statistics.queue(database, account_id=None).oldest

    assert oldest is not None
    assert timedelta(seconds=100) <= oldest < timedelta(seconds=160)


def test_what_happened_long_ago_is_in_no_rate(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    factories.make_job(database, account_id)
    settle.fail(
        database,
        factories.claim(database),
        settle.Failure("engine_rejected", "No."),
        generation=None,
    )
    age(statistics.RECENT.total_seconds() + 1)

    queue = statistics.queue(database, account_id=None)

    assert (queue.submitted, queue.finished) == (0, 0)


def test_workers_are_seen_with_their_engines_until_they_fall_silent(
    database: Database, age: Age
) -> None:
    workers.beat(database, ONE, alive=ALIVE)
    [before] = workers.seen(database, alive=ALIVE)
    workers.beat(database, dataclasses.replace(ONE, engines=(OK,), draining=True), alive=ALIVE)
    [after] = workers.seen(database, alive=ALIVE)
    age(31)
    [silent] = workers.seen(database, alive=ALIVE)

    assert before.heartbeat == ONE
    assert after.heartbeat == dataclasses.replace(ONE, engines=(OK,), draining=True)
    assert (after.alive, silent.alive) == (True, False)
    assert silent.age >= timedelta(seconds=31)


def test_an_engine_is_as_the_best_view_of_a_live_worker_says(database: Database, age: Age) -> None:
    workers.beat(database, dataclasses.replace(ONE, id="dead", engines=(OK,)), alive=ALIVE)
    age(31)
    workers.beat(database, dataclasses.replace(ONE, id="cut off", engines=(AWAY,)), alive=ALIVE)
    assert workers.engines(workers.seen(database, alive=ALIVE)) == [AWAY]

    resting = dataclasses.replace(OK, state="resting")
    workers.beat(database, dataclasses.replace(ONE, id="tired", engines=(resting,)), alive=ALIVE)
    assert workers.engines(workers.seen(database, alive=ALIVE)) == [resting]

    workers.beat(database, dataclasses.replace(ONE, engines=(OK,)), alive=ALIVE)
    assert workers.engines(workers.seen(database, alive=ALIVE)) == [OK]
