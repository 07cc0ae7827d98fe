"""The fan-out of the outbox: endpoints that listened at the time of an event get a notification of that time."""

from __future__ import annotations

import uuid
from datetime import timedelta

import orjson
import pytest
import sqlalchemy as sa

from core.database import Database
from jobs.answers.extraction import Answer
from jobs.records.jobs import Job
from jobs.records.timeline import OutboxEntry
from jobs.store import commands, retention, settle
from tests import factories, races, webhooks
from tests.databases import Age
from webhooks import claims, endpoints, outbox, purge
from webhooks.policy import EventType, Webhook
from webhooks.tables import WebhookDelivery, WebhookNotification

ALL = list(EventType)


def entries(database: Database) -> list[str]:
    """Return the states of the moves that the outbox holds, the oldest first."""
    with database.reading() as transaction:
        rows = transaction.session.scalars(sa.select(OutboxEntry).order_by(OutboxEntry.id))
        return [entry.status for entry in rows]


def written(database: Database) -> list[WebhookNotification]:
    """Return all notifications, in order, without fanning out."""
    with database.reading() as transaction:
        return list(
            transaction.session.scalars(
                sa.select(WebhookNotification).order_by(WebhookNotification.id)
            )
        )


def targets(database: Database) -> list[uuid.UUID | None]:
    """Return the endpoints of all deliveries, in order."""
    return [delivery.endpoint_id for delivery in webhooks.all_deliveries(database)]


def test_a_job_leaves_its_start_and_its_end_in_the_outbox_and_nothing_else(
    database: Database, account_id: uuid.UUID
) -> None:
    webhooks.make_endpoint(database, account_id, event_types=ALL)
    factories.make_job(database, account_id)
    settle.release(database, factories.claim(database), generation=None)
    settle.stop(database, factories.claim(database), generation=None)

    assert entries(database) == ["running", "cancelled"]
    assert written(database) == []
    assert outbox.fan_out(database) == outbox.FanOut(entries=2, deliveries=2)
    assert entries(database) == []
    assert [event.type for event in written(database)] == ["job.started", "job.cancelled"]


def test_an_entry_that_nothing_listens_to_goes_without_a_notification(
    database: Database, account_id: uuid.UUID
) -> None:
    webhooks.run_job(database, account_id)

    assert outbox.fan_out(database) == outbox.FanOut(entries=2)
    assert (entries(database), written(database)) == ([], [])
    assert outbox.fan_out(database) == outbox.FanOut()


def test_an_endpoint_that_is_made_later_gets_nothing(
    database: Database, account_id: uuid.UUID
) -> None:
    webhooks.run_job(database, account_id)
    webhooks.make_endpoint(database, account_id)

    assert targets(database) == []


def test_types_that_change_later_change_nothing(database: Database, account_id: uuid.UUID) -> None:
    endpoint = webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id)
    endpoints.update(database, endpoint.id, account_id=None, event_types=["job.failed"])
    webhooks.run_job(database, account_id)
    endpoints.update(database, endpoint.id, account_id=None, event_types=["job.succeeded"])

    assert targets(database) == [endpoint.id]


@pytest.mark.parametrize("end", ["disable", "delete"])
def test_an_endpoint_that_ends_later_has_a_delivery_that_says_so(
    database: Database, account_id: uuid.UUID, end: str
) -> None:
    endpoint = webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id)
    if end == "delete":
        endpoints.delete(database, endpoint.id, account_id=None)
    else:
        with database.transaction() as transaction:
            endpoints.disable(transaction, endpoint, reason="requested")
    webhooks.run_job(database, account_id)

    assert targets(database) == [endpoint.id]
    [claimed] = webhooks.claim(database)
    assert claimed.barred == f"endpoint_{end}d"


def test_an_endpoint_gets_nothing_of_the_time_when_it_was_disabled(
    database: Database, account_id: uuid.UUID
) -> None:
    endpoint = webhooks.make_endpoint(database, account_id)
    with database.transaction() as transaction:
        endpoints.disable(transaction, endpoint, reason="requested")
    webhooks.run_job(database, account_id)
    endpoints.enable(database, endpoint.id, account_id=None)

    assert targets(database) == []
    webhooks.run_job(database, account_id)
    assert targets(database) == [endpoint.id]


def test_a_start_has_nothing_of_an_end_that_came_before_its_notification(
    database: Database, account_id: uuid.UUID
) -> None:
    webhooks.make_endpoint(database, account_id, event_types=["job.started"])
    factories.make_job(database, account_id)
    settle.release(database, factories.claim(database), generation=None)
    claimed = factories.claim(database)
    settle.succeed(
        database, claimed, answer=Answer("6", "boxed"), generation=factories.make_ended()
    )

    [event] = webhooks.events(database)

    data = orjson.loads(event.payload)["data"]
    assert (data["status"], data["attempt"]) == ("running", 1)
    ends = ("answer", "finish_reason", "error", "usage", "finished_at")
    assert [data[name] for name in ends] == [None] * len(ends)
    with database.reading() as transaction:
        job = transaction.session.scalars(sa.select(Job)).one()
    assert job.started_at is not None
    assert job.finished_at is not None
    assert job.started_at <= event.created_at < job.finished_at


def test_a_job_deleted_before_its_notification_is_announced_without_its_answer(
    database: Database, account_id: uuid.UUID
) -> None:
    webhooks.make_endpoint(database, account_id)
    job_id = webhooks.run_job(database, account_id, answer="the answer")
    retention.remove_job(
        database,
        job_id,
        account_id=None,
        actor="key:test",
        remove_copies=purge.reduce_jobs,
    )

    [event] = webhooks.events(database)

    data = orjson.loads(event.payload)["data"]
    assert (data["status"], data["answer"], data["omitted"]) == ("succeeded", None, ["answer"])
    # What its receiver replies is not stored either.
    assert event.reduced_at is not None


