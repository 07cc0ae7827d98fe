"""Helpers of webhook tests: endpoints, jobs that end, attempts that end in a given way."""

from __future__ import annotations

import dataclasses
import random
import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from core.database import Database
from core.vault import Vault
from jobs.answers.extraction import Answer
from jobs.store import settle
from tests import factories
from tests.e2e.stack import VAULT_KEY
from webhooks import attempts as delivery_attempts
from webhooks import claims, endpoints, notifications, outbox
from webhooks import signature as signing
from webhooks.policy import ENDS, AttemptOutcome, AttemptState, EventType
from webhooks.tables import WebhookAttempt, WebhookDelivery, WebhookEndpoint, WebhookNotification

LEASE = timedelta(seconds=60)
VAULT = Vault([VAULT_KEY])
PLAIN_SECRET = signing.new_secret()
SECRET = endpoints.StoredSecret(
    sealed=VAULT.seal(PLAIN_SECRET), redacted=signing.redact(PLAIN_SECRET)
)
RNG = random.Random(7)
OK = delivery_attempts.AttemptResult(
    AttemptOutcome.DELIVERED, status_code=200, response_body=b"thanks", seconds=0.1
)
#: The next attempt follows the schedule: the second one is due after four to six seconds, which a slow test may take.
FAILED_ONCE = delivery_attempts.AttemptResult(
    AttemptOutcome.FAILED, error_code="refused", status_code=500, seconds=0.1
)
#: The next attempt does not become due during a test.
DOWN = dataclasses.replace(FAILED_ONCE, retry_after=timedelta(hours=24))
GONE = delivery_attempts.AttemptResult(
    AttemptOutcome.FAILED, error_code="gone", status_code=410, seconds=0.1
)


def make_endpoint(
    database: Database,
    account_id: uuid.UUID,
    *,
    url: str = "https://receiver.example/hook",
    event_types: Sequence[str] = ENDS,
    secret: endpoints.StoredSecret = SECRET,
) -> WebhookEndpoint:
    """Register a receiver."""
    return endpoints.create(
        database,
        account_id=account_id,
        name="prod",
        url=url,
        event_types=event_types,
        secret=secret,
    )


def run_job(
    database: Database,
    account_id: uuid.UUID,
    *,
    answer: str = "6",
    **facts: Any,  # noqa: ANN401 - any field of a submission
) -> uuid.UUID:
    """Submit a job and let it succeed."""
    job_id = factories.make_job(database, account_id, **facts)
    claimed = factories.claim(database)
    assert claimed.job_id == job_id
    settle.succeed(
        database, claimed, answer=Answer(answer, "boxed"), generation=factories.make_ended()
    )
    return job_id


def fan_out(database: Database) -> None:
    """Do what the delivery process does first: make notifications of all entries of the outbox."""
    while outbox.fan_out(database).more:
        pass


def claim(database: Database, *, limit: int = 10, slow: bool = False) -> list[claims.DeliveryClaim]:
    """Fan out, and claim due attempts."""
    fan_out(database)
    return claims.claim(database, owner="sender-1", lease=LEASE, limit=limit, slow=slow)


def try_once(
    database: Database, result: delivery_attempts.AttemptResult
) -> delivery_attempts.AttemptSettled:
    """Claim the one attempt that is due, of a slow queue or another, and end it."""
    [claimed] = claim(database) or claim(database, slow=True)
    settled = delivery_attempts.settle(database, claimed, result, rng=RNG)
    assert settled is not None
    return settled


def try_first(
    database: Database, result: delivery_attempts.AttemptResult
) -> delivery_attempts.AttemptSettled:
    """Claim one of the attempts that are due, and end it."""
    [claimed] = claim(database, limit=1)
    settled = delivery_attempts.settle(database, claimed, result, rng=RNG)
    assert settled is not None
    return settled


def try_first_of_any(
    database: Database, result: delivery_attempts.AttemptResult
) -> delivery_attempts.AttemptSettled:
    """Claim one of the attempts that are due, of a slow queue or another, and end it."""
    [claimed] = claim(database, limit=1) or claim(database, limit=1, slow=True)
    settled = delivery_attempts.settle(database, claimed, result, rng=RNG)
    assert settled is not None
    return settled


def hurry(database: Database) -> None:
    """Make all waiting attempts due now, but for those that a sender has locked."""
    with database.transaction() as transaction:
        waiting = transaction.session.scalars(
            sa.select(WebhookAttempt.id)
            .where(WebhookAttempt.state == AttemptState.DUE)
            .with_for_update(skip_locked=True, key_share=True)
        ).all()
        transaction.execute(
            sa.update(WebhookAttempt)
            .where(WebhookAttempt.id.in_(waiting))
            .values(due_at=transaction.now())
        )


def events(database: Database) -> list[WebhookNotification]:
    """Fan out, and return all events, in order."""
    fan_out(database)
    with database.reading() as transaction:
        return list(
            transaction.session.scalars(
                sa.select(WebhookNotification).order_by(WebhookNotification.id)
            )
        )


def all_deliveries(database: Database) -> list[WebhookDelivery]:
    """Fan out, and return all deliveries, in order."""
    fan_out(database)
    with database.reading() as transaction:
        found = sa.select(WebhookDelivery).order_by(WebhookDelivery.id)
        return list(transaction.session.scalars(found))


def attempts(database: Database) -> list[WebhookAttempt]:
    """Fan out, and return all attempts, in order."""
    fan_out(database)
    with database.reading() as transaction:
        found = sa.select(WebhookAttempt).order_by(WebhookAttempt.id)
        return list(transaction.session.scalars(found))


def record(database: Database, account_id: uuid.UUID, *, times: int = 1) -> None:
    """Write notifications of the type job.cancelled; this is quicker than to run jobs."""
    for _ in range(times):
        with database.transaction() as transaction:
            notifications.of_account(
                transaction,
                account_id=account_id,
                event_type=EventType.JOB_CANCELLED,
                data={"omitted": []},
            )


def endpoint_now(database: Database, endpoint: WebhookEndpoint) -> WebhookEndpoint:
    """Return an endpoint as it is kept now."""
    found = endpoints.get(database, endpoint.id, account_id=None)
    assert found is not None
    return found
