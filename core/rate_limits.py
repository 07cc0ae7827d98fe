"""Token buckets for requests, shared by all API processes: they are in Redis and use its clock.

Without Redis, requests are not limited. While it is down, a call returns at once, except for one call every few
seconds, which tries Redis again.
"""

import contextlib
import threading
import time
import uuid
from collections.abc import Callable
from typing import Final

import redis
import structlog

from core.redis_url import RedisURL

_log = structlog.get_logger(__name__)

_PREFIX: Final = "longlook:rate:"
_SOCKET_SECONDS: Final = 0.25
_REST_SECONDS: Final = 2.0
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
        timer: a monotonic clock, in seconds.
    """

    def __init__(self, redis_url: str, *, timer: Callable[[], float] = time.monotonic) -> None:
        self._redis = RedisURL.parse(redis_url).client(
            seconds=_SOCKET_SECONDS, health_check_interval=10
        )
        self._script = self._redis.register_script(_TAKE)
        self._timer = timer
        self._lock = threading.Lock()
        self._lost = False
        self._rest_until = 0.0

    def take(self, key_id: uuid.UUID, *, per_minute: int) -> tuple[float, bool] | None:
        """Take one request from the bucket of a key.

        Returns:
            The number of requests left, with its fraction, and whether there was one to take; None while Redis is down.
        """
        if not self._may_ask():
            return None
        try:
            taken, left = self._script(keys=[_PREFIX + key_id.hex], args=[per_minute])
        except (redis.RedisError, OSError) as error:
            self._note(lost=True)
            _log.warning("requests_not_counted_together", error_type=type(error).__name__)
            return None
        self._note(lost=False)
        return float(left), taken == 1

    def close(self) -> None:
        """Close the connection to Redis."""
        with contextlib.suppress(redis.RedisError, OSError):
            self._redis.close()

    def _may_ask(self) -> bool:
        """Whether Redis was up at the last call, or it is time to try again."""
        if not self._lost:
            return True
        with self._lock:
            if self._timer() < self._rest_until:
                return False
            self._rest_until = self._timer() + _REST_SECONDS
            return True

    def _note(self, *, lost: bool) -> None:
        if lost == self._lost and not lost:
            return
        with self._lock:
            self._lost = lost
            self._rest_until = self._timer() + _REST_SECONDS
