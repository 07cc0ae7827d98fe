"""Attempts end on a schedule, each by one owner, and no job waits for them."""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa

from core.database import Database
from jobs.lifecycle import Status
from tests import factories, webhooks
from tests.databases import Age
from webhooks import attempts, claims, endpoints, policy, queries, redelivery
from webhooks.policy import AttemptOutcome, AttemptState, DeliveryStatus, EventType

SLOW = attempts.AttemptResult(AttemptOutcome.FAILED, error_code="refused", status_code=503,
                    retry_after=timedelta(hours=1))  # fmt: skip


def test_a_delivered_attempt_ends_its_delivery(database: Database, account_id: uuid.UUID) -> None:
    webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id)

    assert webhooks.try_once(database, webhooks.OK).status is DeliveryStatus.DELIVERED

    [reported] = webhooks.all_deliveries(database)
    assert (reported.status, reported.error_code, reported.attempt_count) == (
        DeliveryStatus.DELIVERED,
        None,
        1,
    )
    assert reported.delivered_at is not None
    [attempt] = webhooks.attempts(database)
    assert (attempt.state, attempt.outcome) == (AttemptState.ENDED, AttemptOutcome.DELIVERED)
    assert (attempt.status_code, attempt.response_body, attempt.url) == (
        200,
        b"thanks",
        "https://receiver.example/hook",
    )
    assert claims.pause(database) is None
    assert claims.backlog(database) == claims.Backlog(0, None)


def test_failures_follow_the_schedule_to_its_end(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id)

    for planned in policy.SCHEDULE[1:]:
        settled = webhooks.try_once(database, webhooks.FAILED_ONCE)
        assert settled.status is DeliveryStatus.PENDING
        # From the end of the one attempt to the next one, however long ago that end is.
        *_, ended, waiting = webhooks.attempts(database)
        assert ended.ended_at is not None
        assert planned * 0.8 <= waiting.due_at - ended.ended_at <= planned * 1.2
        pause = claims.pause(database)
        assert pause is not None
        assert pause <= planned * 1.2
        # A slow machine may need the few seconds before the second attempt to come here.
        if planned > timedelta(minutes=1):
            assert webhooks.claim(database) == webhooks.claim(database, slow=True) == []
        age(planned.total_seconds() * 1.2 + 1)
    assert webhooks.try_once(database, webhooks.DOWN).status is DeliveryStatus.FAILED

    rows = webhooks.attempts(database)
    assert [row.number for row in rows] == list(range(1, 11))
    assert [row.step for row in rows] == list(range(10))
    assert all(row.next_at == after.due_at for row, after in itertools.pairwise(rows))
    assert rows[-1].next_at is None
    assert claims.pause(database) is None


def test_a_receiver_can_ask_for_a_longer_wait_up_to_a_day() -> None:
    rng = random.Random(3)

    assert policy.wait(1, rng=rng, retry_after=timedelta(hours=1)) == timedelta(hours=1)
    assert policy.wait(1, rng=rng, retry_after=timedelta(days=30)) == timedelta(hours=24)
    assert policy.wait(2, rng=rng, retry_after=timedelta(seconds=1)) >= timedelta(minutes=4)


def test_a_longer_wait_that_the_receiver_asked_for_is_kept(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id)
    webhooks.try_once(database, SLOW)

    age(3500)
    assert webhooks.claim(database) == []
    age(200)
    assert len(webhooks.claim(database)) == 1


def test_an_attempt_has_one_owner_and_ends_once(database: Database, account_id: uuid.UUID) -> None:
    webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id)
    [claimed] = webhooks.claim(database)

    assert webhooks.claim(database) == []
    assert attempts.settle(database, claimed, webhooks.OK, rng=webhooks.RNG) is not None
    assert attempts.settle(database, claimed, webhooks.DOWN, rng=webhooks.RNG) is None
    assert attempts.landed(database, claimed)
    assert [row.outcome for row in webhooks.attempts(database)] == [AttemptOutcome.DELIVERED]


def test_a_lost_attempt_is_repeated_and_the_late_sender_is_refused(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id)
    [late] = webhooks.claim(database)
    assert attempts.expire(database) == 0
    age(61)

    assert attempts.expire(database) == 1
    assert attempts.settle(database, late, webhooks.OK, rng=webhooks.RNG) is None
    assert not attempts.landed(database, late)
    [again] = webhooks.claim(database)

    assert (again.event_id, again.step, again.number) == (late.event_id, 0, 2)
    assert [row.outcome for row in webhooks.attempts(database)] == [AttemptOutcome.LOST, None]


