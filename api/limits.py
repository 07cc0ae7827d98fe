"""How many requests a key may send: a bucket for each, and what every answer tells of it.

A bucket holds one minute's requests and is filled all the time, so a burst is fine and a flood is evened out.
The buckets are in this process: with several API processes each has its own, and a key may send that many
times more. Their headers are those of draft-ietf-httpapi-ratelimit-headers-10.
"""

from __future__ import annotations

import math
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import flask
from flask import Response

from jobs import errors

_WINDOW_SECONDS = 60


@dataclass(frozen=True)
class Standing:
    """What a key may still send: so many requests at once, and one more in so many seconds."""

    remaining: int
    seconds: int


class Limiter:
    """Counts requests by their keys.

    Args:
        per_minute: requests of one key.
        timer: seconds, by any clock that never goes back.
    """

    def __init__(self, *, per_minute: int, timer: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._timer = timer
        self._lock = threading.Lock()
        #: What was in each bucket, and when. Only known keys come here, so there are few.
        self._buckets: dict[uuid.UUID, tuple[float, float]] = {}

    def install(self, app: flask.Flask) -> None:
        """Have every answer to a known key tell where it stands."""
        app.after_request(self._tell)

    def count(self, key_id: uuid.UUID) -> None:
        """Count the current request.

        Raises:
            jobs.errors.RateLimitExceeded: the key has none left.
        """
        standing, taken = self.take(key_id)
        flask.g.standing = standing
        if not taken:
            raise errors.RateLimitExceeded(
                f"This key may send {self._per_minute} requests a minute.",
                retry_after=standing.seconds,
            )

    def take(self, key_id: uuid.UUID) -> tuple[Standing, bool]:
        """Take a request out of the key's bucket; return what is left, and whether there was one."""
        with self._lock:
            now = self._timer()
            left, since = self._buckets.get(key_id, (float(self._per_minute), now))
            left += (now - since) * self._per_minute / _WINDOW_SECONDS
            left = min(left, float(self._per_minute))
            taken = left >= 1
            left -= taken
            self._buckets[key_id] = (left, now)
        missing = 1 - left % 1
        seconds = math.ceil(missing * _WINDOW_SECONDS / self._per_minute)
        return Standing(remaining=int(left), seconds=seconds), taken

    def _tell(self, response: Response) -> Response:
        standing: Standing | None = flask.g.get("standing")
        if standing is not None:
            policy = f'"default";q={self._per_minute};w={_WINDOW_SECONDS}'
            response.headers["RateLimit-Policy"] = policy
            response.headers["RateLimit"] = f'"default";r={standing.remaining};t={standing.seconds}'
        return response
