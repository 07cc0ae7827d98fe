"""The buckets in a real Redis: one for all who ask, and nobody waits while it is away."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.rate_limits import Limiter
from core.rate_limits import RateLimits
from tests import races
from tests.fakes import HandTimer
from tests.redis_servers import RedisServer

KEY = uuid.UUID(int=1)


@pytest.fixture
def buckets(redis_url: str) -> Iterator[RateLimits]:
    buckets = RateLimits(redis_url)
    yield buckets
    buckets.close()


def take(buckets: RateLimits, *, per_minute: int, key: uuid.UUID = KEY) -> bool:
    reported = buckets.take(key, per_minute=per_minute)
    assert reported is not None
    return reported[1]


def test_a_minutes_worth_at_once_is_fine_and_one_more_is_not(buckets: RateLimits) -> None:
    assert [take(buckets, per_minute=3) for _ in range(5)] == [True] * 3 + [False] * 2
    assert take(buckets, per_minute=3, key=uuid.UUID(int=2))


def test_the_rest_of_a_bucket_is_returned(buckets: RateLimits) -> None:
    reported = [buckets.take(KEY, per_minute=3) for _ in range(4)]

    lefts = [one[0] for one in reported if one is not None]
    assert [int(left) for left in lefts] == [2, 1, 0, 0]
    assert lefts[0] < 2.1


def test_processes_take_from_the_same_bucket_at_the_same_time(redis_url: str) -> None:
    many = [RateLimits(redis_url) for _ in range(4)]
    began = time.monotonic()

    taken = sum(
        races.race(*[lambda b=b: sum(take(b, per_minute=60) for _ in range(40)) for b in many])
    )

    # One more comes each second.
    assert 60 <= taken <= 61 + (time.monotonic() - began)
    for buckets in many:
        buckets.close()


def test_a_bucket_that_is_full_again_is_forgotten(
    buckets: RateLimits, redis_server: RedisServer
) -> None:
    take(buckets, per_minute=6)

    [milliseconds] = redis_server.lifetimes("longlook:rate:*")

    assert 0 < milliseconds <= 10_000


@pytest.fixture
def own_redis(short_folder: Path) -> Iterator[RedisServer]:
    """Return a Redis that a test may stop."""
    server = RedisServer(short_folder)
    server.start()
    yield server
    server.resume()
    server.stop()


def test_without_redis_the_state_is_unknown_without_delay(own_redis: RedisServer) -> None:
    redis, timer = own_redis, HandTimer()
    buckets = RateLimits(redis.url, timer=timer)
    assert take(buckets, per_minute=2)

    redis.freeze()
    assert buckets.take(KEY, per_minute=2) is None
    redis.resume()
    # It is left alone for a while, whether it is back or not.
    assert buckets.take(KEY, per_minute=2) is None

    timer.seconds += 3
    # What was asked while it was frozen may have been counted as well.
    assert not all(take(buckets, per_minute=2) for _ in range(2))
    buckets.close()


def test_when_redis_goes_each_process_goes_on_from_what_it_knew(own_redis: RedisServer) -> None:
    redis, timer = own_redis, HandTimer()
    buckets = [RateLimits(redis.url, timer=timer) for _ in range(2)]
    one, other = (Limiter(per_minute=10, shared=shared, timer=timer) for shared in buckets)
    taken = [limiter.take(KEY)[1] for limiter in (one, other) * 3]
    assert all(taken)

    redis.stop()

    # They had seen five and six of ten go.
    assert sum(one.take(KEY)[1] for _ in range(10)) == 5
    assert sum(other.take(KEY)[1] for _ in range(10)) == 4
    for shared in buckets:
        shared.close()
