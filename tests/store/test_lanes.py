"""Whose tries are claimed: lanes have their turns, and nobody's receivers keep the others' waiting."""

from __future__ import annotations

import collections
import uuid

import sqlalchemy as sa

from core.database import Database
from jobs import delivery
from jobs.delivery import EventType
from jobs.outbox import WebhookQueue
from jobs.store import events
from tests import factories, webhooks
from webhooks import attempts


def make_proven(database: Database, *queues: uuid.UUID, failures: int = 0) -> None:
    with database.transaction() as transaction:
        transaction.execute(
            sa.update(WebhookQueue)
            .where(WebhookQueue.id.in_(queues))
            .values(delivered_at=transaction.now(), failures=failures)
        )


def make_queues(
    database: Database, account_id: uuid.UUID, number: int, *, failures: int = 0
) -> None:
    """Let an account have so many receivers that have something to be told, each at a place of its own."""
    with database.transaction() as transaction:
        for count in range(number):
            queue_id, origin = delivery.queue(account_id, f"https://{count}.example/")
            events.open_queue(transaction, queue_id, account_id=account_id, origin=origin)
            transaction.execute(
                sa.update(WebhookQueue).where(WebhookQueue.id == queue_id).values(failures=failures)
            )
            events.write(
                transaction,
                account_id=account_id,
                event_type=EventType.JOB_CANCELLED,
                data={"omitted": []},
                targets=[events.NotificationTarget(queue_id, None, f"https://{count}.example/")],
            )


def test_queues_take_turns_and_have_few_attempts_at_once(
    database: Database, account_id: uuid.UUID
) -> None:
    one = webhooks.make_endpoint(database, account_id, event_types=["job.cancelled"])
    webhooks.record(database, account_id, times=6)
    two = webhooks.make_endpoint(database, account_id, event_types=["job.cancelled"])
    webhooks.record(database, account_id)
    make_proven(database, one.id, two.id)

    first = webhooks.claim(database, limit=2)
    rest = webhooks.claim(database, limit=10)

    assert {claimed.queue_id for claimed in first} == {one.id, two.id}
    assert [claimed.queue_id for claimed in rest] == [one.id] * (delivery.QUEUE_LIMIT - 1)
    assert webhooks.claim(database) == []
    attempts.settle(database, rest[0], webhooks.OK, rng=webhooks.RNG)
    assert [claimed.queue_id for claimed in webhooks.claim(database)] == [one.id]


def test_a_queue_that_was_served_last_waits_for_the_others(
    database: Database, account_id: uuid.UUID
) -> None:
    queues = [
        webhooks.make_endpoint(database, account_id, event_types=["job.cancelled"]).id
        for _ in range(3)
    ]
    make_proven(database, *queues)
    webhooks.record(database, account_id, times=3)

    served = [webhooks.claim(database, limit=1)[0].queue_id for _ in range(6)]

    assert set(served[:3]) == set(queues)
    assert served[3:] == served[:3]


def test_an_unproven_queue_gets_one_attempt_at_a_time(
    database: Database, account_id: uuid.UUID
) -> None:
    webhooks.make_endpoint(database, account_id, event_types=["job.cancelled"])
    webhooks.record(database, account_id, times=3)

    [first] = webhooks.claim(database)
    assert webhooks.claim(database) == []

    attempts.settle(database, first, webhooks.OK, rng=webhooks.RNG)
    assert len(webhooks.claim(database)) == 2


def test_a_queue_that_fails_repeatedly_is_slow_until_a_delivery(
    database: Database, account_id: uuid.UUID
) -> None:
    webhooks.make_endpoint(database, account_id, event_types=["job.cancelled"])
    webhooks.record(database, account_id, times=8)
    for _ in range(delivery.TRIP):
        [claimed] = webhooks.claim(database)
        attempts.settle(database, claimed, webhooks.DOWN, rng=webhooks.RNG)

    assert webhooks.claim(database) == []
    [slow] = webhooks.claim(database, slow=True)
    assert webhooks.claim(database, slow=True) == []
    attempts.settle(database, slow, webhooks.OK, rng=webhooks.RNG)
    assert webhooks.claim(database, slow=True) == []
    assert len(webhooks.claim(database)) == delivery.QUEUE_LIMIT


def test_thousands_of_new_receivers_leave_threads_to_other_accounts_and_to_those_that_do_well(
    database: Database, account_id: uuid.UUID
) -> None:
    others = [factories.make_account(database) for _ in range(2)]
    for owner in (account_id, *others):
        make_queues(database, owner, delivery.SLOTS)
    well = webhooks.make_endpoint(database, account_id, event_types=["job.cancelled"])
    make_proven(database, well.id)
    webhooks.record(database, account_id)

    claimed = webhooks.claim(database, limit=delivery.SLOTS)

    served = collections.Counter(one.account_id for one in claimed if one.queue_id != well.id)
    assert well.id in {one.queue_id for one in claimed}
    assert served.total() == delivery.UNPROVEN
    assert set(served.values()) == {delivery.UNPROVEN // 3}
    # The rest is for those that do well, and for one new receiver when another has answered.
    webhooks.record(database, account_id)
    assert [one.queue_id for one in webhooks.claim(database)] == [well.id]
    new = next(one for one in claimed if one.queue_id != well.id)
    attempts.settle(database, new, webhooks.OK, rng=webhooks.RNG)
    assert len(webhooks.claim(database)) == 1


def test_one_accounts_new_receivers_have_a_part_of_the_threads(
    database: Database, account_id: uuid.UUID
) -> None:
    make_queues(database, account_id, delivery.SLOTS)

    assert len(webhooks.claim(database, limit=delivery.SLOTS)) == delivery.UNPROVEN_EACH
    assert webhooks.claim(database) == []
    other = factories.make_account(database)
    make_queues(database, other, 2)
    assert [one.account_id for one in webhooks.claim(database)] == [other] * 2


def test_one_accounts_receivers_that_did_well_leave_threads_to_others(
    database: Database, account_id: uuid.UUID
) -> None:
    other = factories.make_account(database)
    make_queues(database, account_id, delivery.SLOTS)
    with database.transaction() as transaction:
        transaction.execute(sa.update(WebhookQueue).values(delivered_at=transaction.now()))

    claimed = webhooks.claim(database, limit=delivery.SLOTS)
    assert len(claimed) == delivery.PROVEN_EACH
    assert webhooks.claim(database) == []
    make_queues(database, other, 2)
    assert [one.account_id for one in webhooks.claim(database)] == [other] * 2

    attempts.settle(database, claimed[0], webhooks.OK, rng=webhooks.RNG)
    assert [one.account_id for one in webhooks.claim(database)] == [account_id]


def test_one_accounts_slow_receivers_have_a_part_of_the_threads(
    database: Database, account_id: uuid.UUID
) -> None:
    other = factories.make_account(database)
    make_queues(database, account_id, delivery.SLOW_SLOTS, failures=delivery.TRIP)
    assert len(webhooks.claim(database, limit=delivery.SLOW_SLOTS, slow=True)) == delivery.SLOW_EACH

    make_queues(database, other, 2, failures=delivery.TRIP)

    assert [one.account_id for one in webhooks.claim(database, slow=True)] == [other] * 2
