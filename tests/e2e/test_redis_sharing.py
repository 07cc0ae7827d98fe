"""Two installations and another Celery app in one Redis database: none touches the keys of the others."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from kombu import Connection
from redis.utils import str_if_bytes

from core.database import Database
from core.redis_prefix import RedisPrefix
from core.settings import Settings
from jobs import queue
from jobs.store import accounts
from tests import children, databases, webhooks
from tests.certificates import Authority
from tests.e2e.stack import VAULT_KEY, Stack, eventually
from tests.receivers import receiving
from tests.redis_servers import RedisServer, tls

pytestmark = pytest.mark.e2e

IMAGE = Path(__file__).parents[2] / "models" / "tiny-qvq" / "samples" / "s07.png"
OPERATE = Path(__file__).parents[2] / "docs" / "how-to" / "operate.md"
_ARGUMENT = re.compile(rb'"((?:[^"\\]|\\.)*)"')
#: Their arguments are channels, which `COMMAND GETKEYS` does not return.
_CHANNELS = {"SUBSCRIBE", "UNSUBSCRIBE", "PSUBSCRIBE", "PUNSUBSCRIBE"}
FOREIGN = "foreign"
_LAST = "the last command"


@pytest.fixture
def server(short_folder: Path) -> Iterator[RedisServer]:
    """Return a Redis server of this test."""
    made = RedisServer(short_folder)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def start(
    sqlite_source: databases.SqliteSource, postgres_source: databases.PostgresSource
) -> Iterator[Callable[..., Stack]]:
    """Return what makes an installation at a Redis."""
    with contextlib.ExitStack() as stacks:

        def make(url: str, *, postgresql: bool = False, **variables: str) -> Stack:
            folder = children.short_folder()
            source: databases.Source = postgres_source if postgresql else sqlite_source
            database_url = source.create() if not postgresql else postgres_source.clone()
            variables |= {"LONGLOOK_WEBHOOK_ALLOW": "127.0.0.0/8", "LONGLOOK_VAULT_KEY": VAULT_KEY}
            engine = "scripted:?tokens_per_second=500"
            stack = Stack(folder, database_url, url, engine, variables=variables)
            stacks.callback(shutil.rmtree, folder, ignore_errors=True)
            stacks.callback(stack.close)
            return stack

        yield make


def prefix(stack: Stack) -> str:
    """Return the prefix of an installation."""
    return RedisPrefix(Settings.read({}, database_url=stack.database_url))()


@contextlib.contextmanager
def monitoring(server: RedisServer) -> Iterator[list[list[str]]]:
    """Yield the commands that the server runs, with their arguments."""
    commands: list[list[str]] = []
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(server.socket))
        connection.sendall(b"MONITOR\r\n")
        lines = connection.makefile("rb")
        assert lines.readline().startswith(b"+OK")

        def read() -> None:
            with contextlib.suppress(OSError, ValueError):
                for line in lines:
                    found = [part.decode("latin-1") for part in _ARGUMENT.findall(line)]
                    commands.append([found[0].upper(), *found[1:]] if found else [])

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        yield commands
        # The server tells of the commands in their order, but later than it answers them.
        with redis.Redis.from_url(server.url) as admin:
            admin.echo(_LAST)
        assert eventually(lambda: ["ECHO", _LAST] in list(commands))
        connection.shutdown(socket.SHUT_RDWR)
        thread.join()
        commands.remove(["ECHO", _LAST])


def names(admin: redis.Redis, command: list[str]) -> list[str]:
    """Return the keys and channels of a command."""
    if command[0] in _CHANNELS:
        return command[1:]
    if command[0] == "PUBLISH":
        return command[1:2]
    try:
        found = admin.command_getkeys(*command)
    except redis.ResponseError as error:
        return [] if "no key arguments" in str(error) else [f"{error}: {command}"]
    return [str_if_bytes(key) for key in found]


@contextlib.contextmanager
def foreign_message(server: RedisServer) -> Iterator[None]:
    """Let another app hold a message during the block, for longer than our visibility timeout."""
    with (
        Connection(f"redis+socket://{server.socket}") as foreign,
        contextlib.closing(foreign.SimpleQueue(FOREIGN)) as messages,
    ):
        messages.put({"eta": "in three hours"})
        message = messages.get(timeout=20)
        with redis.Redis.from_url(server.url) as admin:
            [tag] = admin.zrange("unacked_index", 0, -1)
            admin.zadd("unacked_index", {tag: 1})
        yield
        message.ack()


@pytest.mark.parametrize("flags", ["", "--without-gossip --without-mingle --without-heartbeat"])
def test_every_key_and_channel_has_the_prefix_and_a_foreign_app_keeps_its_messages(
    server: RedisServer, start: Callable[..., Stack], flags: str
) -> None:
    with foreign_message(server):
        check_names(server, start(server.url), flags)


def check_names(server: RedisServer, stack: Stack, flags: str) -> None:
    """Run a job, and compare every name in Redis with the prefix."""
    own = prefix(stack)
    with redis.Redis.from_url(server.url) as admin:
        before = {key: admin.dump(key) for key in admin.scan_iter()}
    with monitoring(server) as commands, receiving() as receiver:
        client = stack.start_api()
        stack.spawn("worker", f"celery -A worker.app worker {flags}".split())
        stack.spawn("delivery", f"celery -A webhooks.app worker {flags}".split())
        with contextlib.closing(Database(stack.database_url)) as database:
            account = accounts.account_id(database, "default")
            webhooks.make_endpoint(database, account, url=receiver.url)
        job = client.submit([IMAGE], "How many?")
        assert list(client.follow(job["id"]))
        assert eventually(lambda: len(receiver.took) == 1)
        # Celery has looked for messages that nobody acknowledged.
        assert eventually(
            lambda: any(one[:2] == ["SET", f"{own}unacked_mutex"] for one in list(commands))
        )
    with redis.Redis.from_url(server.url) as admin:
        used = {name for command in commands if command for name in names(admin, command)}
        after = {
            key: admin.dump(key) for key in admin.scan_iter() if not key.startswith(own.encode())
        }

    parts = {f"{own}{part}" for part in (queue.REASON, queue.DELIVER, "unacked", "unacked_index")}
    assert parts <= used
    assert [name for name in used if not name.startswith(own)] == []
    assert {"rate", "live", "check"} <= {name.removeprefix(own).split(":")[0] for name in used}
    assert after == before


def test_a_wakeup_of_one_installation_waits_for_its_own_worker(
    server: RedisServer, start: Callable[..., Stack]
) -> None:
    one, other = start(server.url), start(server.url, postgresql=True)
    assert prefix(one) != prefix(other)
    client, other_client = one.start_api(), other.start_api()
    other.start_worker()
    with redis.Redis.from_url(server.url) as admin:

        def waiting() -> int:
            return int(str(admin.llen(f"{prefix(one)}{queue.REASON}")))

        jobs = [client.submit([IMAGE], f"How many {number}?") for number in range(3)]
        assert eventually(lambda: waiting() == len(jobs))
        # The other worker has received as many of its own meanwhile.
        for number in range(3):
            other_job = other_client.submit([IMAGE], f"How many {number}?")
            assert other_client.wait(other_job["id"])["status"] == "succeeded"
        assert waiting() == len(jobs)

        # A sweep, which would find the jobs too, is an hour away.
        one.start_worker(LONGLOOK_SWEEP_SECONDS="3600", LONGLOOK_LEASE_SECONDS="3600")
        assert [client.wait(job["id"])["status"] for job in jobs] == ["succeeded"] * 3
        assert "wakeups_silent" not in one.log("worker")


def recipe(own: str) -> list[str]:
    """Return the arguments of the documented `ACL SETUSER`."""
    [line] = re.findall(r"^ACL SETUSER .*$", OPERATE.read_text(), flags=re.MULTILINE)
    return str(line).replace("longlook:3f9a0c1b2d4e:", own).split()


def test_the_documented_acl_suffices_over_tls(
    server: RedisServer, tmp_path: Path, start: Callable[..., Stack]
) -> None:
    authority = Authority.make(tmp_path)
    trusted = tmp_path / "authority.pem"
    trusted.write_bytes(authority.pem())
    with tls(server, authority.issue("localhost")) as (port, _), receiving() as receiver:
        query = urllib.parse.urlencode({"ssl_ca_certs": trusted, "client_name": "longlook"})
        url = f"rediss://longlook:PASSWORD@localhost:{port}/0?{query}"
        slow = {"LONGLOOK_SWEEP_SECONDS": "3600", "LONGLOOK_LEASE_SECONDS": "3600"}
        stack = start(url, **slow)
        own = prefix(stack)
        with redis.Redis.from_url(server.url) as admin:
            admin.execute_command(*recipe(own))
            client = stack.start_api()
            stack.start_worker()
            stack.start_delivery()
            with contextlib.closing(Database(stack.database_url)) as database:
                account = accounts.account_id(database, "default")
                webhooks.make_endpoint(database, account, url=receiver.url)
            # Without wakeups no job would run within this test: a sweep is an hour away.
            for number in range(5):
                job = client.submit([IMAGE], f"How many {number}?")
                assert list(client.follow(job["id"]))[-1]["type"] == "job.finished"
            assert eventually(lambda: len(receiver.took) == 5)
            # Celery looks for messages that nobody acknowledged, too.
            assert eventually(lambda: admin.info("commandstats").get("cmdstat_evalsha") is not None)
            denied = admin.execute_command("ACL", "LOG")
            other = redis.Redis(unix_socket_path=str(server.socket), username="longlook")
            other.connection_pool.connection_kwargs["password"] = "PASSWORD"  # noqa: S105 - that of the recipe
            with other, pytest.raises(redis.exceptions.NoPermissionError):
                other.get("longlook:another:reason")
        for name in ("api", "worker", "delivery"):
            assert "redis_lost" not in stack.log(name)
        assert denied == []
