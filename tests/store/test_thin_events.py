"""Events of responses and batches: the id alone, once, for the endpoints that subscribe to them."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime

import openai
import orjson
import pytest
from openai.types import webhooks as types

from core import ids
from core.database import Database, Transaction
from jobs.answers.extraction import Answer
from jobs.records.files import BatchEntry, BatchStatus
from jobs.store import retention, settle
from jobs.store.claims import Claim
from jobs.store.responses import NewResponse
from tests import factories, webhooks
from webhooks import outbox, signature, thin_events
from webhooks.policy import RESPONSES, EventType, Webhook

RESPONSE = NewResponse("responses", background=True, requested={})
CHAT = NewResponse("chat", background=False, requested={})
CUT = factories.make_ended("Let me", finish_reason="length")


def succeed(database: Database, claim: Claim) -> None:
    settle.succeed(database, claim, answer=Answer("6", "boxed"), generation=factories.make_ended())


def run_out(database: Database, claim: Claim) -> None:
    settle.succeed(database, claim, answer=None, generation=CUT, finish_reason="length")


def find_nothing(database: Database, claim: Claim) -> None:
    settle.succeed(database, claim, answer=None, generation=factories.make_ended("Hm."))


def fail(database: Database, claim: Claim) -> None:
    fault = settle.Failure("engine_fault", "It broke.", retryable=True)
    settle.fail(database, claim, fault, generation=None)


def cut_json(database: Database, claim: Claim) -> None:
    fault = settle.Failure("answer_format_unmet", settle.ANSWER_CUT, retryable=True)
    settle.fail(database, claim, fault, generation=CUT)


def stop(database: Database, claim: Claim) -> None:
    settle.stop(database, claim, generation=None)


End = Callable[[Database, Claim], None]


def run(database: Database, account_id: uuid.UUID, end: End, response: NewResponse | None) -> str:
    """Let a job end; return its id without its prefix."""
    job_id = factories.make_job(database, account_id, response=response)
    end(database, factories.claim(database))
    return job_id.hex


def unwrapped(payload: bytes) -> object:
    """Return what the official client makes of a message."""
    secret = signature.new_secret()
    headers = signature.headers(
        "evt_1",
        payload,
        at=datetime.now(UTC),
        secrets=[secret],
        private_key=signature.new_pair().private,
    )
    return openai.OpenAI(api_key="x", webhook_secret=secret).webhooks.unwrap(payload, headers)


@pytest.mark.parametrize(
    ("end", "event_type", "kind"),
    [
        (succeed, "response.completed", types.ResponseCompletedWebhookEvent),
        (find_nothing, "response.completed", types.ResponseCompletedWebhookEvent),
        (run_out, "response.incomplete", types.ResponseIncompleteWebhookEvent),
        (cut_json, "response.incomplete", types.ResponseIncompleteWebhookEvent),
        (fail, "response.failed", types.ResponseFailedWebhookEvent),
        (stop, "response.cancelled", types.ResponseCancelledWebhookEvent),
    ],
)
def test_the_end_of_a_response_is_one_thin_event_of_the_clients_own_class(
    database: Database, account_id: uuid.UUID, end: End, event_type: str, kind: type
) -> None:
    webhooks.make_endpoint(database, account_id, event_types=sorted(RESPONSES))
    job = run(database, account_id, end, RESPONSE)

    [event] = webhooks.events(database)

    message = orjson.loads(event.payload)
    assert (event.type, message["type"]) == (event_type, event_type)
    assert message["data"] == {"id": f"resp_{job}"}
    assert message["id"] == ids.show("evt", event.id)
    assert isinstance(unwrapped(event.payload), kind)
    assert outbox.fan_out(database) == outbox.FanOut()


@pytest.mark.parametrize("response", [None, CHAT], ids=["native", "chat"])
def test_other_jobs_have_no_event_of_a_response(
    database: Database, account_id: uuid.UUID, response: NewResponse | None
) -> None:
    webhooks.make_endpoint(database, account_id, event_types=list(EventType))
    run(database, account_id, succeed, response)
    assert [event.type for event in webhooks.events(database)] == ["job.started", "job.succeeded"]


def test_an_endpoint_gets_each_type_that_it_subscribes_to_and_no_other(
    database: Database, account_id: uuid.UUID
) -> None:
    both = webhooks.make_endpoint(
        database, account_id, event_types=["job.succeeded", "response.completed"]
    )
    failures = webhooks.make_endpoint(database, account_id, event_types=["response.failed"])
    native = webhooks.make_endpoint(database, account_id, event_types=["job.succeeded"])
    job = run(database, account_id, succeed, RESPONSE)

    events = {event.id: event.type for event in webhooks.events(database)}
    got = [
        (delivery.endpoint_id, events[delivery.notification_id])
        for delivery in webhooks.all_deliveries(database)
    ]

    assert sorted(got, key=str) == sorted(
        [
            (both.id, "job.succeeded"),
            (both.id, "response.completed"),
            (native.id, "job.succeeded"),
        ],
        key=str,
    )
    assert failures.id not in {endpoint_id for endpoint_id, _ in got}
    assert len({event.id for event in webhooks.events(database)}) == 2
    assert job


def test_the_jobs_own_webhook_gets_its_own_events_alone(
    database: Database, account_id: uuid.UUID
) -> None:
    own = webhooks.make_endpoint(database, account_id, event_types=["endpoint.disabled"])
    webhook = Webhook(endpoint_id=own.id).plain()
    factories.make_job(database, account_id, response=RESPONSE, webhook=webhook)
    succeed(database, factories.claim(database))

    assert [event.type for event in webhooks.events(database)] == ["job.succeeded"]


def test_an_answer_that_is_removed_before_the_fan_out_was_completed(
    database: Database, account_id: uuid.UUID
) -> None:
    webhooks.make_endpoint(database, account_id, event_types=sorted(RESPONSES))
    job = uuid.UUID(hex=run(database, account_id, succeed, RESPONSE))
    retention.remove_job(database, job, account_id=account_id, actor="key:test")

    assert [event.type for event in webhooks.events(database)] == ["response.completed"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (BatchStatus.COMPLETED, types.BatchCompletedWebhookEvent),
        (BatchStatus.FAILED, types.BatchFailedWebhookEvent),
        (BatchStatus.EXPIRED, types.BatchExpiredWebhookEvent),
        (BatchStatus.CANCELLED, types.BatchCancelledWebhookEvent),
    ],
)
def test_the_end_of_a_batch_is_a_thin_event_in_the_same_transaction(
    database: Database, account_id: uuid.UUID, status: BatchStatus, kind: type
) -> None:
    webhooks.make_endpoint(database, account_id, event_types=[f"batch.{status}"])
    webhooks.make_endpoint(database, account_id, event_types=["job.succeeded"])
    batch = BatchEntry(id=ids.new(), account_id=account_id, status=status)
    with database.transaction() as transaction:
        thin_events.batch_ended(transaction, batch)

    [event] = webhooks.events(database)
    assert orjson.loads(event.payload)["data"] == {"id": f"batch_{batch.id.hex}"}
    assert isinstance(unwrapped(event.payload), kind)


def test_a_batch_whose_end_is_rolled_back_has_no_event(
    database: Database, account_id: uuid.UUID
) -> None:
    webhooks.make_endpoint(database, account_id, event_types=["batch.completed"])
    batch = BatchEntry(id=ids.new(), account_id=account_id, status=BatchStatus.COMPLETED)

    def write(transaction: Transaction) -> None:
        thin_events.batch_ended(transaction, batch)
        raise LookupError

    with pytest.raises(LookupError), database.transaction() as transaction:
        write(transaction)
    assert webhooks.events(database) == []
