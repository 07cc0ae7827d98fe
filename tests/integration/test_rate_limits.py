"""Token buckets in a real Redis: shared by all processes, and without any wait while Redis is unreachable."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.rate_limits import Limiter
from core.rate_limits import RateLimits
from tests import races
from tests.e2e.stack import eventually
from tests.fakes import HandTimer, redis_prefix
from tests.redis_servers import RedisServer

KEY = uuid.UUID(int=1)
#: As long as a busy machine may need.
PATIENCE = 60


@pytest.fixture
def buckets(redis_url: str) -> Iterator[RateLimits]:
    buckets = RateLimits(redis_url, redis_prefix, socket_seconds=PATIENCE)
    yield buckets
    buckets.close()


def take(buckets: RateLimits, *, per_minute: int, key: uuid.UUID = KEY) -> bool:
    answer = buckets.take(key, per_minute=per_minute)
    assert answer is not None
    return answer[1]


def test_a_burst_of_a_minutes_worth_passes_and_one_more_request_does_not(
    buckets: RateLimits,
) -> None:
    assert [take(buckets, per_minute=3) for _ in range(5)] == [True] * 3 + [False] * 2
    assert take(buckets, per_minute=3, key=uuid.UUID(int=2))


def test_the_rest_of_a_bucket_is_returned(buckets: RateLimits) -> None:
    answer = [buckets.take(KEY, per_minute=3) for _ in range(4)]

    lefts = [one[0] for one in answer if one is not None]
    assert [int(left) for left in lefts] == [2, 1, 0, 0]
    assert lefts[0] < 2.1


def test_processes_take_from_the_same_bucket_at_the_same_time(redis_url: str) -> None:
    many = [RateLimits(redis_url, redis_prefix, socket_seconds=PATIENCE) for _ in range(4)]
    began = time.monotonic()

    count = sum(
        races.race(*[lambda b=b: sum(take(b, per_minute=60) for _ in range(40)) for b in many])
    )

    # The bucket refills by one request per second.
    assert 60 <= count <= 61 + (time.monotonic() - began)
    for buckets in many:
        buckets.close()


def test_a_full_bucket_is_deleted(buckets: RateLimits, redis_server: RedisServer) -> None:
    take(buckets, per_minute=1)

    [milliseconds] = redis_server.lifetimes("test:rate:*")

    assert 0 < milliseconds <= 60_000


@pytest.fixture
def own_redis(short_folder: Path) -> Iterator[RedisServer]:
    """Return a Redis server that a test may stop."""
    server = RedisServer(short_folder)
    server.start()
    yield server
    server.resume()
    server.stop()


def test_without_redis_the_state_is_unknown_without_delay(own_redis: RedisServer) -> None:
    redis, timer = own_redis, HandTimer()
    buckets = RateLimits(redis.url, redis_prefix, timer=timer)

    def answers(*, taken: bool) -> bool:
        timer.seconds += 3
        answer = buckets.take(KEY, per_minute=2)
        return answer is not None and answer[1] is taken

    assert eventually(lambda: answers(taken=True))
    redis.freeze()
    assert buckets.take(KEY, per_minute=2) is None
    redis.resume()
    # The process does not contact Redis for a while, even if it is back.
    assert buckets.take(KEY, per_minute=2) is None

    # It has kept its count.
    assert eventually(lambda: answers(taken=False))
    buckets.close()


def test_when_redis_fails_each_process_continues_from_its_last_count(
    own_redis: RedisServer,
) -> None:
    redis, timer = own_redis, HandTimer()
    buckets = [
        RateLimits(redis.url, redis_prefix, timer=timer, socket_seconds=PATIENCE) for _ in range(2)
    ]
    first, second = (Limiter(per_minute=10, shared=shared, timer=timer) for shared in buckets)
    passed = [limiter.take(KEY)[1] for limiter in (first, second) * 3]
    assert all(passed)

    redis.stop()

    # The processes had seen five and six of ten requests.
    assert sum(first.take(KEY)[1] for _ in range(10)) == 5
    assert sum(second.take(KEY)[1] for _ in range(10)) == 4
    for shared in buckets:
        shared.close()
