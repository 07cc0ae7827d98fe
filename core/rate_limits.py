"""Buckets of requests that all processes of the API take from: they are in Redis and go by its clock.

Nothing depends on them. While Redis is away nobody is kept waiting for it: who asks is told so at once, but for
one request every few seconds that looks whether it is back.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable
from typing import Final

import redis
import structlog

_log = structlog.get_logger(__name__)

_PREFIX: Final = "longlook:rate:"
_SOCKET_SECONDS: Final = 0.25
_REST_SECONDS: Final = 2.0
#: What is kept of a bucket is the moment at which it will be full again; one that is full is forgotten. A clock
#: that was set back makes nobody wait for longer than an empty bucket would. All times are in microseconds.
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
    """One bucket for each key, which holds a minute's requests and is filled all the time. For many threads.

    Args:
        redis_url: where they are kept.
        timer: seconds, by any clock that never goes back.
    """

    def __init__(self, redis_url: str, *, timer: Callable[[], float] = time.monotonic) -> None:
        self._redis = redis.Redis.from_url(
            redis_url,
            socket_timeout=_SOCKET_SECONDS,
            socket_connect_timeout=_SOCKET_SECONDS,
            health_check_interval=10,
        )
        self._script = self._redis.register_script(_TAKE)
        self._timer = timer
        self._lock = threading.Lock()
        self._lost = False
        self._rest_until = 0.0

    def take(self, key_id: uuid.UUID, *, per_minute: int) -> tuple[float, bool] | None:
        """Take a request out of a key's bucket.

        Returns:
            How many are left, parts of one included, and whether there was one; None while Redis is away.
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
        """Let go of Redis."""
        with contextlib.suppress(redis.RedisError, OSError):
            self._redis.close()

    def _may_ask(self) -> bool:
        """Whether Redis is there as far as is known, or it is the caller's turn to look."""
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
