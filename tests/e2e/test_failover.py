"""The address of the database leads to a hot standby for a while: nothing stays there, and readiness says so."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
import urllib3

from cli.client import Client
from tests import children, databases, standby
from tests.chaos.proxy import Ends, Proxy
from tests.e2e.stack import VAULT_KEY, Stack, eventually
from tests.e2e.test_delivery import IMAGE
from tests.receivers import Receiver, receiving
from tests.redis_servers import RedisServer

pytestmark = pytest.mark.e2e


class Address:
    """An address that leads to one of two servers."""

    def __init__(self, primary: sa.URL, other: sa.URL) -> None:
        self._sockets = {"primary": standby.socket_of(primary), "standby": standby.socket_of(other)}
        self._to = "primary"
        self.proxy = Proxy(self._dial)

    def lead_to(self, server: str, *, reset: bool = True) -> None:
        """Lead all new connections to ``server``; with ``reset`` the others end."""
        self._to = server
        if reset:
            self.proxy.reset()

    async def _dial(self) -> Ends:
        return await asyncio.open_unix_connection(self._sockets[self._to])


@pytest.fixture
def address(postgres_source: databases.PostgresSource) -> Iterator[tuple[Address, sa.URL]]:
    url = sa.make_url(postgres_source.create())
    with standby.following(url) as other:
        address = Address(url, other)
        with address.proxy as proxy:
            yield address, url.set(host="127.0.0.1", port=proxy.port, query={})


@pytest.fixture(params=["read-write", "any"])
def stack(
    request: pytest.FixtureRequest, address: tuple[Address, sa.URL], redis_server: RedisServer
) -> Iterator[Stack]:
    redis_server.flush()
    folder = children.short_folder()
    # By default a connection to a standby is refused at its start; with "any" it looks good until it writes.
    url = address[1].update_query_dict({"target_session_attrs": request.param})
    stack = Stack(
        folder,
        url.render_as_string(hide_password=False),
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


def readiness(stack: Stack) -> int:
    with contextlib.suppress(urllib3.exceptions.HTTPError):
        return urllib3.request("GET", f"{stack.url}/readyz", retries=False, timeout=20).status
    return 0


def submit(client: Client, url: str) -> str:
    options: dict[str, Any] = {"webhook": {"url": url}}
    job = client.submit([IMAGE], "How many shapes are there?", options=options)
    return str(job["id"])


def notified(receiver: Receiver) -> set[str]:
    """Return the jobs of the notifications so far. One whose end the sender could not store is sent again."""
    return {got.event["data"]["id"] for got in list(receiver.took)}


def test_all_processes_return_from_a_standby_and_readiness_tells(
    stack: Stack, address: tuple[Address, sa.URL], receiver: Receiver
) -> None:
    lead, _ = address
    client = stack.start_api()
    stack.start_worker()
    stack.start_delivery()
    first = submit(client, receiver.url)
    assert eventually(lambda: first in notified(receiver))

    lead.lead_to("standby")
    assert eventually(lambda: readiness(stack) == 503)
    # All have met it: each logs what it could not do.
    assert eventually(lambda: "heartbeat_failed" in stack.log("worker"))
    assert eventually(lambda: "deliveries_not_claimed" in stack.log("delivery"))
    # What was opened on the standby stays open.
    lead.lead_to("primary", reset=False)

    assert eventually(lambda: readiness(stack) == 200)
    second = submit(client, receiver.url)
    assert eventually(lambda: second in notified(receiver))
