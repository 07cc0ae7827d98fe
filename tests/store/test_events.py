"""Moves of jobs become notifications for those who listen: their types, targets and payloads."""

from __future__ import annotations

import random
import uuid
from datetime import UTC, datetime, timedelta

import orjson
import pytest

from core import ids
from core.database import Database
from jobs import findings
from jobs.answers.extraction import Answer
from jobs.lifecycle import Status
from jobs.store import commands, expiry, purge, retention, settle, submission, timeline
from tests import factories, webhooks
from tests.databases import Age
from webhooks import attempts, endpoints, notifications, policy
from webhooks import purge as webhook_purge
from webhooks.policy import (
    AttemptKind,
    AttemptOutcome,
    AttemptState,
    DeliveryStatus,
    EventType,
    Webhook,
)
from webhooks.tables import WebhookNotification

URL = "https://app.example/hook?token=hidden"


def types(database: Database) -> list[str]:
    return [event.type for event in webhooks.events(database)]


def remove_job(database: Database, job_id: uuid.UUID) -> None:
    """Remove a job's data as the API does."""
    assert retention.remove_job(
        database,
        job_id,
        account_id=None,
        actor="key:test",
        remove_copies=webhook_purge.reduce_jobs,
    )


def payload(event: WebhookNotification) -> dict[str, object]:
    loaded: dict[str, object] = orjson.loads(event.payload)
    return loaded


def test_endpoints_that_listen_are_notified_of_an_end_and_no_others(
    database: Database, account_id: uuid.UUID
) -> None:
    listening = webhooks.make_endpoint(database, account_id)
    webhooks.make_endpoint(database, account_id, event_types=["job.failed"])
    webhooks.make_endpoint(database, factories.make_account(database))

    job_id = webhooks.run_job(database, account_id)

    [event] = webhooks.events(database)
    assert (event.type, event.job_id, event.account_id) == ("job.succeeded", job_id, account_id)
    [reported] = webhooks.all_deliveries(database)
    assert (reported.endpoint_id, reported.status) == (listening.id, DeliveryStatus.PENDING)
    [attempt] = webhooks.attempts(database)
    assert (attempt.kind, attempt.state, attempt.number, attempt.step) == (
        AttemptKind.AUTOMATIC,
        AttemptState.DUE,
        1,
        0,
    )


def test_without_a_listener_nothing_is_written(database: Database, account_id: uuid.UUID) -> None:
    disabled = webhooks.make_endpoint(database, account_id)
    with database.transaction() as transaction:
        endpoints.disable(transaction, disabled, reason="requested")
    deleted = webhooks.make_endpoint(database, account_id)
    assert endpoints.delete(database, deleted.id, account_id=account_id)

    webhooks.run_job(database, account_id)

    assert types(database) == []


def test_a_payload_is_thin_and_has_the_answer(database: Database, account_id: uuid.UUID) -> None:
    webhooks.make_endpoint(database, account_id)
    job_id = webhooks.run_job(database, account_id, answer="42", metadata={"case": "7"})

    [event] = webhooks.events(database)
    reported = payload(event)
    assert set(reported) == {"id", "object", "created_at", "timestamp", "type", "data"}
    assert (reported["id"], reported["object"]) == (ids.show("evt", event.id), "event")
    data = reported["data"]
    assert isinstance(data, dict)
    shown = ids.show("job", job_id)
    assert (data["id"], data["object"], data["status"]) == (shown, "job", "succeeded")
    assert data["answer"] == {
        "text": "42",
        "tex": None,
        "value": None,
        "rule": "boxed",
        "confidence": None,
    }
    assert data["metadata"] == {"case": "7"}
    assert data["urls"]["trace"] == f"/v1/jobs/{shown}/trace"
    assert data["usage"]["output_tokens"] == 11
    assert "question" not in data


@pytest.mark.parametrize(
    ("chars", "omitted"), [(100, []), (12_000, ["answer.value"]), (20_000, ["answer"])]
)
def test_a_payload_has_the_value_as_long_as_it_fits(
    database: Database, account_id: uuid.UUID, chars: int, omitted: list[str]
) -> None:
    schema = {"type": "object", "properties": {"note": {"type": "string"}}}
    value = {"note": "x" * chars}
    webhooks.make_endpoint(database, account_id)
    job_id = webhooks.run_job(
        database,
        account_id,
        answer=orjson.dumps(value).decode(),
        options={"answer_format": {"type": "json_schema", "schema": schema}},
    )

    [event] = webhooks.events(database)
    data = payload(event)["data"]
    assert isinstance(data, dict)
    assert data["omitted"] == omitted
    if "answer" not in omitted:
        assert data["answer"]["text"] == orjson.dumps(value).decode()
        assert data["answer"]["value"] == (None if omitted else value)
    assert len(event.payload) < policy.PAYLOAD_BYTES

    with database.transaction() as transaction:
        webhook_purge.reduce_jobs(transaction, [job_id])
    [event] = webhooks.events(database)
    data = payload(event)["data"]
    assert isinstance(data, dict)
    assert (data["answer"], data["omitted"]) == (None, ["answer"])


