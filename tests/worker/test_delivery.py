"""Attempts over real HTTP: signed, judged, written; by a dispatcher that sleeps until one is due."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pytest
import sqlalchemy as sa

from core.database import Database
from core.settings import Settings
from core.vault import Vault
from jobs.store import history, storage, submission
from jobs.store.purge import Periods
from jobs.store.responses import NewResponse
from net.client import GuardedClient, Reply
from tests import factories, webhooks
from tests.databases import Age
from tests.e2e.stack import eventually
from tests.receivers import Receiver, receiving
from webhooks import attempts, endpoints, policy, redelivery, sender
from webhooks.dispatcher import Dispatcher
from webhooks.policy import AttemptKind, AttemptOutcome, AttemptState, DeliveryStatus, Webhook
from webhooks.runtime import DeliveryRuntime
from webhooks.sender import Sender
from webhooks.signer import SecretSigner
from webhooks.tables import WebhookAttempt

LEASE = timedelta(seconds=60)
EGRESS = GuardedClient(["127.0.0.0/8"])


@dataclass
class Delivery:
    """A sender and a dispatcher on a database."""

    database: Database
    made_sender: Sender
    dispatcher: Dispatcher


@pytest.fixture
def account_id(database: Database) -> uuid.UUID:
    return factories.make_account(database)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


class NotingClient(GuardedClient):
    """Notes how long each request may take."""

    seconds: ClassVar[list[float]] = []

    def post(
        self,
        url: str,
        *,
        body: bytes,
        headers: Mapping[str, str],
        seconds: float,
        cap: int = 16 * 1024,
        party: Hashable = None,
    ) -> Reply:
        self.seconds.append(seconds)
        return super().post(url, body=body, headers=headers, seconds=seconds, cap=cap, party=party)


def make_sender(
    database: Database, *, seconds: float = 5.0, vault: Vault = webhooks.VAULT
) -> Sender:
    return Sender(
        database,
        signer=SecretSigner(database, vault=vault),
        egress=EGRESS,
        seconds=seconds,
        rng=random.Random(5),
        give_up=threading.Event(),
    )


@pytest.fixture
def delivery(database: Database) -> Iterator[Delivery]:
    """Return a running dispatcher with its sender."""
    # A receiver that is held back does not end its attempt meanwhile.
    made = make_sender(database, seconds=60)
    dispatcher = Dispatcher(database, owner="sender-1", lease=2 * LEASE, send=made.send)
    database.listen(lambda _: dispatcher.wake())
    dispatcher.start()
    yield Delivery(database, made, dispatcher)
    dispatcher.stop()


def send_one(database: Database, *, seconds: float = 5.0) -> None:
    [claimed] = webhooks.claim(database)
    make_sender(database, seconds=seconds).send(claimed)


def delivered(database: Database) -> int:
    return [one.status for one in webhooks.all_deliveries(database)].count(DeliveryStatus.DELIVERED)


def test_a_response_is_not_stored_for_an_account_at_its_storage_quota(
    database: Database, account_id: uuid.UUID, receiver: Receiver
) -> None:
    webhooks.make_endpoint(database, account_id, url=receiver.url)
    webhooks.run_job(database, account_id)
    image = factories.make_image(b"large", data=bytes(2**20))
    submission.store_image(database, account_id=account_id, image=image)
    quota = storage.Quota(database, default_mb=1)
    made_sender = Sender(
        database,
        signer=SecretSigner(database, vault=webhooks.VAULT),
        egress=EGRESS,
        seconds=5,
        rng=random.Random(5),
        give_up=threading.Event(),
        keeps=quota.has_room,
    )
    [claimed] = webhooks.claim(database)

    made_sender.send(claimed)

    [attempt] = webhooks.attempts(database)
    assert (attempt.outcome, attempt.status_code) == (AttemptOutcome.DELIVERED, 200)
    assert attempt.response_body is None


@pytest.mark.parametrize(
    ("status", "ends"),
    [
        (200, (AttemptOutcome.DELIVERED, None)),
        (204, (AttemptOutcome.DELIVERED, None)),
        (301, (AttemptOutcome.FAILED, "redirected")),
        (400, (AttemptOutcome.FAILED, "refused")),
        (410, (AttemptOutcome.FAILED, "gone")),
        (429, (AttemptOutcome.FAILED, "refused")),
        (500, (AttemptOutcome.FAILED, "refused")),
    ],
)
def test_each_response_is_judged_and_stored_with_its_row(
    database: Database,
    account_id: uuid.UUID,
    receiver: Receiver,
    *,
    status: int,
    ends: tuple[AttemptOutcome, str | None],
) -> None:
    receiver.status = status
    receiver.answer = b"" if status == 204 else b"x" * (policy.RESPONSE_BYTES + 1000)
    receiver.headers = {"location": receiver.url}
    webhooks.make_endpoint(database, account_id, url=receiver.url)
    webhooks.run_job(database, account_id)

    send_one(database)

    row = webhooks.attempts(database)[0]
    assert (row.outcome, row.error_code) == ends
    assert row.status_code == status
    assert (row.url, row.address) == (receiver.url, "127.0.0.1")
    assert row.seconds is not None
    assert len(row.response_body or b"") == min(len(receiver.answer), policy.RESPONSE_BYTES)
    [got] = receiver.got
    assert row.request_headers is not None
    assert row.request_headers["webhook-id"] == got.headers["webhook-id"]
    assert got.body == webhooks.events(database)[0].payload


def test_a_timeout_and_a_refused_connection_are_failures_with_their_rows(
    database: Database, account_id: uuid.UUID, receiver: Receiver
) -> None:
    receiver.held.clear()
    slow = webhooks.make_endpoint(database, account_id, url=receiver.url)
    webhooks.run_job(database, account_id)
    send_one(database, seconds=0.2)
    receiver.held.set()
    endpoints.update(database, slow.id, account_id=None, url="http://127.0.0.1:9/closed")
    [reported] = webhooks.all_deliveries(database)
    redelivery.redeliver(database, reported.id, account_id=None)
    send_one(database)

    codes = {row.number: row.error_code for row in webhooks.attempts(database)}

    assert codes == {1: "timed_out", 2: None, 3: "unreachable"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("120", timedelta(seconds=120)),
        ("99999999999", timedelta(hours=24)),
        ("Thu, 01 Jan 2026 00:02:00 GMT", timedelta(minutes=2)),
        ("Wed, 31 Dec 2025 00:00:00 GMT", timedelta()),
        ("soon", None),
        ("\u00b2", None),
        ("9" * 5000, timedelta(hours=24)),
        ("Mon, 01 Jan 2024 00:00:00 +9999", None),
        (f"Mon, 1 Jan {'9' * 30} 00:00:00 GMT", None),
        ("-5", None),
        ("", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(text: str, expected: timedelta | None) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)

    assert sender.retry_after({"retry-after": text}, now=now) == expected


def test_a_disabled_endpoint_gets_only_what_users_request(
    database: Database, account_id: uuid.UUID, receiver: Receiver
) -> None:
    endpoint = webhooks.make_endpoint(database, account_id, url=receiver.url)
    webhooks.run_job(database, account_id)
    with database.transaction() as transaction:
        endpoints.disable(transaction, endpoint, reason="requested")

    send_one(database)
    assert receiver.got == []
    [reported] = webhooks.all_deliveries(database)
    assert (reported.status, reported.error_code) == (DeliveryStatus.FAILED, "endpoint_disabled")
    redelivery.redeliver(database, reported.id, account_id=None)
    send_one(database)

    assert len(receiver.got) == 1
    assert delivered(database) == 1


def test_what_cannot_be_signed_waits_for_the_operator_and_leaves_no_rows(
    database: Database, account_id: uuid.UUID, receiver: Receiver, age: Age
) -> None:
    webhooks.make_endpoint(database, account_id, url=receiver.url)
    webhooks.run_job(database, account_id)
    keyless = make_sender(database, vault=Vault(["another key"]))
    for _ in range(3):
        [claimed] = webhooks.claim(database)
        keyless.send(claimed)
        assert webhooks.claim(database) == []
        age(61)

    send_one(database)

    assert len(receiver.got) == 1
    [row] = webhooks.attempts(database)
    assert (row.number, row.outcome) == (1, AttemptOutcome.DELIVERED)


def test_all_attempts_of_a_notification_have_the_same_id_and_body(
    database: Database, account_id: uuid.UUID, receiver: Receiver, age: Age
) -> None:
    receiver.status = 500
    endpoint = webhooks.make_endpoint(database, account_id, url=receiver.url)
    webhooks.run_job(database, account_id)
    send_one(database)
    age(7)
    send_one(database)
    [reported] = webhooks.all_deliveries(database)
    redelivery.redeliver(database, reported.id, account_id=None)
    send_one(database)
    endpoints.recover(database, endpoint.id, account_id=None, since=reported.created_at)
    redelivery.recover(database)
    receiver.status = 200
    send_one(database)

    assert len(receiver.ids) == 4
    assert len(set(receiver.ids)) == 1
    assert len({got.body for got in receiver.got}) == 1
    kinds = [row.kind for row in webhooks.attempts(database) if row.state is AttemptState.ENDED]
    assert sorted(kinds) == sorted(
        [AttemptKind.AUTOMATIC, AttemptKind.AUTOMATIC, AttemptKind.MANUAL, AttemptKind.RECOVER]
    )


def test_an_event_is_sent_at_once(
    delivery: Delivery, account_id: uuid.UUID, receiver: Receiver
) -> None:
    webhooks.make_endpoint(delivery.database, account_id, url=receiver.url)

    job_id = webhooks.run_job(delivery.database, account_id)

    assert eventually(lambda: delivered(delivery.database) == 1)
    [got] = receiver.got
    assert got.event["type"] == "job.succeeded"
    assert got.event["data"]["id"] == f"job_{job_id.hex}"


def test_dead_receivers_delay_no_other_receiver(
    delivery: Delivery, account_id: uuid.UUID, receiver: Receiver
) -> None:
    with receiving() as dead:
        dead.held.clear()
        for _ in range(12):
            webhooks.make_endpoint(delivery.database, account_id, url=dead.url)
        webhooks.run_job(delivery.database, account_id, question="Who is notified?")
        assert eventually(lambda: len(dead.got) == 12)

        for _ in range(3):
            webhooks.run_job(
                delivery.database, account_id, webhook=Webhook(url=receiver.url).plain()
            )

        assert eventually(lambda: len(receiver.got) == 3)
        # One attempt at a time: nothing of the three later events has been sent to them.
        assert len(dead.got) == 12
        dead.held.set()


def test_a_dispatcher_without_wakeups_wakes_when_a_retry_is_due(
    database: Database, account_id: uuid.UUID, receiver: Receiver
) -> None:
    made = make_sender(database)
    dispatcher = Dispatcher(database, owner="sender-1", lease=LEASE, send=made.send)
    webhooks.make_endpoint(database, account_id, url=receiver.url)
    webhooks.run_job(database, account_id)
    receiver.status = 503
    webhooks.claim(database)
    with database.transaction() as transaction:
        # As if its sender had died and the next attempt came in a second.
        transaction.execute(
            sa.update(WebhookAttempt).values(
                state=AttemptState.DUE,
                lease_expires_at=None,
                due_at=transaction.now(timedelta(seconds=1)),
            )
        )
    dispatcher.start()
    try:
        assert eventually(lambda: len(receiver.got) == 1)
    finally:
        dispatcher.stop()


def test_a_dispatcher_removes_what_is_older_than_the_retention_periods(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    made = make_sender(database)
    day = timedelta(days=1)
    dispatcher = Dispatcher(
        database,
        owner="sender-1",
        lease=LEASE,
        send=made.send,
        periods=Periods(answer=day, timeline=day),
    )
    webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id, answer="the answer")
    [old] = webhooks.claim(database)
    age(2 * 86_400)
    webhooks.run_job(database, account_id, answer="the answer")
    webhooks.claim(database)
    attempts.settle(database, old, webhooks.GONE, rng=webhooks.RNG)

    dispatcher.turn()
    dispatcher.stop()

    [event] = [event for event in webhooks.events(database) if event.job_id is not None]
    assert b"the answer" in event.payload


def test_a_dispatcher_removes_what_is_not_to_be_stored_from_notifications_too(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    """As when the API dies between the end of a job and the answer to its request."""
    dispatcher = Dispatcher(
        database, owner="sender-1", lease=LEASE, send=make_sender(database).send
    )
    webhooks.make_endpoint(database, account_id)
    not_stored = NewResponse("responses", background=False, requested={}, discard=True)
    job_id = webhooks.run_job(database, account_id, answer="the answer", response=not_stored)
    [before] = webhooks.events(database)
    age(120)

    dispatcher.turn()
    dispatcher.stop()

    job = history.job(database, job_id, account_id=None)
    [event] = webhooks.events(database)
    assert job is not None
    assert (job.question, job.answer_text) == (None, None)
    assert b"the answer" in before.payload
    assert b"the answer" not in event.payload


def test_a_drained_dispatcher_finishes_what_it_sends_and_starts_nothing(
    delivery: Delivery, account_id: uuid.UUID, receiver: Receiver
) -> None:
    receiver.held.clear()
    webhooks.make_endpoint(delivery.database, account_id, url=receiver.url)
    webhooks.run_job(delivery.database, account_id)
    assert eventually(lambda: len(receiver.got) == 1)
    delivery.dispatcher.request_stop()
    webhooks.run_job(delivery.database, account_id)
    receiver.held.set()
    delivery.dispatcher.stop()

    assert len(receiver.got) == 1
    assert delivered(delivery.database) == 1
    assert [row.state for row in webhooks.attempts(delivery.database)] == [
        AttemptState.ENDED,
        AttemptState.DUE,
    ]


def test_a_slow_receiver_that_failed_has_the_whole_timeout(
    database: Database, account_id: uuid.UUID, receiver: Receiver, tmp_path: Path
) -> None:
    webhooks.make_endpoint(database, account_id, url=receiver.url, event_types=["job.cancelled"])
    webhooks.record(database, account_id, times=policy.TRIP + 1)
    for _ in range(policy.TRIP):
        webhooks.try_once(database, webhooks.DOWN)
    receiver.held.clear()
    url = database.url.render_as_string(hide_password=False)
    settings = Settings.read({}, home=tmp_path, database_url=url, webhook_seconds=47)
    egress = NotingClient(["127.0.0.0/8"])
    egress.seconds.clear()
    runtime = DeliveryRuntime(settings, vault=webhooks.VAULT, egress=egress)

    runtime.dispatcher.start()
    assert eventually(lambda: len(receiver.got) == 1)
    # It answers only now, and no clock has cut it.
    receiver.held.set()
    assert eventually(lambda: delivered(database) == 1)

    runtime.dispatcher.stop()
    runtime.database.close()
    egress.close()
    assert set(egress.seconds) == {47.0}
