"""Which attempts are claimed: queues take turns, and no account's receivers delay those of another."""

from __future__ import annotations

import collections
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from core.database import Database
from tests import databases, factories, webhooks
from webhooks import attempts, notifications, outbox, policy
from webhooks.policy import EventType
from webhooks.tables import WebhookQueue


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
    """Give an account receivers at different origins, each with a pending delivery."""
    with database.transaction() as transaction:
        for count in range(number):
            queue_id, origin = policy.queue(account_id, f"https://{count}.example/")
            notifications.open_queue(transaction, queue_id, account_id=account_id, origin=origin)
            transaction.execute(
                sa.update(WebhookQueue).where(WebhookQueue.id == queue_id).values(failures=failures)
            )
            notifications.write(
                transaction,
                [
                    notifications.Notification(
                        account_id=account_id,
                        type=EventType.JOB_CANCELLED,
                        at=notifications.now(transaction),
                        data={"omitted": []},
                        targets=[
                            notifications.NotificationTarget(
                                queue_id, None, f"https://{count}.example/"
                            )
                        ],
                    )
                ],
            )


def test_queues_take_turns_with_few_attempts_at_once(
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
    assert [claimed.queue_id for claimed in rest] == [one.id] * (policy.QUEUE_LIMIT - 1)
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


def test_an_unproven_queue_has_one_attempt_at_a_time(
    database: Database, account_id: uuid.UUID
) -> None:
    webhooks.make_endpoint(database, account_id, event_types=["job.cancelled"])
    webhooks.record(database, account_id, times=3)

    [first] = webhooks.claim(database)
    assert webhooks.claim(database) == []

    attempts.settle(database, first, webhooks.OK, rng=webhooks.RNG)
    assert len(webhooks.claim(database)) == 2


def test_a_queue_that_fails_repeatedly_is_slow_until_a_delivery_succeeds(
    database: Database, account_id: uuid.UUID
) -> None:
    webhooks.make_endpoint(database, account_id, event_types=["job.cancelled"])
    webhooks.record(database, account_id, times=8)
    for _ in range(policy.TRIP):
        [claimed] = webhooks.claim(database)
        attempts.settle(database, claimed, webhooks.DOWN, rng=webhooks.RNG)

    assert webhooks.claim(database) == []
    [slow] = webhooks.claim(database, slow=True)
    assert webhooks.claim(database, slow=True) == []
    attempts.settle(database, slow, webhooks.OK, rng=webhooks.RNG)
    assert webhooks.claim(database, slow=True) == []
    assert len(webhooks.claim(database)) == policy.QUEUE_LIMIT


def test_thousands_of_new_receivers_leave_threads_to_other_accounts_and_to_proven_ones(
    database: Database, account_id: uuid.UUID
) -> None:
    others = [factories.make_account(database) for _ in range(2)]
    for owner in (account_id, *others):
        make_queues(database, owner, policy.SLOTS)
    well = webhooks.make_endpoint(database, account_id, event_types=["job.cancelled"])
    make_proven(database, well.id)
    webhooks.record(database, account_id)

    claimed = webhooks.claim(database, limit=policy.SLOTS)

    served = collections.Counter(one.account_id for one in claimed if one.queue_id != well.id)
    assert well.id in {one.queue_id for one in claimed}
    assert served.total() == policy.UNPROVEN
    assert set(served.values()) == {policy.UNPROVEN // 3}
    # The rest is for those that do well, and for one new receiver when another has answered.
    webhooks.record(database, account_id)
    assert [one.queue_id for one in webhooks.claim(database)] == [well.id]
    new = next(one for one in claimed if one.queue_id != well.id)
    attempts.settle(database, new, webhooks.OK, rng=webhooks.RNG)
    assert len(webhooks.claim(database)) == 1


def test_one_accounts_new_receivers_have_a_part_of_the_threads(
    database: Database, account_id: uuid.UUID
) -> None:
    make_queues(database, account_id, policy.SLOTS)

    assert len(webhooks.claim(database, limit=policy.SLOTS)) == policy.UNPROVEN_EACH
    assert webhooks.claim(database) == []
    other = factories.make_account(database)
    make_queues(database, other, 2)
    assert [one.account_id for one in webhooks.claim(database)] == [other] * 2


def test_one_accounts_proven_receivers_leave_threads_to_others(
    database: Database, account_id: uuid.UUID
) -> None:
    other = factories.make_account(database)
    make_queues(database, account_id, policy.SLOTS)
    with database.transaction() as transaction:
        transaction.execute(sa.update(WebhookQueue).values(delivered_at=transaction.now()))

    claimed = webhooks.claim(database, limit=policy.SLOTS)
    assert len(claimed) == policy.PROVEN_EACH
    assert webhooks.claim(database) == []
    make_queues(database, other, 2)
    assert [one.account_id for one in webhooks.claim(database)] == [other] * 2

    attempts.settle(database, claimed[0], webhooks.OK, rng=webhooks.RNG)
    assert [one.account_id for one in webhooks.claim(database)] == [account_id]


def test_one_accounts_slow_receivers_have_a_part_of_the_threads(
    database: Database, account_id: uuid.UUID
) -> None:
    other = factories.make_account(database)
    make_queues(database, account_id, policy.SLOW_SLOTS, failures=policy.TRIP)
    assert len(webhooks.claim(database, limit=policy.SLOW_SLOTS, slow=True)) == policy.SLOW_EACH

    make_queues(database, other, 2, failures=policy.TRIP)

    assert [one.account_id for one in webhooks.claim(database, slow=True)] == [other] * 2


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
def test_fan_outs_that_make_the_same_queues_do_not_deadlock(
    database: Database, account_id: uuid.UUID
) -> None:
    urls = sorted(
        (f"https://{name}.example/hook" for name in ("one", "two", "three")),
        key=lambda url: policy.queue(account_id, url)[0],
    )
    middle_id, middle = policy.queue(account_id, urls[1])

    def end(*own: str) -> None:
        """End jobs with webhooks of their own, the first one first."""
        for url in own:
            webhooks.run_job(database, account_id, webhook=policy.Webhook(url=url).plain())

    def fan_out() -> int:
        return outbox.fan_out(database).deliveries

    with ThreadPoolExecutor(2) as pool:
        # The one makes all queues and waits for the middle one; the other one has them in the opposite order.
        with database.transaction() as transaction:
            notifications.open_queue(transaction, middle_id, account_id=account_id, origin=middle)
            end(urls[2], urls[1], urls[0])
            first = pool.submit(fan_out)
            assert databases.eventually_waiting(database, 1)
            end(urls[0], urls[1], urls[2])
            second = pool.submit(fan_out)
            assert databases.eventually_waiting(database, 2)
        assert (first.result(30), second.result(30)) == (3, 3)
