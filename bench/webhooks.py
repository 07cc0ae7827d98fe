"""Webhooks: the cost of dead receivers for the others, and the latency of a notification.

``python -m bench.webhooks [--database sqlite|postgresql|both] [--events N] [--quick]``

200 endpoints receive every notification. In one run all of them respond; in the other 20 accept the connection and
send nothing. The figure is deliveries per second to the 180 that are the same in both. Then follow single events on an
idle system: the time from the commit until the receiver's response is in SQL.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from bench import figures, service
from cli.launch.process import Program
from cli.up import programs
from core.database import Database
from core.settings import Settings
from core.vault import Vault
from jobs import queue
from jobs.store import accounts
from webhooks import endpoints, notifications, signature
from webhooks.policy import EventType
from webhooks.tables import WebhookAttempt, WebhookDelivery

_ENDPOINTS = 200
_DEAD = 20
_VAULT_KEY = "the vault key of the benchmarks"
_LIMIT_SECONDS = 300
_RECEIVER = "from bench import webhooks; import sys; webhooks.receive(int(sys.argv[1]))"


def receive(port: int) -> None:
    """Respond with 204 to every request, without end: the receiver's process."""
    asyncio.run(_receive(port))


async def _receive(port: int) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


@dataclass
class Post:
    """A database, its delivery process, and a receiver."""

    database: Database
    notify: Callable[[], None]
    url: str
    account: str

    def register(self, healthy: int, dead: int, dead_url: str) -> list[uuid.UUID]:
        """Register endpoints; return the ids of the healthy ones."""
        account_id = accounts.account_id(self.database, self.account)
        plain = signature.new_secret()
        secret = endpoints.StoredSecret(Vault([_VAULT_KEY]).seal(plain), signature.redact(plain))
        made = [
            endpoints.create(
                self.database,
                account_id=account_id,
                name=str(number),
                url=self.url if number < healthy else dead_url,
                event_types=[EventType.JOB_SUCCEEDED],
                secret=secret,
            ).id
            for number in range(healthy + dead)
        ]
        return made[: _ENDPOINTS - _DEAD]

    def record(self) -> None:
        """Commit an event and send a wakeup."""
        with self.database.transaction() as transaction:
            notifications.of_account(
                transaction,
                account_id=accounts.account_id(self.database, self.account),
                event_type=EventType.JOB_SUCCEEDED,
                data={"id": "job_0", "object": "job", "omitted": []},
            )
        self.notify()

    def delivered(self, ids: list[uuid.UUID]) -> int:
        """Return the number of finished deliveries to some endpoints."""
        with self.database.reading() as transaction:
            counted: int = transaction.execute(
                sa.select(sa.func.count())
                .select_from(WebhookDelivery)
                .where(
                    WebhookDelivery.endpoint_id.in_(ids),
                    WebhookDelivery.delivered_at.is_not(None),
                )
            ).scalar_one()
            return counted

    def wait(self, ids: list[uuid.UUID], count: int) -> None:
        """Wait until ``count`` deliveries are finished."""
        until = time.monotonic() + _LIMIT_SECONDS
        while self.delivered(ids) < count:
            if time.monotonic() > until:
                raise SystemExit(f"{self.delivered(ids)} of {count} were delivered in time")
            time.sleep(0.05)


@contextlib.contextmanager
def delivering(ground: service.Ground, url: str) -> Iterator[Post]:
    """Yield a delivery process and a receiver on a new database."""
    settings = {"vault_key": _VAULT_KEY, "webhook_allow": "127.0.0.0/8"}
    with service.running(ground, url, **settings) as running, service.listening() as free:
        port: int = free.getsockname()[1]
        free.close()
        receiver = ground.start(
            Program(
                name="receiver",
                command=(sys.executable, "-c", _RECEIVER, str(port)),
                environment=ground.environment,
                stop_seconds=5,
            )
        )
        service.wait(lambda: _connects(port), receiver)
        process = ground.start(programs.delivery(running.wiring, environ=running.environ))
        service.wait(lambda: b" ready." in process.log.read_bytes(), process)
        wakeup = queue.RedisWakeup(
            Settings.read({}, redis_url=ground.redis_url, database_url=url), task=queue.DELIVER
        )
        hook = f"http://127.0.0.1:{port}/hook"
        try:
            yield Post(running.database, wakeup.notify, hook, accounts.DEFAULT_ACCOUNT)
        finally:
            wakeup.close()
            for name in ("delivery", "receiver"):
                service.stop(ground.processes.pop(name))


def _connects(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def throughput(ground: service.Ground, url: str, *, dead: int, count: int) -> float:
    """Return deliveries per second to the healthy endpoints that both runs have."""
    with delivering(ground, url) as post, service.listening() as silent:
        silent_url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        ids = post.register(_ENDPOINTS - dead, dead, silent_url)
        began = time.monotonic()
        for _ in range(count):
            post.record()
        post.wait(ids, len(ids) * count)
        return len(ids) * count / (time.monotonic() - began)


def latencies(ground: service.Ground, url: str, *, count: int) -> list[float]:
    """Return the seconds from each commit to its delivery, without the first, which opens connections."""
    with delivering(ground, url) as post:
        ids = post.register(1, 0, "")
        for number in range(count + 1):
            post.record()
            post.wait(ids, number + 1)
        with post.database.reading() as transaction:
            rows = transaction.execute(
                sa.select(WebhookDelivery.created_at, WebhookAttempt.ended_at)
                .join(WebhookAttempt, WebhookAttempt.delivery_id == WebhookDelivery.id)
                .order_by(WebhookDelivery.id)
            ).all()
        return [(row.ended_at - row.created_at).total_seconds() for row in rows[1:]]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--events", type=int, default=30)
    parser.add_argument("--quick", action="store_true")
    requested = parser.parse_args()
    count = 8 if requested.quick else requested.events
    rows = []
    with (
        service.ground("tokens_per_second=0") as ground,
        service.databases(ground, requested.database) as makers,
    ):
        for name, make in makers.items():
            healthy = throughput(ground, make(), dead=0, count=count)
            beside = throughput(ground, make(), dead=_DEAD, count=count)
            seconds = latencies(ground, make(), count=count)
            p50, p99 = (figures.percentile(seconds, share) * 1000 for share in (0.5, 0.99))
            rates = (f"{beside / healthy:.2f}", f"{healthy:.0f}", f"{beside:.0f}")
            rows.append([name, *rates, f"{p50:.0f}", f"{p99:.0f}"])
    figures.show(
        f"Webhooks: {_ENDPOINTS} endpoints, {count} events, {figures.machine()}",
        ("database", "ratio", "per second, all healthy", f"{_DEAD} dead", "p50 ms", "p99 ms"),
        rows,
    )


if __name__ == "__main__":
    main()
