"""A Redis that answers PING but does not take what work needs: everything says so, and nothing floods the log."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from api.app import create_app, service_of
from core import redis_check
from core.database import Database
from core.redis_prefix import RedisPrefix
from core.settings import Settings
from jobs import queue
from tests import children, databases
from tests.cli.commands import local
from tests.e2e.stack import Stack, eventually, free_port
from tests.redis_servers import RedisServer

pytestmark = pytest.mark.e2e

Command = Callable[..., Any]
IMAGE = Path(__file__).parents[2] / "models" / "tiny-qvq" / "samples" / "s07.png"


@pytest.fixture
def dialect() -> str:
    """Return one kind of database: the faults are those of Redis."""
    return "sqlite"


@pytest.fixture
def server(short_folder: Path) -> Iterator[RedisServer]:
    """Return a Redis server that a test may break."""
    made = RedisServer(short_folder)
    made.start()
    yield made
    made.stop()


def forbid_keys(do: Command, folder: Path) -> None:
    del folder
    do("ACL", "SETUSER", "default", "resetkeys", "resetchannels", "~longlook:*", "&longlook:*")


def forbid_publish(do: Command, folder: Path) -> None:
    del folder
    do("ACL", "SETUSER", "default", "-publish")


def forbid_subscribe(do: Command, folder: Path) -> None:
    del folder
    do("ACL", "SETUSER", "default", "-subscribe")


def forbid_scripts(do: Command, folder: Path) -> None:
    del folder
    do("ACL", "SETUSER", "default", "-@scripting")


def replicate(do: Command, folder: Path) -> None:
    del folder
    do("REPLICAOF", "127.0.0.1", "1")


def fill(do: Command, folder: Path) -> None:
    del folder
    do("CONFIG", "SET", "maxmemory", "1")


def fail_to_save(do: Command, folder: Path) -> None:
    # A file cannot replace a folder, also for root.
    (folder / "dump.rdb" / "x").mkdir(parents=True)
    do("CONFIG", "SET", "save", "3600 1000000")
    do("BGSAVE")

    def saved() -> str:
        return str(do("INFO", "persistence")["rdb_last_bgsave_status"])

    assert eventually(lambda: saved() == "err")


def lock(do: Command, folder: Path) -> None:
    del folder
    do("CONFIG", "SET", "requirepass", "secret")


FAULTS: dict[str, tuple[Callable[[Command, Path], None], str]] = {
    "keys": (forbid_keys, "ACL"),
    "publish": (forbid_publish, "ACL"),
    "subscribe": (forbid_subscribe, "ACL"),
    "scripts": (forbid_scripts, "ACL"),
    "replica": (replicate, "read-only replica"),
    "memory": (fill, "out of memory"),
    "save": (fail_to_save, "MISCONF"),
    "password": (lock, "password"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_health_names_what_redis_refuses(
    server: RedisServer,
    short_folder: Path,
    tmp_path: Path,
    database_url: str,
    fault: str,
) -> None:
    settings = Settings.read(
        {}, redis_url=server.url, redis_prefix="test", database_url=database_url, pepper="x"
    )
    wakeup = queue.RedisWakeup(settings)
    app = create_app(settings, wakeup=wakeup)
    variables = {"LONGLOOK_REDIS_URL": server.url, "LONGLOOK_REDIS_PREFIX": "test"}

    def ready() -> dict[str, Any]:
        answer: dict[str, Any] = app.test_client().get("/readyz").get_json()
        return answer

    def diagnosis() -> dict[str, str]:
        _, printed = local(
            tmp_path, "doctor", "--json", LONGLOOK_ENGINE_URLS="scripted:", **variables
        )
        [one] = [entry for entry in json.loads(printed) if entry["check"] == "Redis"]
        return dict(one)

    # The checks have a limit of a second, which a busy machine can exceed.
    assert eventually(lambda: (ready()["checks"]["redis"], ready()["reasons"]) == ("ok", {}))
    assert eventually(lambda: diagnosis()["verdict"] == "ok")
    break_it, word = FAULTS[fault]
    with redis.Redis.from_url(server.url) as admin:
        keys = admin.keys()
        break_it(admin.execute_command, short_folder)
    assert eventually(lambda: word in ready()["reasons"].get("redis", ""))
    assert eventually(lambda: word in diagnosis()["detail"])
    after = ready(), diagnosis()
    service_of(app).close()

    assert keys == []
    assert (after[0]["status"], after[0]["checks"]["redis"]) == ("degraded", "degraded")
    assert after[1]["verdict"] == "missing"


@pytest.fixture
def cluster(short_folder: Path) -> Iterator[RedisServer]:
    """Return a cluster of one server."""
    server = RedisServer(short_folder, "--cluster-enabled", "yes")
    server.start()
    with redis.Redis.from_url(server.url) as admin:
        admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)

        def state() -> str:
            return str(admin.execute_command("CLUSTER", "INFO"))

        assert eventually(lambda: "ok" in state())
    yield server
    server.stop()


@pytest.fixture
def start(sqlite_source: databases.SqliteSource) -> Iterator[Callable[[str], Stack]]:
    """Return what makes a service at a Redis."""
    with contextlib.ExitStack() as stacks:

        def make(url: str) -> Stack:
            folder = children.short_folder()
            stack = Stack(folder, sqlite_source.create(), url, "scripted:?tokens_per_second=0")
            stacks.callback(shutil.rmtree, folder, ignore_errors=True)
            stacks.callback(stack.close)
            return stack

        yield make


def events(stack: Stack, name: str, event: str) -> list[dict[str, Any]]:
    """Return the lines of a log about ``event`` of Redis that Celery met."""
    lines = stack.events(name)
    return [line for line in lines if line["event"] == event and line.get("use") == "celery"]


def test_no_process_starts_at_a_cluster_and_each_says_so_in_one_sentence(
    cluster: RedisServer, start: Callable[[str], Stack]
) -> None:
    stack = start(cluster.url)
    started = {
        "api": stack.spawn_api(free_port()),
        "worker": stack.start_worker(),
        "delivery": stack.start_delivery(),
    }

    for name, process in started.items():
        assert process.wait(60) == 2, stack.log(name)
        sentences = [line for line in stack.log(name).splitlines() if "Redis Cluster" in line]
        assert sentences == [f"LONGLOOK_REDIS_URL: {redis_check.CLUSTER}"]
        assert "Traceback" not in stack.log(name)


def test_a_redis_that_refuses_writes_for_a_while_is_logged_once_and_used_again(
    server: RedisServer, start: Callable[[str], Stack]
) -> None:
    stack = start(server.url)
    client = stack.start_api()
    stack.start_worker(LONGLOOK_SWEEP_SECONDS="0.5")
    prefix = RedisPrefix(Settings.read({}, database_url=stack.database_url))()
    with redis.Redis.from_url(server.url) as admin:
        assert eventually(lambda: admin.exists(f"{prefix}_kombu.binding.reason") == 1)
        admin.execute_command("REPLICAOF", "127.0.0.1", "1")
        assert eventually(lambda: bool(events(stack, "worker", "redis_lost")))
        # Several attempts of the gate, whose pauses grow.

        def checked() -> int:
            return int(str(admin.info("commandstats")["cmdstat_watch"]["calls"]))

        first = checked()
        assert eventually(lambda: checked() >= first + 3)
        admin.execute_command("REPLICAOF", "NO", "ONE")
        assert eventually(lambda: bool(events(stack, "worker", "redis_back")))
        assert eventually(
            lambda: any(b"brpop" in str(one["cmd"]).encode() for one in admin.client_list())
        )
        job = client.submit([IMAGE], "How many?")
        assert eventually(lambda: client.job(job["id"])["status"] == "succeeded")

    [lost] = events(stack, "worker", "redis_lost")
    assert "read-only" in lost["reason"]
    assert len(events(stack, "worker", "redis_back")) == 1
    assert "Traceback" not in stack.log("worker")
    assert stack.log("worker").count("Connection to broker lost") <= 1


def test_a_worker_that_starts_while_sql_is_away_connects_when_it_is_back(
    server: RedisServer, tmp_path: Path, start: Callable[[str], Stack]
) -> None:
    del tmp_path
    stack = start(server.url)
    database = Database(stack.database_url)
    with contextlib.closing(database), database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE installation RENAME TO hidden")
    stack.start_worker()
    assert eventually(lambda: bool(events(stack, "worker", "redis_lost")))
    [lost] = events(stack, "worker", "redis_lost")
    assert "database" in lost["reason"]

    with contextlib.closing(database), database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE hidden RENAME TO installation")

    assert eventually(lambda: bool(events(stack, "worker", "redis_back")))
    prefix = RedisPrefix(Settings.read({}, database_url=stack.database_url))()
    with redis.Redis.from_url(server.url) as admin:
        assert eventually(lambda: admin.exists(f"{prefix}_kombu.binding.reason") == 1)


def test_a_worker_that_waits_for_sql_stops_when_asked(
    server: RedisServer, start: Callable[[str], Stack]
) -> None:
    stack = start(server.url)
    with contextlib.closing(Database(stack.database_url)) as database:
        with database.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE installation RENAME TO hidden")
        worker = stack.start_worker()
        assert eventually(lambda: bool(events(stack, "worker", "redis_lost")))
        worker.terminate()
        assert worker.wait(60) == 0