def test_a_notification_is_as_old_as_its_event(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id)
    age(3600)

    pause = claims.pause(database)
    assert pause is not None
    assert pause <= timedelta(hours=-1)
    backlog = claims.backlog(database, account_id=account_id)
    assert backlog.pending == 2
    assert backlog.oldest is not None
    assert backlog.oldest >= timedelta(hours=1)
    webhooks.fan_out(database)
    after = claims.backlog(database, account_id=account_id)
    assert after.pending == 1
    assert after.oldest is not None
    assert after.oldest >= timedelta(hours=1)


def test_a_batch_ends_after_its_entries_or_its_deliveries(
    database: Database, account_id: uuid.UUID
) -> None:
    for _ in range(3):
        webhooks.make_endpoint(database, account_id)
    for _ in range(3):
        webhooks.run_job(database, account_id)

    # Of a job the start comes first, to which nothing listens.
    assert outbox.fan_out(database, limit=1) == outbox.FanOut(entries=1, more=True)
    batch = outbox.fan_out(database, most_deliveries=2)
    assert batch == outbox.FanOut(entries=1, deliveries=3, more=True)
    assert outbox.fan_out(database) == outbox.FanOut(entries=4, deliveries=6)


def test_the_backlog_of_an_account_delays_no_other_account(
    database: Database, account_id: uuid.UUID
) -> None:
    other = factories.make_account(database)
    for owner, jobs in ((account_id, 6), (other, 1)):
        for _ in range(3):
            webhooks.make_endpoint(database, owner, event_types=ALL)
        for _ in range(jobs):
            job_id = factories.make_job(database, owner)
            commands.cancel(database, job_id, account_id=owner, actor="key:1")

    batch = outbox.fan_out(database, limit=4, most_deliveries=2)

    assert (batch.entries, batch.deliveries, batch.more) == (2, 6, True)
    assert {event.account_id for event in written(database)} == {account_id, other}


def test_accounts_take_turns_in_batches(database: Database) -> None:
    accounts = [factories.make_account(database, f"account {number}") for number in range(25)]
    for owner in accounts:
        job_id = factories.make_job(database, owner)
        commands.cancel(database, job_id, account_id=owner, actor="key:1")
    first = outbox.fan_out(database)
    for owner in accounts:
        job_id = factories.make_job(database, owner)
        commands.cancel(database, job_id, account_id=owner, actor="key:1")

    second = outbox.fan_out(database, after=first.account_id)

    with database.reading() as transaction:
        left = transaction.session.scalars(sa.select(OutboxEntry.account_id)).all()
    assert (first.entries, second.entries) == (20, 25)
    # Each of the five that were left out first has had its turn.
    assert {left.count(owner) for owner in sorted(accounts)[20:]} == {0}


def test_what_fails_leaves_the_outbox_as_it_was(database: Database, account_id: uuid.UUID) -> None:
    webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id)

    with pytest.raises(RuntimeError):
        fan_out_and_break(database, account_id)

    assert entries(database) == ["running", "succeeded"]
    assert written(database) == []


@pytest.mark.parametrize("webhook", [{"url": "x", "endpoint_id": None, "events": []}, {}])
def test_an_invalid_webhook_of_a_job_stops_no_other_notification(
    database: Database, account_id: uuid.UUID, webhook: dict[str, object]
) -> None:
    endpoint = webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id, webhook=webhook)
    webhooks.run_job(database, account_id)

    assert targets(database) == [endpoint.id] * 2


def fan_out_and_break(database: Database, account_id: uuid.UUID) -> None:
    """Fan out in a transaction that does not get to its commit."""
    with database.transaction() as transaction:
        outbox.fan_out_account(transaction, account_id)
        raise RuntimeError


def test_processes_that_fan_out_at_once_announce_each_end_once(
    database: Database, account_id: uuid.UUID
) -> None:
    endpoint = webhooks.make_endpoint(database, account_id)
    webhook = Webhook(url="https://app.example/").plain()
    jobs = {webhooks.run_job(database, account_id, webhook=webhook) for _ in range(8)}

    def work() -> int:
        count = 0
        while (done := outbox.fan_out(database, limit=2)).entries:
            count += done.deliveries
        return count

    def change() -> int:
        endpoints.update(database, endpoint.id, account_id=None, event_types=["job.failed"])
        return 0

    races.race(work, work, change)

    webhooks.fan_out(database)
    assert {event.job_id for event in written(database)} == jobs
    assert len(written(database)) == len(jobs)
    with database.reading() as transaction:
        deliveries = transaction.session.scalars(sa.select(WebhookDelivery)).all()
    assert len([one for one in deliveries if one.endpoint_id is None]) == len(jobs)
    assert len([one for one in deliveries if one.endpoint_id == endpoint.id]) == len(jobs)


def test_a_cancel_of_a_queued_job_is_announced(database: Database, account_id: uuid.UUID) -> None:
    webhooks.make_endpoint(database, account_id, event_types=ALL)
    queued = factories.make_job(database, account_id)
    commands.cancel(database, queued, account_id=None, actor="key:test")

    [event] = webhooks.events(database)

    data = orjson.loads(event.payload)["data"]
    assert (event.type, data["attempt"], data["started_at"]) == ("job.cancelled", 0, None)
