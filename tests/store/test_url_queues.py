"""Slowness is judged per URL without its query; turns stay per origin and account."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from core.database import Database
from jobs.store.purge import Periods
from tests import webhooks
from tests.databases import Age
from webhooks import attempts, endpoints, notifications, policy, purge, redelivery
from webhooks.claims import DeliveryClaim
from webhooks.notifications import Notification, NotificationTarget
from webhooks.policy import AttemptKind, DeliveryStatus, EventType
from webhooks.tables import WebhookAttempt, WebhookQueue

DEAD, WELL = "https://app.example/dead", "https://app.example/well"


def notify(database: Database, account_id: uuid.UUID, url: str) -> None:
    """Write a notification for a job's own URL."""
    queue_id, origin = policy.queue(account_id, url)
    with database.transaction() as transaction:
        notifications.open_queue(transaction, queue_id, account_id=account_id, origin=origin)
        at = notifications.now(transaction)
        target = NotificationTarget(queue_id, None, url)
        written = Notification(account_id, EventType.JOB_CANCELLED, at, {"omitted": []}, [target])
        notifications.write(transaction, [written])


def end(database: Database, claimed: DeliveryClaim, result: attempts.AttemptResult) -> None:
    assert attempts.settle(database, claimed, result, rng=webhooks.RNG) is not None


def fail(
    database: Database,
    account_id: uuid.UUID,
    url: str,
    times: int = policy.TRIP,
    result: attempts.AttemptResult = webhooks.DOWN,
) -> None:
    for number in range(times):
        notify(database, account_id, f"{url}?n={number}")
        [claimed] = webhooks.claim(database, limit=1)
        end(database, claimed, result)


def test_a_url_that_never_failed_is_not_judged_by_another_one_of_its_origin(
    database: Database, account_id: uuid.UUID
) -> None:
    fail(database, account_id, DEAD)
    notify(database, account_id, WELL)
    notify(database, account_id, DEAD + "?n=9#part")

    [well] = webhooks.claim(database)
    assert well.url == WELL
    end(database, well, webhooks.OK)
    [slow] = webhooks.claim(database, slow=True)
    assert slow.url == DEAD + "?n=9#part"

    for _ in range(policy.QUEUE_LIMIT):
        notify(database, account_id, WELL)
    # Failures of the other URL take none of its room.
    end(database, slow, webhooks.DOWN)
    assert [one.url for one in webhooks.claim(database)] == [WELL] * policy.QUEUE_LIMIT


def test_attempts_that_wait_move_with_the_judgement_and_back(
    database: Database, account_id: uuid.UUID
) -> None:
    for number in range(policy.TRIP + 5):
        notify(database, account_id, f"{DEAD}?n={number}")
    notify(database, account_id, DEAD + "ly")
    for _ in range(policy.TRIP):
        [claimed] = webhooks.claim(database)
        end(database, claimed, webhooks.DOWN)

    # Only the other URL is left, whose name begins in the same way.
    [other] = webhooks.claim(database)
    assert other.url == DEAD + "ly"
    end(database, other, webhooks.OK)
    [slow] = webhooks.claim(database, slow=True)
    assert webhooks.claim(database, slow=True) == []
    end(database, slow, webhooks.OK)

    assert webhooks.claim(database, slow=True) == []
    assert len(webhooks.claim(database)) == policy.QUEUE_LIMIT


def test_slow_urls_of_one_origin_take_turns(database: Database, account_id: uuid.UUID) -> None:
    dead = [f"https://app.example/{name}" for name in ("one", "two", "three")]
    elsewhere = "https://other.example/dead"
    queues = [policy.url_queue(policy.queue(account_id, url)[0], url) for url in dead]
    for url in (*dead, elsewhere):
        fail(database, account_id, url)
    for url in (*dead, *dead, elsewhere):
        notify(database, account_id, url)

    served = []
    for _ in dead:
        claimed = webhooks.claim(database, slow=True)
        assert webhooks.claim(database, slow=True) == []
        # Not by URL: on a slow machine, one that failed at first may be due again.
        served += [one.queue_id for one in claimed if one.queue_id in queues]
        for one in claimed:
            end(database, one, webhooks.DOWN)

    assert sorted(served) == sorted(queues)


