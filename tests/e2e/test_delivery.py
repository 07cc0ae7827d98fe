"""A job is told to its receiver by real processes, and signed so that the official verifiers take it."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import standardwebhooks

from jobs.database import Database
from jobs.store import accounts
from tests import children, databases, webhooks
from tests.e2e.stack import Stack, eventually
from tests.receivers import Receiver, receiving
from tests.redis_servers import RedisServer

pytestmark = pytest.mark.e2e

PICTURE = Path(__file__).parents[2] / "models" / "tiny-qvq" / "samples" / "s07.png"


@pytest.fixture
def stack(sqlite_source: databases.SqliteSource, redis_server: RedisServer) -> Iterator[Stack]:
    redis_server.flush()
    folder = children.short_folder()
    stack = Stack(
        folder,
        sqlite_source.create(),
        redis_server.url,
        "scripted:?tokens_per_second=0",
    )
    yield stack
    stack.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def test_a_finished_job_is_told_within_a_second_and_signed(
    stack: Stack, receiver: Receiver
) -> None:
    database = Database(stack.database_url)
    webhooks.make_endpoint(database, accounts.account_id(database, "default"), url=receiver.url)
    client = stack.start_api()
    stack.start_worker()
    process = stack.start_delivery()
    assert eventually(
        lambda: " ready." in stack.log("delivery") and " ready." in stack.log("worker")
    )

    job = client.submit([PICTURE], "How many shapes are there?", options={})

    assert eventually(lambda: len(receiver.took) == 1)
    [got] = receiver.took
    assert standardwebhooks.Webhook(webhooks.PLAIN_SECRET).verify(got.body, got.headers)
    assert (got.event["type"], got.event["data"]["id"]) == ("job.succeeded", job["id"])
    assert eventually(lambda: webhooks.attempts(database)[0].outcome == "delivered")
    [event] = webhooks.events(database)
    [attempt] = webhooks.attempts(database)
    assert attempt.ended_at is not None
    # Generous for a machine that has other things to do: without a bell it would be five seconds.
    assert (attempt.ended_at - event.created_at).total_seconds() < 4
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert webhooks.PLAIN_SECRET not in stack.log("delivery")
    database.close()