def test_an_attempt_that_repeatedly_loses_its_sender_is_made_less_and_less_often(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id)
    waits = []
    for _ in range(policy.LOSSES_WITHOUT_WAIT + 2):
        assert len(webhooks.claim(database)) == 1
        age(61)
        attempts.expire(database)
        pause = claims.pause(database)
        assert pause is not None
        waits.append(max(pause, timedelta()))
        age(waits[-1].total_seconds())

    *first, sixth, seventh = waits
    assert first == [timedelta()] * policy.LOSSES_WITHOUT_WAIT
    assert timedelta() < sixth < seventh
    assert webhooks.try_once(database, webhooks.OK).status is DeliveryStatus.DELIVERED


def test_an_attempt_that_was_not_made_is_put_off_and_leaves_no_row(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id)
    [claimed] = webhooks.claim(database)

    attempts.put_off(database, claimed, wait=timedelta(minutes=1))

    assert webhooks.claim(database) == []
    assert attempts.settle(database, claimed, webhooks.OK, rng=webhooks.RNG) is None
    age(61)
    assert attempts.expire(database) == 0
    [again] = webhooks.claim(database)
    assert (again.attempt_id, again.step, again.number) == (claimed.attempt_id, 0, 1)


def test_an_attempt_of_another_owner_is_not_put_off(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id)
    [late] = webhooks.claim(database)
    age(61)
    attempts.expire(database)

    attempts.put_off(database, late, wait=timedelta(minutes=1))

    assert [row.state for row in webhooks.attempts(database)] == [
        AttemptState.ENDED,
        AttemptState.DUE,
    ]
    assert len(webhooks.claim(database)) == 1


def test_deliveries_are_read_by_job_and_by_endpoint_in_pages(
    database: Database, account_id: uuid.UUID
) -> None:
    endpoint = webhooks.make_endpoint(database, account_id, event_types=list(EventType))
    job_id = webhooks.run_job(database, account_id)
    webhooks.run_job(database, account_id)
    webhooks.fan_out(database)

    first, more = queries.of_job(database, job_id, limit=1)
    second, no_more = queries.of_job(database, job_id, limit=1, after=first[0].delivery.id)

    assert [view.event.type for view in (*first, *second)] == ["job.started", "job.succeeded"]
    assert (more, no_more) == (True, False)
    newest, more = queries.of_endpoint(database, endpoint.id, account_id=None, limit=3)
    assert (len(newest), more) == (3, True)
    assert newest[0].origin == "https://receiver.example"
    none, _ = queries.of_endpoint(
        database, endpoint.id, account_id=None, limit=3, statuses=[DeliveryStatus.DELIVERED]
    )
    assert none == []


@pytest.mark.parametrize("dialect", ["postgresql"])  # SQLite has one writer at a time.
@pytest.mark.parametrize("verb", ["claim", "settle", "expire", "update", "recover", "enable"])
def test_no_job_waits_for_a_transaction_of_webhooks(
    database: Database, account_id: uuid.UUID, verb: str
) -> None:
    endpoint = webhooks.make_endpoint(database, account_id)
    webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id)
    webhooks.fan_out(database)
    held = [] if verb == "claim" else webhooks.claim(database)
    endpoints.recover(database, endpoint.id, account_id=None, since=endpoint.created_at)
    written, over = threading.Event(), threading.Event()
    other = Database(database.url.render_as_string(hide_password=False))

    def stop(_: sa.Connection) -> None:
        written.set()
        over.wait(30)

    sa.event.listen(other.engine, "commit", stop)
    verbs: dict[str, Callable[[], object]] = {
        "claim": lambda: webhooks.claim(other),
        "settle": lambda: attempts.settle(other, held[0], webhooks.GONE, rng=webhooks.RNG),
        "expire": lambda: attempts.expire(other),
        "update": lambda: endpoints.update(
            other, endpoint.id, account_id=None, event_types=["job.failed"]
        ),
        "enable": lambda: endpoints.enable(other, endpoint.id, account_id=None),
        "recover": lambda: redelivery.recover(other),
    }
    with contextlib.closing(other), ThreadPoolExecutor(1) as pool:
        try:
            reporting = pool.submit(verbs[verb])
            assert written.wait(30)
            # Its rows are locked until the end of its transaction, and this one does not wait for it.
            job_id = webhooks.run_job(database, account_id)
        finally:
            over.set()
        reporting.result()

    assert factories.get_job(database, job_id).job.status is Status.SUCCEEDED
    assert len(webhooks.events(database)) >= 2