@pytest.mark.parametrize("kind", [AttemptKind.MANUAL, AttemptKind.TEST])
def test_a_resend_or_a_test_that_is_delivered_lets_a_receiver_out(
    database: Database, account_id: uuid.UUID, kind: AttemptKind
) -> None:
    endpoint = webhooks.make_endpoint(database, account_id, event_types=["job.cancelled"])
    webhooks.record(database, account_id, times=policy.TRIP + 2)
    for _ in range(policy.TRIP):
        [claimed] = webhooks.claim(database)
        end(database, claimed, webhooks.DOWN)
    waiting = webhooks.all_deliveries(database)
    assert webhooks.endpoint_now(database, endpoint).failing_since is not None

    if kind is AttemptKind.TEST:
        redelivery.test(database, endpoint.id, account_id=None, event_type="endpoint.test", data={})
    else:
        redelivery.redeliver(database, waiting[0].id, account_id=None)
    [claimed] = webhooks.claim(database, slow=True)
    assert claimed.kind is kind
    end(database, claimed, webhooks.OK)

    assert webhooks.endpoint_now(database, endpoint).failing_since is None
    webhooks.record(database, account_id)
    assert len(webhooks.claim(database)) == 3


def test_to_enable_an_endpoint_clears_its_record_also_before_it_is_disabled(
    database: Database, account_id: uuid.UUID
) -> None:
    endpoint = webhooks.make_endpoint(database, account_id, event_types=["job.cancelled"])
    webhooks.record(database, account_id, times=policy.TRIP + 1)
    for _ in range(policy.TRIP):
        [claimed] = webhooks.claim(database)
        end(database, claimed, webhooks.DOWN)
    assert webhooks.claim(database) == []

    endpoints.enable(database, endpoint.id, account_id=None)

    assert len(webhooks.claim(database)) == 1
    assert webhooks.endpoint_now(database, endpoint).failing_since is None


def test_an_endpoint_with_another_url_is_not_judged_by_the_one_before(
    database: Database, account_id: uuid.UUID
) -> None:
    endpoint = webhooks.make_endpoint(database, account_id, event_types=["job.cancelled"])
    webhooks.record(database, account_id, times=policy.TRIP + 1)
    for _ in range(policy.TRIP):
        [claimed] = webhooks.claim(database)
        end(database, claimed, webhooks.DOWN)

    endpoints.update(database, endpoint.id, account_id=None, name="renamed")
    assert webhooks.claim(database) == []
    endpoints.update(database, endpoint.id, account_id=None, url="https://new.example/hook")

    assert len(webhooks.claim(database)) == 1
    assert webhooks.endpoint_now(database, endpoint).failing_since is None


def test_a_resend_to_a_slow_url_waits_with_it(database: Database, account_id: uuid.UUID) -> None:
    fail(database, account_id, DEAD)
    [first, *_] = webhooks.all_deliveries(database)

    redelivery.redeliver(database, first.id, account_id=None)

    assert webhooks.claim(database) == []
    [resent] = webhooks.claim(database, slow=True)
    end(database, resent, webhooks.OK)
    assert webhooks.all_deliveries(database)[0].status is DeliveryStatus.DELIVERED
    notify(database, account_id, DEAD)
    assert len(webhooks.claim(database)) == 1


@pytest.mark.parametrize("kind", policy.REQUESTED)
def test_a_request_goes_before_the_backlog_of_a_slow_receiver_and_leaves_it_every_other_turn(
    database: Database, account_id: uuid.UUID, kind: AttemptKind
) -> None:
    endpoint = webhooks.make_endpoint(database, account_id, event_types=["job.cancelled"])
    webhooks.record(database, account_id, times=policy.TRIP + 5)
    for _ in range(policy.TRIP):
        [claimed] = webhooks.claim(database)
        end(database, claimed, webhooks.DOWN)
    [failed, *_] = webhooks.all_deliveries(database)

    def request() -> None:
        if kind is AttemptKind.TEST:
            redelivery.test(
                database, endpoint.id, account_id=None, event_type="endpoint.test", data={}
            )
        else:
            redelivery.redeliver(database, failed.id, account_id=None)

    served = []
    for _ in range(4):
        request()
        request()
        [claimed] = webhooks.claim(database, slow=True)
        assert webhooks.claim(database, slow=True) == []
        end(database, claimed, webhooks.DOWN)
        served.append(claimed.kind)

    assert served == [kind, AttemptKind.AUTOMATIC] * 2