def test_a_payload_has_the_confidence_of_a_verification(
    database: Database, account_id: uuid.UUID
) -> None:
    webhooks.make_endpoint(database, account_id)
    factories.make_job(database, account_id)
    claimed = factories.claim(database)
    factories.begin(database, claimed)
    settle.succeed(
        database,
        claimed,
        answer=Answer("6", "boxed"),
        generation=factories.make_ended(),
        guard_findings=[
            findings.Finding(
                findings.FindingKind.VERIFY,
                generation=0,
                start=0,
                end=8,
                action=findings.Action.DOUBTED,
            )
        ],
    )

    [event] = webhooks.events(database)
    data = payload(event)["data"]
    assert isinstance(data, dict)
    assert data["answer"]["confidence"] == 0.5


def test_a_payload_leaves_out_what_makes_it_too_long(
    database: Database, account_id: uuid.UUID
) -> None:
    webhooks.make_endpoint(database, account_id)
    metadata = {f"key {number}": "\u4e16" * 512 for number in range(16)}
    webhooks.run_job(database, account_id, answer="x" * 20_000)
    webhooks.run_job(database, account_id, answer="x" * 20_000, metadata=metadata)

    first, second = [payload(event)["data"] for event in webhooks.events(database)]
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert (first["answer"], first["omitted"]) == (None, ["answer"])
    assert (second["metadata"], second["omitted"]) == (None, ["answer", "metadata"])
    assert all(len(event.payload) < policy.PAYLOAD_BYTES for event in webhooks.events(database))


def test_only_the_first_attempt_announces_a_start(
    database: Database, account_id: uuid.UUID
) -> None:
    webhooks.make_endpoint(database, account_id, event_types=["job.started"])
    factories.make_job(database, account_id)
    settle.release(database, factories.claim(database), generation=None)

    factories.claim(database)

    assert types(database) == ["job.started"]


def test_each_way_to_end_is_announced(database: Database, account_id: uuid.UUID, age: Age) -> None:
    webhooks.make_endpoint(database, account_id)
    fault = settle.Failure("engine_rejected", "No.")
    factories.make_job(database, account_id)
    settle.fail(database, factories.claim(database), fault, generation=None)
    queued = factories.make_job(database, account_id)
    commands.cancel(database, queued, account_id=None, actor="key:test")
    factories.make_job(database, account_id)
    settle.stop(database, factories.claim(database), generation=None)
    factories.make_job(database, account_id)
    factories.claim(database, lease=timedelta(seconds=30))
    factories.make_job(database, account_id, deadline=timedelta(seconds=10))
    age(31)
    expiry.sweep(database, actor="sweeper:test", crash_limit=1, rng=random.Random(1))

    assert types(database) == [
        "job.failed",
        "job.cancelled",
        "job.cancelled",
        "job.failed",
        "job.failed",
    ]
    codes = [payload(event)["data"] for event in webhooks.events(database)][3:]
    assert [data["error"]["code"] for data in codes if isinstance(data, dict)] == [
        "worker_lost",
        "deadline_exceeded",
    ]


def test_a_change_without_a_move_writes_no_notification(
    database: Database, account_id: uuid.UUID
) -> None:
    webhooks.make_endpoint(database, account_id, event_types=list(EventType))
    job_id = factories.make_job(database, account_id)
    claimed = factories.claim(database)
    commands.cancel(database, job_id, account_id=None, actor="key:test")

    assert types(database) == ["job.started"]
    assert settle.stop(database, claimed, generation=None)
    assert not settle.stop(database, claimed, generation=None)
    assert types(database) == ["job.started", "job.cancelled"]


def test_a_jobs_own_url_gets_the_events_that_it_names(
    database: Database, account_id: uuid.UUID
) -> None:
    webhook = Webhook(url=URL, events=("job.started", "job.succeeded"))
    webhooks.run_job(database, account_id, webhook=webhook.plain())
    webhooks.run_job(database, account_id, webhook=Webhook(url=URL, events=("job.failed",)).plain())

    assert types(database) == ["job.started", "job.succeeded"]
    reported = webhooks.all_deliveries(database)
    assert {(one.endpoint_id, one.url) for one in reported} == {(None, URL)}
    assert len({one.queue_id for one in reported}) == 1
    [first] = webhooks.claim(database, limit=1)
    assert (first.url, first.secrets) == (URL, ())


def test_an_endpoint_that_a_job_names_gets_one_notification(
    database: Database, account_id: uuid.UUID
) -> None:
    named = webhooks.make_endpoint(database, account_id, event_types=["job.failed"])
    listening = webhooks.make_endpoint(database, account_id)
    for endpoint in (named, listening):
        webhooks.run_job(database, account_id, webhook=Webhook(endpoint_id=endpoint.id).plain())

    reported = [(one.notification_id, one.endpoint_id) for one in webhooks.all_deliveries(database)]
    first, second = webhooks.events(database)
    assert sorted(reported) == sorted(
        [(first.id, named.id), (first.id, listening.id), (second.id, listening.id)]
    )


