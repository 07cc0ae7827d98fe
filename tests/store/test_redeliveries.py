"""Requested attempts: one delivery again, all failed ones since a time, and tests."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
import sqlalchemy as sa

from core import errors
from core.database import Database
from jobs.store.purge import Periods
from tests import factories, races, webhooks
from webhooks import attempts, claims, endpoints, purge, queries, redelivery
from webhooks.policy import AttemptKind, AttemptState, DeliveryStatus
from webhooks.tables import WebhookEndpoint


def test_a_resend_goes_to_a_disabled_endpoint_and_touches_neither_schedule_nor_health(
    database: Database, account_id: uuid.UUID
) -> None:
    endpoint = webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id)
    webhooks.try_once(database, webhooks.DOWN)
    with database.transaction() as transaction:
        endpoints.disable(transaction, endpoint, reason="requested")
    before = webhooks.endpoint_now(database, endpoint)
    [reported] = webhooks.all_deliveries(database)
    planned = queries.get(database, reported.id, account_id=account_id)

    assert redelivery.redeliver(database, reported.id, account_id=account_id) is not None
    [resend] = webhooks.claim(database)
    assert (resend.kind, resend.barred, resend.event_id) == (
        AttemptKind.MANUAL,
        None,
        reported.notification_id,
    )
    settled = attempts.settle(database, resend, webhooks.GONE, rng=webhooks.RNG)

    assert settled == attempts.AttemptSettled(DeliveryStatus.PENDING, None, None)
    after = webhooks.endpoint_now(database, endpoint)
    assert (after.failing_since, after.disabled_at) == (before.failing_since, before.disabled_at)
    view = queries.get(database, reported.id, account_id=account_id)
    assert view is not None
    assert planned is not None
    assert view.next_at == planned.next_at is not None
    assert [attempt.kind for attempt in view.attempts] == ["automatic", "automatic", "manual"]


def test_a_resend_that_is_delivered_ends_the_schedule(
    database: Database, account_id: uuid.UUID
) -> None:
    webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id)
    webhooks.try_once(database, webhooks.DOWN)
    [reported] = webhooks.all_deliveries(database)
    redelivery.redeliver(database, reported.id, account_id=None)

    assert webhooks.try_once(database, webhooks.OK).status is DeliveryStatus.DELIVERED
    assert claims.pause(database) is None
    [reported] = webhooks.all_deliveries(database)
    assert reported.status is DeliveryStatus.DELIVERED


def test_a_delivery_has_a_limited_number_of_attempts(
    database: Database, account_id: uuid.UUID
) -> None:
    endpoint = webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id)
    webhooks.try_once(database, webhooks.GONE)
    [reported] = webhooks.all_deliveries(database)
    for _ in range(redelivery.MAX_ATTEMPTS - reported.attempt_count):
        redelivery.redeliver(database, reported.id, account_id=account_id)

    with pytest.raises(errors.Conflict):
        redelivery.redeliver(database, reported.id, account_id=account_id)

    while claimed := webhooks.claim(database):
        attempts.settle(database, claimed[0], webhooks.DOWN, rng=webhooks.RNG)
    endpoints.recover(database, endpoint.id, account_id=None, since=reported.created_at)
    assert redelivery.recover(database).resent == 0


def test_another_account_finds_nothing_to_resend_test_or_recover(
    database: Database, account_id: uuid.UUID
) -> None:
    stranger = factories.make_account(database)
    endpoint = webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id)
    [reported] = webhooks.all_deliveries(database)
    now = reported.created_at

    assert redelivery.redeliver(database, reported.id, account_id=stranger) is None
    assert queries.get(database, reported.id, account_id=stranger) is None
    tested = redelivery.test(
        database, endpoint.id, account_id=stranger, event_type="job.failed", data={}
    )
    assert tested is None
    assert endpoints.recover(database, endpoint.id, account_id=stranger, since=now) is None
    assert endpoints.get(database, endpoint.id, account_id=stranger) is None
    assert not endpoints.delete(database, endpoint.id, account_id=stranger)
    assert queries.of_account(database, account_id=stranger, limit=5) == ([], False)


def test_all_that_failed_since_a_time_is_recovered_in_the_background(
    database: Database, account_id: uuid.UUID
) -> None:
    endpoint = webhooks.make_endpoint(database, account_id, event_types=["job.cancelled"])
    webhooks.record(database, account_id, times=4)
    webhooks.try_first(database, webhooks.OK)
    for _ in range(2):
        webhooks.try_first(database, webhooks.DOWN)
    since = webhooks.all_deliveries(database)[0].created_at
    requested = endpoints.recover(database, endpoint.id, account_id=account_id, since=since)
    assert requested is not None

    batches = [redelivery.recover(database, limit=1) for _ in range(4)]

    assert [batch.resent for batch in batches] == [1, 1, 0, 0]
    assert [batch.more for batch in batches] == [True, True, True, False]
    done = queries.recovery(database, requested.id, account_id=account_id)
    assert done is not None
    assert (done.resent, done.ended_at is None) == (2, False)
    resent = [row for row in webhooks.attempts(database) if row.kind is AttemptKind.RECOVER]
    assert len(resent) == 2
    assert {row.state for row in resent} == {AttemptState.DUE}


def test_accounts_take_turns_at_recoveries(database: Database, account_id: uuid.UUID) -> None:
    stranger = factories.make_account(database, "stranger")
    now = database.clock()
    requested: list[tuple[uuid.UUID, uuid.UUID]] = []
    for owner in (account_id, account_id, account_id, stranger):
        endpoint = webhooks.make_endpoint(database, owner)
        found = endpoints.recover(database, endpoint.id, account_id=owner, since=now)
        assert found is not None
        requested.append((owner, found.id))
    order: list[uuid.UUID | None] = []
    last: uuid.UUID | None = None
    while (done := redelivery.recover(database, after=last)).more:
        last = done.account_id
        order.append(last)

    assert sorted(map(str, order)) == sorted(str(owner) for owner, _ in requested)
    assert stranger in order[:2]
    for owner, recovery_id in requested:
        view = queries.recovery(database, recovery_id, account_id=owner)
        assert view is not None
        assert view.ended_at is not None


def test_an_endpoint_has_a_limited_number_of_recoveries(
    database: Database, account_id: uuid.UUID
) -> None:
    endpoint = webhooks.make_endpoint(database, account_id)
    other = webhooks.make_endpoint(database, account_id)
    now = database.clock()

    def ask(endpoint_id: uuid.UUID) -> uuid.UUID:
        found = endpoints.recover(database, endpoint_id, account_id=account_id, since=now)
        assert found is not None
        return found.id

    first = [ask(endpoint.id) for _ in range(endpoints.MOST_RECOVERIES)]
    with pytest.raises(errors.Conflict, match="at most 10 recoveries"):
        ask(endpoint.id)
    ask(other.id)
    while redelivery.recover(database).more:
        pass
    second = [ask(endpoint.id) for _ in range(endpoints.MOST_RECOVERIES)]
    while redelivery.recover(database).more:
        pass
    newest = ask(endpoint.id)

    stored = [
        recovery_id
        for recovery_id in (*first, *second, newest)
        if queries.recovery(database, recovery_id, account_id=account_id)
    ]
    assert stored == [*second, newest]


def test_a_test_is_a_separate_notification_with_one_attempt(
    database: Database, account_id: uuid.UUID
) -> None:
    endpoint = webhooks.make_endpoint(database, account_id)
    delivery_id = redelivery.test(
        database, endpoint.id, account_id=account_id, event_type="job.failed", data={"test": True}
    )
    assert delivery_id is not None

    settled = webhooks.try_once(database, webhooks.DOWN)

    assert settled == attempts.AttemptSettled(DeliveryStatus.FAILED, None, None)
    view = queries.get(database, delivery_id, account_id=account_id)
    assert view is not None
    assert (view.event.type, view.event.job_id) == ("job.failed", None)
    assert [attempt.kind for attempt in view.attempts] == [AttemptKind.TEST]
    assert webhooks.endpoint_now(database, endpoint).failing_since is None


def test_a_delivery_that_is_resent_during_a_purge_is_either_sent_or_removed(
    database: Database, account_id: uuid.UUID
) -> None:
    webhooks.make_endpoint(database, account_id)
    for _ in range(6):
        webhooks.run_job(database, account_id)
        webhooks.try_once(database, webhooks.GONE)
        with database.transaction() as transaction:
            transaction.execute(
                sa.update(WebhookEndpoint).values(disabled_at=None, disabled_reason=None)
            )
    reported = webhooks.all_deliveries(database)
    periods = Periods(timeline=timedelta(0))

    def resend() -> int:
        made = [redelivery.redeliver(database, one.id, account_id=None) for one in reported]
        return sum(attempt_id is not None for attempt_id in made)

    def take_away() -> int:
        return sum(purge.batch(database, periods, limit=1).removed for _ in reported)

    resent, *purged = races.race(resend, take_away, take_away)

    # Each of them is sent again or gone, never both.
    left = {one.id for one in webhooks.all_deliveries(database)}
    due = {row.delivery_id for row in webhooks.attempts(database) if row.state is AttemptState.DUE}
    assert len(left) == len(reported) - sum(purged)
    assert len(due) == resent
    assert due <= left
