"""Wakeups on a real Redis: they are sent if Redis is reachable, and never block if it is not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.settings import Settings
from jobs import queue
from jobs.queue import RedisWakeup
from tests.e2e.stack import eventually
from tests.redis_servers import RedisServer

pytestmark = pytest.mark.e2e


@pytest.fixture
def own_redis(short_folder: Path) -> Iterator[RedisServer]:
    """Return a Redis server that a test may stop."""
    server = RedisServer(short_folder)
    server.start()
    yield server
    server.resume()
    server.stop()


@pytest.fixture
def wakeup(own_redis: RedisServer) -> Iterator[RedisWakeup]:
    """Return a wakeup on ``own_redis``."""
    wakeup = RedisWakeup(Settings.read({}, redis_url=own_redis.url, redis_prefix="test"))
    yield wakeup
    wakeup.close()


def test_each_wakeup_is_one_message_in_redis(wakeup: RedisWakeup, own_redis: RedisServer) -> None:
    assert wakeup.waiting() == 0

    wakeup.notify(3)
    assert eventually(lambda: own_redis.length(queue.REASON) == 3)
    wakeup.notify()
    assert eventually(lambda: wakeup.waiting() == 4)

    wakeup.notify(0)
    wakeup.notify(-5)
    assert wakeup.waiting() == 4


def test_a_thousand_wakeups_are_enough_for_any_number_of_jobs(
    wakeup: RedisWakeup, own_redis: RedisServer
) -> None:
    for _ in range(20):
        wakeup.notify(100)

    assert eventually(lambda: own_redis.length(queue.REASON) >= 1_000)
    wakeup.close()

    assert own_redis.length(queue.REASON) == 1_000


@pytest.mark.parametrize("address", ["{}", "{}?db=3"])
def test_waiting_wakeups_are_counted_in_redis(redis_url: str, address: str) -> None:
    wakeup = RedisWakeup(
        Settings.read({}, redis_url=address.format(redis_url), redis_prefix="test")
    )

    wakeup.notify(2)

    assert eventually(lambda: wakeup.waiting() == 2)
    wakeup.close()


@pytest.mark.parametrize("fault", ["stopped", "frozen"])
def test_notify_returns_without_redis_and_works_again_after_redis_comes_back(
    wakeup: RedisWakeup, own_redis: RedisServer, fault: str
) -> None:
    wakeup.notify()
    assert eventually(lambda: wakeup.waiting() == 1)
    if fault == "stopped":
        own_redis.stop()
    else:
        own_redis.freeze()

    wakeup.notify(2)
    assert wakeup.waiting() is None
    assert wakeup.problem() is not None

    if fault == "stopped":
        own_redis.start()
    else:
        own_redis.resume()
    assert eventually(lambda: wakeup.problem() is None)
    assert eventually(lambda: wakeup.waiting() is not None)
    before = own_redis.length(queue.REASON)

    def notifications() -> bool:
        wakeup.notify()
        return (wakeup.waiting() or 0) > before

    assert eventually(notifications)


def test_notify_never_waits_for_redis(wakeup: RedisWakeup, own_redis: RedisServer) -> None:
    own_redis.freeze()
    returned = threading.Event()

    def notify_often() -> None:
        for _ in range(1_000):
            wakeup.notify()
        returned.set()

    threading.Thread(target=notify_often, daemon=True).start()

    # If they waited, each of them would wait for a second.
    assert returned.wait(60)
    own_redis.resume()


def test_a_closed_wakeup_sends_nothing(wakeup: RedisWakeup, own_redis: RedisServer) -> None:
    wakeup.close()
    others = set(threading.enumerate())

    wakeup.notify()

    assert {thread.name for thread in set(threading.enumerate()) - others} == set()
    assert own_redis.length(queue.REASON) == 0
