"""Token buckets for requests, shared by all API processes: they are in Redis and use its clock.

Without Redis, requests are not limited. While it is down, a call returns at once, except for one call every few
seconds, which tries Redis again.
"""

import contextlib
import time
import uuid
from collections.abc import Callable
from typing import Final

import redis

from core import errors, redis_check
from core.outage import Outage
from core.redis_url import RedisURL

#: After the prefix of the installation; the id of the key follows.
_BUCKETS: Final = "rate:"
_SOCKET_SECONDS: Final = 0.25
#: Redis stores the time at which a bucket will be full again, and forgets a full bucket. If its clock is set back, no
#: key waits longer than for an empty bucket. All times are in microseconds.
_TAKE: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local window, step = 60000000, 60000000 / ARGV[1]
local missing = math.min(math.max((tonumber(redis.call('GET', KEYS[1])) or now) - now, 0), window)
local taken = missing + step <= window + 1
if taken then
  missing = missing + step
  redis.call('SET', KEYS[1], string.format('%.3f', now + missing), 'PX', math.ceil(missing / 1000))
end
return {taken and 1 or 0, string.format('%.6f', math.max(window - missing, 0) / step)}
"""


class RateLimits:
    """One bucket for each key: it holds the requests of one minute and refills steadily. Thread-safe.

    Args:
        redis_url: the Redis that keeps the buckets.
        prefix: returns the prefix of all keys.
        timer: a monotonic clock, in seconds.
        socket_seconds: the longest wait for Redis.
    """

    def __init__(
        self,
        redis_url: str,
        prefix: Callable[[], str],
        *,
        timer: Callable[[], float] = time.monotonic,
        socket_seconds: float = _SOCKET_SECONDS,
    ) -> None:
        self._prefix = prefix
        self._redis = RedisURL.parse(redis_url).client(
            seconds=socket_seconds, health_check_interval=10
        )
        self._script = self._redis.register_script(_TAKE)
        self._outage = Outage("redis", use="rate_limits", timer=timer)

    def take(self, key_id: uuid.UUID, *, per_minute: int) -> tuple[float, bool] | None:
        """Take one request from the bucket of a key.

        Returns:
            The number of requests left, with its fraction, and whether there was one to take; None while Redis is down.
        """
        if not self._outage.may_try():
            return None
        try:
            taken, left = self._script(
                keys=[self._prefix() + _BUCKETS + key_id.hex], args=[per_minute]
            )
        except errors.Unavailable:
            self._outage.lost(redis_check.UNKNOWN_PREFIX)
            return None
        except (redis.RedisError, OSError) as error:
            self._outage.lost(redis_check.meaning(error))
            return None
        self._outage.back()
        return float(left), taken == 1

    def close(self) -> None:
        """Close the connection to Redis."""
        with contextlib.suppress(redis.RedisError, OSError):
            self._redis.close()