def test_the_claim_of_a_request_reads_no_backlog(database: Database, account_id: uuid.UUID) -> None:
    webhooks.make_endpoint(database, account_id, event_types=["job.cancelled"])
    webhooks.record(database, account_id)
    statements: list[tuple[str, Any]] = []

    @sa.event.listens_for(database.engine, "before_cursor_execute")
    def note(_: object, __: object, statement: str, parameters: Any, *___: object) -> None:  # noqa: ANN401 - the driver's
        statements.append((statement, parameters))

    assert len(webhooks.claim(database)) == 1
    sa.event.remove(database.engine, "before_cursor_execute", note)

    [(statement, parameters)] = [one for one in statements if "coalesce(CASE WHEN" in one[0]]
    plan = []
    with database.engine.connect() as connection:
        if database.engine.dialect.name == "postgresql":
            connection.exec_driver_sql("SET enable_seqscan = off")
        explain = "EXPLAIN QUERY PLAN" if database.engine.dialect.name == "sqlite" else "EXPLAIN"
        plan = [
            str(row) for row in connection.exec_driver_sql(f"{explain} {statement}", parameters)
        ]
    assert any("ix_webhook_attempts_requested" in line for line in plan), plan


def url_queues(database: Database) -> dict[str, int]:
    """Return the failures of the URLs that have a queue, by origin."""
    with database.reading() as transaction:
        rows = transaction.execute(
            sa.select(WebhookQueue.origin, WebhookQueue.failures).where(
                WebhookQueue.origin_queue_id.is_not(None)
            )
        )
        return {row.origin: row.failures for row in rows}


def test_the_queue_of_a_url_goes_with_its_last_attempts_after_the_retention_period(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    periods = Periods(timeline=timedelta(days=30))
    fail(database, account_id, "https://once.example/", times=1, result=webhooks.GONE)
    fail(database, account_id, "https://slow.example/", result=webhooks.GONE)
    age(31 * 86_400)
    fail(database, account_id, "https://late.example/", times=1, result=webhooks.GONE)
    # One that has been slow for long still has an attempt to make.
    fail(database, account_id, "https://busy.example/", result=webhooks.GONE)
    notify(database, account_id, "https://busy.example/")
    with database.transaction() as transaction:
        old = transaction.now(timedelta(days=-40))
        transaction.update(
            WebhookQueue, WebhookQueue.origin == "https://busy.example", served_at=old
        )

    while purge.batch(database, periods, limit=1).more:
        pass

    assert url_queues(database) == {"https://late.example": 1, "https://busy.example": policy.TRIP}
    # The next one is sent like the first.
    notify(database, account_id, "https://slow.example/")
    assert [one.url for one in webhooks.claim(database)] == ["https://slow.example/"]


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
def test_no_queue_is_removed_while_an_attempt_is_written_to_it(
    database: Database, account_id: uuid.UUID
) -> None:
    fail(database, account_id, DEAD)
    [delivery, *_] = webhooks.all_deliveries(database)
    with database.transaction() as transaction:
        transaction.delete(WebhookAttempt)
        transaction.update(WebhookQueue, served_at=transaction.now(timedelta(days=-40)))
    purged = []

    @sa.event.listens_for(database.engine, "before_cursor_execute")
    def purge_before(_: object, __: object, statement: str, *___: object) -> None:
        if statement.startswith("INSERT INTO webhook_attempts"):
            purged.append(purge.batch(database, Periods(timeline=timedelta(days=30))).queues)

    with database.transaction() as transaction:
        notifications.attempt_again(transaction, delivery.id, kind=AttemptKind.MANUAL)
    sa.event.remove(database.engine, "before_cursor_execute", purge_before)

    assert purged == [0]
    assert len(webhooks.claim(database, slow=True)) == 1
