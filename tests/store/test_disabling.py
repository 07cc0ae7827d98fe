"""An endpoint is disabled when it is gone, or has failed for days."""

from __future__ import annotations

import uuid

import pytest

from core.database import Database
from tests import webhooks
from tests.databases import Age
from webhooks import attempts, endpoints
from webhooks.policy import AttemptOutcome, DeliveryStatus, Webhook


def test_410_disables_an_endpoint_and_notifies_the_others(
    database: Database, account_id: uuid.UUID
) -> None:
    gone = webhooks.make_endpoint(database, account_id)
    other = webhooks.make_endpoint(database, account_id, event_types=["endpoint.disabled"])
    webhooks.run_job(database, account_id)
    webhooks.run_job(database, account_id)

    settled = webhooks.try_first(database, webhooks.GONE)

    assert (settled.status, settled.disabled) == (DeliveryStatus.FAILED, "gone")
    assert webhooks.endpoint_now(database, gone).disabled_reason == "gone"
    reported = {claimed.queue_id: claimed for claimed in webhooks.claim(database)}
    assert reported[other.id].event_type == "endpoint.disabled"
    assert reported[gone.id].barred == "endpoint_disabled"
    assert reported[other.id].barred is None


def test_410_of_a_jobs_own_url_ends_that_delivery_alone(
    database: Database, account_id: uuid.UUID
) -> None:
    for _ in range(2):
        webhooks.run_job(database, account_id, webhook=Webhook(url="http://a.example/").plain())

    assert webhooks.try_first(database, webhooks.GONE).status is DeliveryStatus.FAILED

    first, second = webhooks.all_deliveries(database)
    assert (first.status, first.error_code) == (DeliveryStatus.FAILED, "gone")
    assert second.status is DeliveryStatus.PENDING
    assert [claimed.barred for claimed in webhooks.claim(database)] == [None]


def test_what_is_due_to_a_disabled_endpoint_fails_without_affecting_its_health(
    database: Database, account_id: uuid.UUID
) -> None:
    endpoint = webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id)
    with database.transaction() as transaction:
        endpoints.disable(transaction, endpoint, reason="requested")

    skipped = attempts.AttemptResult(AttemptOutcome.SKIPPED, error_code="endpoint_disabled")
    assert webhooks.try_once(database, skipped).status is DeliveryStatus.FAILED

    assert webhooks.endpoint_now(database, endpoint).failing_since is None
    [reported] = webhooks.all_deliveries(database)
    assert reported.error_code == "endpoint_disabled"


def test_five_days_of_nothing_but_failures_disable_an_endpoint(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    endpoint = webhooks.make_endpoint(database, account_id, event_types=["job.cancelled"])
    reasons = []
    for _ in range(6):
        webhooks.record(database, account_id)
        reasons.append(webhooks.try_first_of_any(database, webhooks.DOWN).disabled)
        age(86_400)

    assert reasons == [None] * 5 + ["failing"]
    disabled = webhooks.endpoint_now(database, endpoint)
    assert (disabled.disabled_reason, disabled.disabled_at is None) == ("failing", False)
    enabled = endpoints.enable(database, endpoint.id, account_id=account_id)
    assert enabled is not None
    assert (enabled.disabled_at, enabled.failing_since) == (None, None)


@pytest.mark.parametrize("between", ["success", "silence"])
def test_a_success_or_a_long_silence_restarts_the_count(
    database: Database, account_id: uuid.UUID, age: Age, between: str
) -> None:
    endpoint = webhooks.make_endpoint(database, account_id, event_types=["job.cancelled"])
    webhooks.record(database, account_id)
    webhooks.try_first_of_any(database, webhooks.DOWN)
    age(86_400)
    if between == "success":
        webhooks.record(database, account_id)
        webhooks.try_first_of_any(database, webhooks.OK)
    age(4.5 * 86_400)
    webhooks.record(database, account_id)

    assert webhooks.try_first_of_any(database, webhooks.DOWN).disabled is None

    assert webhooks.endpoint_now(database, endpoint).disabled_at is None