def test_the_event_and_the_end_of_the_job_stand_or_fall_together(
    database: Database, account_id: uuid.UUID
) -> None:
    webhooks.make_endpoint(database, account_id)
    job_id = factories.make_job(database, account_id)
    claimed = factories.claim(database)

    with pytest.raises(RuntimeError):
        end_and_break(database)

    assert factories.get_job(database, job_id).job.status is Status.RUNNING
    assert types(database) == []
    assert settle.stop(database, claimed, generation=None)
    assert types(database) == ["job.cancelled"]


def end_and_break(database: Database) -> None:
    """End what runs in a transaction that does not come to its commit."""
    with database.transaction() as transaction:
        failed = timeline.Change(
            "failed",
            source=Status.RUNNING,
            target=Status.FAILED,
            where=(),
            values={"error_code": "engine_fault"},
        )
        changed = timeline.change(transaction, failed, actor="worker:test")
        raise RuntimeError(len(changed))


def test_a_deleted_job_removes_its_answer_from_payloads(
    database: Database, account_id: uuid.UUID
) -> None:
    webhooks.make_endpoint(database, account_id)
    webhooks.make_endpoint(database, account_id)
    job_id = webhooks.run_job(database, account_id, answer="the answer")
    webhooks.try_first(database, webhooks.OK)

    remove_job(database, job_id)

    [event] = webhooks.events(database)
    data = payload(event)["data"]
    assert isinstance(data, dict)
    assert (data["answer"], data["omitted"], data["status"]) == (None, ["answer"], "succeeded")
    assert event.reduced_at is not None
    assert {attempt.response_body for attempt in webhooks.attempts(database)} == {None}
    [left] = webhooks.claim(database)
    assert b"the answer" not in left.payload


def test_a_response_after_the_answer_was_removed_is_not_stored(
    database: Database, account_id: uuid.UUID
) -> None:
    webhooks.make_endpoint(database, account_id)
    job_id = webhooks.run_job(database, account_id, answer="the answer")
    [under_way] = webhooks.claim(database)
    assert b"the answer" in under_way.payload

    remove_job(database, job_id)
    echoed = attempts.AttemptResult(
        AttemptOutcome.DELIVERED, status_code=200, response_body=under_way.payload
    )
    assert attempts.settle(database, under_way, echoed, rng=webhooks.RNG) is not None

    [attempt] = webhooks.attempts(database)
    assert (attempt.outcome, attempt.status_code) == (AttemptOutcome.DELIVERED, 200)
    assert attempt.response_body is None


def test_old_answers_and_old_notifications_are_removed_unless_still_pending(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id, answer="the answer")
    age(2 * 86_400)
    periods = purge.Periods(answer=timedelta(days=1), timeline=timedelta(days=1))

    purge.batch(database, periods, actor="sweeper:test")
    webhook_purge.batch(database, periods)

    [event] = webhooks.events(database)
    assert b"the answer" not in event.payload
    webhooks.try_once(database, webhooks.OK)
    purge.batch(database, periods, actor="sweeper:test")
    webhook_purge.batch(database, periods)
    assert types(database) == []
    assert webhooks.attempts(database) == []


def test_a_replay_of_a_submission_keeps_the_webhook(
    database: Database, account_id: uuid.UUID
) -> None:
    wanted = factories.make_submission(
        account_id, webhook=Webhook(url=URL).plain(), idempotency_key="once"
    )

    first = submission.submit(database, wanted, key_lifetime=factories.KEY_LIFETIME)
    again = submission.submit(database, wanted, key_lifetime=factories.KEY_LIFETIME)

    assert again.replayed
    assert Webhook.of(factories.get_job(database, first.job_id).job.webhook) == Webhook(url=URL)


@pytest.mark.parametrize("url", ["https://a.example:99999/", "mailto:a@b.example", "https://", "x"])
def test_an_invalid_url_does_not_get_as_far_as_the_end_of_a_job(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Webhook(url=url)


def test_an_origin_has_no_path_and_distinguishes_ports() -> None:
    reported = {
        "https://A.example/secret?token=x": "https://a.example",
        "https://a.example:443": "https://a.example",
        "http://a.example:8080/": "http://a.example:8080",
        "http://[::1]:80/": "http://[::1]",
    }

    assert {url: policy.origin(url) for url in reported} == reported


def test_a_payload_leaves_out_the_original_of_an_answer_before_the_answer() -> None:
    text = "red " * 3_000
    answer = {"text": text, "tex": f"\\text{{{text}}}", "value": None}

    message = notifications.payload(
        uuid.uuid4(), "job.succeeded", datetime.now(UTC), {"answer": answer, "omitted": []}
    )

    data = orjson.loads(message)["data"]
    assert data["omitted"] == ["answer.tex"]
    assert data["answer"] == answer | {"tex": None}
