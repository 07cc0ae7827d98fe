"""Real processes send notifications of a job, signed so that the official verifiers accept them."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import openai
import pytest
import standardwebhooks

from cli.client import Client
from core.database import Database
from jobs import queue
from jobs.store import accounts
from tests import children, databases, webhooks
from tests.e2e.stack import BIN, VAULT_KEY, Stack, eventually, free_port
from tests.receivers import Got, Receiver, receiving
from tests.redis_servers import RedisServer
from webhooks import signature as signing

pytestmark = pytest.mark.e2e

CANARY = "zebra-canary-7319"
IMAGE = Path(__file__).parents[2] / "models" / "tiny-qvq" / "samples" / "s07.png"


@pytest.fixture
def stack(sqlite_source: databases.SqliteSource, redis_server: RedisServer) -> Iterator[Stack]:
    redis_server.flush()
    folder = children.short_folder()
    stack = Stack(
        folder,
        sqlite_source.create(),
        redis_server.url,
        "scripted:?tokens_per_second=0",
        variables={"LONGLOOK_WEBHOOK_ALLOW": "127.0.0.0/8", "LONGLOOK_VAULT_KEY": VAULT_KEY},
    )
    yield stack
    stack.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def client(stack: Stack) -> Client:
    """Return a client of the running service with its worker and its webhook sender."""
    client = stack.start_api()
    stack.start_worker()
    stack.start_delivery()
    assert eventually(
        lambda: " ready." in stack.log("delivery") and " ready." in stack.log("worker")
    )
    return client


def verified(notification: Got, secret: str) -> bool:
    """Whether both official verifiers accept a message with ``secret``; they must agree."""
    try:
        standardwebhooks.Webhook(secret).verify(notification.body, notification.headers)
        plain = True
    except standardwebhooks.WebhookVerificationError:
        plain = False
    with openai.OpenAI(api_key="none") as verifier:
        try:
            event = verifier.webhooks.unwrap(notification.body, notification.headers, secret=secret)
            unwrapped = event.id == notification.headers["webhook-id"]
        except openai.InvalidWebhookSignatureError:
            unwrapped = False
    assert plain == unwrapped
    return plain


def genuine(notification: Got, public_key: str) -> bool:
    """Whether a message is signed with the installation's key."""
    now = datetime.now(UTC)
    return bool(
        signing.verify(notification.headers, notification.body, at=now, public_key=public_key)
    )


def test_a_finished_job_is_announced_at_once_and_signed_and_the_process_ends_at_sigterm(
    stack: Stack, receiver: Receiver, redis_server: RedisServer
) -> None:
    client = stack.start_api()
    stack.start_worker()
    with contextlib.closing(Database(stack.database_url)) as database:
        account_id = accounts.account_id(database, "default")
        webhooks.make_endpoint(database, account_id, url=receiver.url)

        job = client.submit(
            [IMAGE], f"How many {CANARY} are there?", options={"metadata": {"case": CANARY}}
        )

        # The end of the job sends a wakeup, and the sender takes it. ``bench.webhooks`` measures how soon.
        assert eventually(lambda: redis_server.length(queue.DELIVER) > 0)
        process = stack.start_delivery()
        assert eventually(lambda: redis_server.length(queue.DELIVER) == 0)
        assert eventually(lambda: len(receiver.took) == 1)
        [got] = receiver.took
        assert got.event["data"]["metadata"] == {"case": CANARY}
        assert verified(got, webhooks.PLAIN_SECRET)
        assert (got.event["type"], got.event["data"]["id"]) == ("job.succeeded", job["id"])
        assert eventually(lambda: webhooks.attempts(database)[0].outcome == "delivered")
    assert eventually(lambda: " ready." in stack.log("delivery"))
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert webhooks.PLAIN_SECRET not in stack.log("delivery")
    assert CANARY not in stack.log("delivery")


