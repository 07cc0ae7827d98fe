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
from jobs.records import OutboxEntry
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
    """A database with a receiver that listens, and the processes of a test on it."""

    database: Database
    account_id: uuid.UUID
    receiver: Receiver
    endpoint_id: uuid.UUID
    environment: dict[str, str]

    def kill(self, failpoint: str) -> None:
        """Run a delivery process until it dies at ``failpoint``."""
        armed = self.environment | {VARIABLE: f"{failpoint}=kill"}
        with victims.running(senders.sender, armed) as victim:
            assert killed(victim)

    def let_leases_end(self) -> None:
        """Let the leases of now be over."""
        with self.database.transaction() as transaction:
            transaction.execute(
                sa.update(WebhookAttempt)
                .where(WebhookAttempt.state == AttemptState.SENDING)
                .values(lease_expires_at=transaction.now(timedelta(seconds=-1)))
            )

    def finish(self, environment: dict[str, str] | None = None) -> list[str]:
        """Let a fresh process send all that is pending; return the outcomes of the attempts."""
        if not self.reported():
            armed = self.environment | (environment or {})
            with victims.running(senders.sender, armed) as heir:
                assert eventually(self.reported)
                heir.terminate()
                heir.join(20)
                assert heir.exitcode == 0
        assert len(set(self.receiver.ids)) == 1
        return [str(row.outcome) for row in webhooks.attempts(self.database)]

    def reported(self) -> bool:
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
def post(database: Database, database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Post]:
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
    post: Post, failpoint: str, expected: list[str], sent: int
) -> None:
    webhooks.run_job(post.database, post.account_id)

    post.kill(failpoint)
    post.let_leases_end()

    assert post.finish() == expected
    assert len(post.receiver.got) == sent


@pytest.mark.parametrize("failpoint", ["fanout.commit", "fanout.committed"])
def test_when_a_process_dies_in_a_fan_out_each_end_is_announced_once(
    post: Post, failpoint: str
) -> None:
    webhooks.run_job(post.database, post.account_id)

    post.kill(failpoint)

    with post.database.reading() as transaction:
        entries = transaction.execute(sa.select(OutboxEntry.id)).all()
    assert len(entries) == (2 if failpoint == "fanout.commit" else 0)
    assert post.finish() == ["delivered"]
    assert len(post.receiver.got) == 1


def test_a_fan_out_whose_commit_reply_was_lost_is_not_repeated(post: Post) -> None:
    webhooks.run_job(post.database, post.account_id)

    assert post.finish({VARIABLE: "fanout.committed=raise"}) == ["delivered"]

    assert len(post.receiver.got) == 1


@pytest.mark.parametrize(
    "failpoint", ["secret.commit", "secret.committed", "key.commit", "key.committed"]
)
def test_when_a_process_dies_over_a_new_secret_another_one_signs_with_it(
    post: Post, failpoint: str
) -> None:
    account_id = factories.make_account(post.database)
    webhooks.run_job(post.database, account_id, webhook=Webhook(url=post.receiver.url).plain())

    post.kill(failpoint)
    post.let_leases_end()

    assert post.finish() == ["lost", "delivered"]
    [got] = post.receiver.got
    stored = secrets.default_secret(post.database, account_id, make=unexpected)
    pair = secrets.signing_key(post.database, make=unexpected)
    now = datetime.now(UTC)
    secret = webhooks.VAULT.open(stored.secret)
    assert signing.verify(got.headers, got.body, at=now, secrets=[secret])
    assert signing.verify(got.headers, got.body, at=now, public_key=pair.public)


def unexpected() -> Any:  # noqa: ANN401 - it returns nothing
    """Fail: there must be a secret."""
    raise AssertionError


@pytest.mark.parametrize("failpoint", ["lost.commit", "lost.committed"])
def test_when_a_process_dies_over_a_lost_attempt_it_ends_once(post: Post, failpoint: str) -> None:
    webhooks.run_job(post.database, post.account_id)
    webhooks.claim(post.database)
    post.let_leases_end()

    post.kill(failpoint)

    assert post.finish() == ["lost", "delivered"]
    assert len(post.receiver.got) == 1


@pytest.mark.parametrize("failpoint", ["recover.commit", "recover.committed"])
def test_when_a_process_dies_over_a_recovery_each_delivery_is_resent_once(
    post: Post, failpoint: str
) -> None:
    webhooks.run_job(post.database, post.account_id)
    webhooks.try_once(post.database, webhooks.GONE)
    [missed] = webhooks.all_deliveries(post.database)
    requested = endpoints.recover(
        post.database, post.endpoint_id, account_id=None, since=missed.created_at
    )
    assert requested is not None

    post.kill(failpoint)

    assert post.finish() == ["failed", "delivered"]
    done = queries.recovery(post.database, requested.id, account_id=None)
    assert done is not None
    assert done.resent == 1
    kinds = [row.kind for row in webhooks.attempts(post.database)]
    assert kinds == [AttemptKind.AUTOMATIC, AttemptKind.RECOVER]


def test_a_result_whose_commit_reply_was_lost_is_not_written_twice(post: Post) -> None:
    webhooks.run_job(post.database, post.account_id)

    ended = post.finish({VARIABLE: "settle.committed=raise"})

    assert ended == [str(AttemptOutcome.DELIVERED)]
    assert len(post.receiver.got) == 1
