"""Each dangerous line of a delivery, hit on purpose: a process dies there, and another one finishes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from core.database import Database
from core.failpoints import VARIABLE
from jobs.records.timeline import OutboxEntry
from tests import factories, webhooks
from tests.chaos import senders, victims
from tests.chaos.scene import killed
from tests.e2e.stack import VAULT_KEY, eventually
from tests.receivers import Receiver, receiving
from webhooks import endpoints, queries, secrets
from webhooks import signature as signing
from webhooks.policy import AttemptKind, AttemptOutcome, AttemptState, DeliveryStatus, Webhook
from webhooks.tables import WebhookAttempt, WebhookDelivery


@dataclass
class Post:
    """A database with a receiver, and the processes of a test on it."""

    database: Database
    account_id: uuid.UUID
    receiver: Receiver
    endpoint_id: uuid.UUID
    environment: dict[str, str]

    def kill(self, failpoint: str) -> None:
        """Run a webhook sender until it dies at ``failpoint``."""
        armed = self.environment | {VARIABLE: f"{failpoint}=kill"}
        with victims.running(senders.sender, armed) as victim:
            assert killed(victim)

    def let_leases_end(self) -> None:
        """Expire all current leases."""
        with self.database.transaction() as transaction:
            transaction.execute(
                sa.update(WebhookAttempt)
                .where(WebhookAttempt.state == AttemptState.SENDING)
                .values(lease_expires_at=transaction.now(timedelta(seconds=-1)))
            )

    def finish(self, environment: dict[str, str] | None = None) -> list[str]:
        """Let a fresh process send all that is pending; return the outcomes of the attempts."""
        if not self.all_sent():
            armed = self.environment | (environment or {})
            with victims.running(senders.sender, armed) as heir:
                assert eventually(self.all_sent)
                heir.terminate()
                heir.join()
                assert heir.exitcode == 0
        assert len(set(self.receiver.ids)) == 1
        return [str(row.outcome) for row in webhooks.attempts(self.database)]

    def all_sent(self) -> bool:
        """Whether nothing is left to send, and something was sent."""
        with self.database.reading() as transaction:
            entries = transaction.execute(sa.select(OutboxEntry.id)).all()
            statuses = set(transaction.session.scalars(sa.select(WebhookDelivery.status)))
            states = set(transaction.session.scalars(sa.select(WebhookAttempt.state)))
        return (
            not entries
            and statuses == {DeliveryStatus.DELIVERED}
            and states == {AttemptState.ENDED}
        )


@pytest.fixture
def setup(database: Database, database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Post]:
    environment = {
        "LONGLOOK_HOME": str(tmp_path),
        "LONGLOOK_DATABASE_URL": database_url,
        "LONGLOOK_REDIS_URL": redis_url,
        "LONGLOOK_VAULT_KEY": VAULT_KEY,
        "LONGLOOK_WEBHOOK_ALLOW": "127.0.0.0/8",
    }
    with receiving() as receiver:
        account_id = factories.make_account(database)
        endpoint = webhooks.make_endpoint(database, account_id, url=receiver.url)
        yield Post(database, account_id, receiver, endpoint.id, environment)


@pytest.mark.parametrize(
    ("failpoint", "expected", "sent"),
    [
        ("deliver.commit", ["delivered"], 1),
        ("deliver.committed", ["lost", "delivered"], 1),
        ("deliver.post", ["lost", "delivered"], 1),
        ("deliver.posted", ["lost", "delivered"], 2),
        ("settle.commit", ["lost", "delivered"], 2),
        ("settle.committed", ["delivered"], 1),
    ],
)
def test_when_a_sender_dies_another_one_makes_the_delivery(
    setup: Post, failpoint: str, expected: list[str], sent: int
) -> None:
    webhooks.run_job(setup.database, setup.account_id)

    setup.kill(failpoint)
    setup.let_leases_end()

    assert setup.finish() == expected
    assert len(setup.receiver.got) == sent


@pytest.mark.parametrize("failpoint", ["fanout.commit", "fanout.committed"])
def test_when_a_process_dies_in_a_fan_out_each_end_is_announced_once(
    setup: Post, failpoint: str
) -> None:
    webhooks.run_job(setup.database, setup.account_id)

    setup.kill(failpoint)

    with setup.database.reading() as transaction:
        entries = transaction.execute(sa.select(OutboxEntry.id)).all()
    assert len(entries) == (2 if failpoint == "fanout.commit" else 0)
    assert setup.finish() == ["delivered"]
    assert len(setup.receiver.got) == 1


def test_a_fan_out_whose_commit_reply_was_lost_is_not_repeated(setup: Post) -> None:
    webhooks.run_job(setup.database, setup.account_id)

    assert setup.finish({VARIABLE: "fanout.committed=raise"}) == ["delivered"]

    assert len(setup.receiver.got) == 1


@pytest.mark.parametrize(
    "failpoint", ["secret.commit", "secret.committed", "key.commit", "key.committed"]
)
def test_when_a_process_dies_over_a_new_secret_another_one_signs_with_it(
    setup: Post, failpoint: str
) -> None:
    account_id = factories.make_account(setup.database)
    webhooks.run_job(setup.database, account_id, webhook=Webhook(url=setup.receiver.url).plain())

    setup.kill(failpoint)
    setup.let_leases_end()

    assert setup.finish() == ["lost", "delivered"]
    [notification] = setup.receiver.got
    default = secrets.default_secret(setup.database, account_id, make=unexpected)
    pair = secrets.signing_key(setup.database, make=unexpected)
    now = datetime.now(UTC)
    secret = webhooks.VAULT.open(default.secret)
    assert signing.verify(notification.headers, notification.body, at=now, secrets=[secret])
    assert signing.verify(notification.headers, notification.body, at=now, public_key=pair.public)


def unexpected() -> Any:  # noqa: ANN401 - it returns nothing
    """Fail: there must be a secret."""
    raise AssertionError


@pytest.mark.parametrize("failpoint", ["lost.commit", "lost.committed"])
def test_when_a_process_dies_over_a_lost_attempt_it_ends_once(setup: Post, failpoint: str) -> None:
    webhooks.run_job(setup.database, setup.account_id)
    webhooks.claim(setup.database)
    setup.let_leases_end()

    setup.kill(failpoint)

    assert setup.finish() == ["lost", "delivered"]
    assert len(setup.receiver.got) == 1


@pytest.mark.parametrize("failpoint", ["recover.commit", "recover.committed"])
def test_when_a_process_dies_over_a_recovery_each_delivery_is_resent_once(
    setup: Post, failpoint: str
) -> None:
    webhooks.run_job(setup.database, setup.account_id)
    webhooks.try_once(setup.database, webhooks.GONE)
    [missed] = webhooks.all_deliveries(setup.database)
    recovery = endpoints.recover(
        setup.database, setup.endpoint_id, account_id=None, since=missed.created_at
    )
    assert recovery is not None

    setup.kill(failpoint)

    assert setup.finish() == ["failed", "delivered"]
    done = queries.recovery(setup.database, recovery.id, account_id=None)
    assert done is not None
    assert done.resent == 1
    kinds = [row.kind for row in webhooks.attempts(setup.database)]
    assert kinds == [AttemptKind.AUTOMATIC, AttemptKind.RECOVER]


def test_a_result_whose_commit_reply_was_lost_is_not_written_twice(setup: Post) -> None:
    webhooks.run_job(setup.database, setup.account_id)

    ended = setup.finish({VARIABLE: "settle.committed=raise"})

    assert ended == [str(AttemptOutcome.DELIVERED)]
    assert len(setup.receiver.got) == 1