def test_the_secrets_that_were_shown_verify_messages_also_during_a_rotation(
    client: Client, stack: Stack, receiver: Receiver
) -> None:
    root = "/v1/webhook_endpoints"
    with contextlib.ExitStack() as running:
        single = running.enter_context(receiving())
        official = running.enter_context(
            openai.OpenAI(base_url=f"{stack.url}/v1", api_key=stack.key)
        )
        made = official.webhooks.create(
            name="prod",
            url=receiver.url,
            event_types=["job.succeeded"],  # type: ignore[list-item] # the types only include OpenAI's events
        )
        first = [made.signing_secret]
        first.append(client.act("/v1/webhook_secret/rotate", {})["signing_secret"])
        public_key = client.look("/.well-known/longlook-webhook-key")["public_key"]
        options = {"webhook": {"url": single.url, "events": ["job.started", "job.succeeded"]}}

        job = client.submit([IMAGE], "How many shapes are there?", options=options)

        assert eventually(lambda: (len(receiver.took), len(single.took)) == (1, 2))
        assert {got.event["type"] for got in single.took} == {"job.started", "job.succeeded"}
        assert {got.event["data"]["id"] for got in receiver.took + single.took} == {job["id"]}
        for got in receiver.took:
            assert [verified(got, secret) for secret in first] == [True, False]
        for got in single.took:
            assert [verified(got, secret) for secret in first] == [False, True]

        rotated = official.webhooks.rotate_secret(made.id, keep_old_secret_active_for_24_hours=True)
        second = [rotated.signing_secret]
        second.append(client.act("/v1/webhook_secret/rotate", {})["signing_secret"])
        client.submit([IMAGE], "And how many are red?", options=options)

        assert eventually(lambda: (len(receiver.took), len(single.took)) == (2, 4))
        for got in receiver.took[1:]:
            by = [verified(got, secret) for secret in (first[0], second[0], second[1])]
            assert by == [True, True, False]
        for got in single.took[2:]:
            by = [verified(got, secret) for secret in (first[1], second[1], second[0])]
            assert by == [True, True, False]
        assert all(genuine(got, public_key) for got in receiver.took + single.took)

        # Without an overlap, the old secret is invalid immediately.
        last = client.act(f"{root}/{made.id}/rotate_secret", {})["signing_secret"]
        tested = client.act(f"{root}/{made.id}/test", {"event_type": "job.failed"})
        assert (tested["status_code"], tested["success"]) == (200, True)
        by = [verified(receiver.took[-1], secret) for secret in (first[0], second[0], last)]
        assert by == [False, False, True]


def test_the_command_line_receives_shows_and_resends_notifications(
    client: Client, stack: Stack, receiver: Receiver
) -> None:
    endpoint = client.act(
        "/v1/webhook_endpoints",
        {"name": "prod", "url": receiver.url, "event_types": ["job.succeeded"]},
    )
    port = free_port()
    access = {"LONGLOOK_URL": stack.url, "LONGLOOK_API_KEY": stack.key}
    listen = f"longlook webhooks listen --port {port} --count 1".split()
    listener = stack.spawn("listen", listen, **access)
    assert eventually(lambda: "listening" in stack.log("listen"))
    receiver.status = 410
    webhook = {"url": f"http://127.0.0.1:{port}/"}

    job = client.submit([IMAGE], "How many shapes are there?", options={"webhook": webhook})

    assert listener.wait(60) == 0
    assert job["id"] in stack.log("listen")

    def longlook(*words: str) -> tuple[int, Any]:
        ran = subprocess.run(
            [BIN / "longlook", "webhooks", *words, "--json"],
            env=stack.environment | access,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return ran.returncode, json.loads(ran.stdout)

    def disabled() -> bool:
        shown = client.look(f"/v1/webhook_endpoints/{endpoint['id']}")
        return bool(shown["disabled_reason"] == "gone")

    assert eventually(disabled)
    [delivery] = longlook("ls", "--failed")[1]["data"]
    assert delivery["attempts"][0]["status_code"] == 410
    assert longlook("test", endpoint["id"])[0] != 0
    receiver.status = 200
    assert longlook("test", endpoint["id"])[0] == 0
    assert longlook("redeliver", delivery["id"])[0] == 0
    assert eventually(lambda: longlook("show", delivery["id"])[1]["status"] == "delivered")
    assert receiver.took[-1].headers["webhook-id"] == delivery["event_id"]
    recovery = longlook("recover", endpoint["id"], "--since", "1h")[1]
    where = f"/v1/webhook_endpoints/{endpoint['id']}/recoveries/{recovery['id']}"
    assert eventually(lambda: client.look(where)["status"] == "done")

    def statuses() -> set[str]:
        return {shown["status"] for shown in longlook("show", job["id"])[1]["data"]}

    # The receivers have got all of them; the sender writes that down later.
    assert eventually(lambda: statuses() == {"delivered"})
