"""A failover that Sentinels manage: all clients use the new primary."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from cli.launch import redis as launch
from core.redis_url import RedisURL
from core.settings import Settings
from jobs import queue
from tests import children
from tests.e2e.stack import eventually, free_port
from tests.fakes import redis_prefix

pytestmark = pytest.mark.e2e


@contextlib.contextmanager
def valkey(
    folder: Path, *options: str, sentinel: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in a folder of its own."""
    folder.mkdir()
    arguments = [str(next(launch.bundled())), *options]
    process = children.spawn([*arguments, *(["--sentinel"] if sentinel else [])], folder=folder)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def connected(url: str) -> Any:  # noqa: ANN401 - redis has no types here
    """Return a client of a server that has just been started. A Sentinel may disconnect it at a failover."""
    client: Any = redis.Redis.from_url(
        url, decode_responses=True, retry=Retry(ConstantBackoff(0.1), 20)
    )

    def answers() -> bool:
        with contextlib.suppress(redis.RedisError):
            return bool(client.execute_command("HELLO"))
        return False

    assert eventually(answers)
    return client


def known(sentinel: Any) -> list[str]:  # noqa: ANN401 - redis has no types here
    """Return the state of the link to the primary of each replica that a Sentinel has asked."""
    return [replica["master-link-status"] for replica in sentinel.sentinel_slaves("main")]


def test_after_a_failover_of_sentinel_both_clients_use_the_new_primary(short_folder: Path) -> None:
    first, second, port = free_port(), free_port(), free_port()
    plain = ("--save", "", "--daemonize", "no", "--port")
    configuration = short_folder / "sentinel.conf"
    configuration.write_text(
        f"port {port}\nsentinel monitor main 127.0.0.1 {first} 1\n"
        "sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 5000\n"
    )
    url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{port}/main/0"
    settings = Settings.read({}, redis_url=url)
    with (
        valkey(short_folder / "a", *plain, str(first)) as primary,
        valkey(short_folder / "b", *plain, str(second), "--replicaof", "127.0.0.1", str(first)),
    ):
        connected(f"redis://127.0.0.1:{first}").close()
        replica = connected(f"redis://127.0.0.1:{second}")
        assert eventually(lambda: replica.info("replication")["master_link_status"] == "up")
        with valkey(short_folder / "s", str(configuration), sentinel=True):
            sentinel: Any = connected(f"redis://127.0.0.1:{port}")
            # One of which it knows nothing yet cannot become the primary.
            assert eventually(lambda: known(sentinel) == ["ok"])
            wakeup = queue.RedisWakeup(settings, prefix=redis_prefix)
            wakeup.notify()
            assert eventually(lambda: wakeup.waiting() == 1)
            # The check has a limit of a second, which a busy machine can exceed.
            assert eventually(lambda: wakeup.problem() is None)
            primary.kill()
            primary.wait()
            assert eventually(lambda: replica.role()[0] == "master")

            def sent() -> bool:
                wakeup.notify()
                return int(str(replica.llen(f"{redis_prefix()}{queue.REASON}"))) > 1

            assert eventually(sent)
            assert eventually(lambda: wakeup.problem() is None)
            wakeup.close()
            sentinel.close()
        with RedisURL.parse(f"redis://127.0.0.1:{second}").client(seconds=1) as client:
            assert client.llen(f"{redis_prefix()}{queue.REASON}") > 1
        replica.close()
