"""Slowness is judged per URL without its query; turns stay per origin and account."""

from __future__ import annotations

import uuid

import pytest

from core.database import Database
from tests import webhooks
from webhooks import attempts, endpoints, notifications, policy, redelivery
from webhooks.claims import DeliveryClaim
from webhooks.notifications import Notification, NotificationTarget
from webhooks.policy import AttemptKind, DeliveryStatus, EventType

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


def fail(database: Database, account_id: uuid.UUID, url: str, times: int = policy.TRIP) -> None:
    for number in range(times):
        notify(database, account_id, f"{url}?n={number}")
        [claimed] = webhooks.claim(database, limit=1)
        end(database, claimed, webhooks.DOWN)


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
    for url in (*dead, elsewhere):
        fail(database, account_id, url)
    for url in (*dead, *dead, elsewhere):
        notify(database, account_id, url)

    served = []
    for _ in dead:
        claimed = webhooks.claim(database, slow=True)
        assert webhooks.claim(database, slow=True) == []
        served += [one.url for one in claimed if one.url in dead]
        for one in claimed:
            end(database, one, webhooks.DOWN)

    assert sorted(served) == sorted(dead)


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
    while requested := webhooks.claim(database, slow=True):
        [claimed] = requested
        # The automatic ones go on to fail.
        end(database, claimed, webhooks.OK if claimed.kind is kind else webhooks.DOWN)

    assert webhooks.endpoint_now(database, endpoint).failing_since is None
    webhooks.record(database, account_id)
    assert len(webhooks.claim(database)) == 1


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
