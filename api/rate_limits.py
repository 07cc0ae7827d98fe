"""What a key may send: so many requests a minute, so large ones, and what every answer tells of it.

A bucket holds one minute's requests and is filled all the time, so a burst is fine and a flood is evened out.
All API processes take from the same buckets, over Redis. While that is away each goes on by itself from what it
knew last. The headers are those of draft-ietf-httpapi-ratelimit-headers-10.
"""

from __future__ import annotations

import math
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import flask
from flask import Response

from core import errors
from jobs.store.accounts import Principal

_WINDOW_SECONDS = 60


class SharedLimits(Protocol):
    """The buckets of all processes, as :class:`core.rate_limits.RateLimits` keeps them."""

    def take(self, key_id: uuid.UUID, *, per_minute: int) -> tuple[float, bool] | None:
        """Take a request out; return what is left and whether there was one, or None when nobody knows."""

    def close(self) -> None:
        """Let go of them."""


@dataclass(frozen=True)
class RateLimitState:
    """What a key may still send: so many requests at once, and one more in so many seconds."""

    per_minute: int
    remaining: int
    seconds: int


def standing() -> RateLimitState:
    """Return what the key of the current request may still send."""
    found: RateLimitState = flask.g.standing
    return found


class Limiter:
    """Counts requests by their keys.

    Args:
        per_minute: requests of a key that has no limit of its own.
        shared: the buckets of all processes; by default this process is the only one.
        timer: seconds, by any clock that never goes back.
    """

    def __init__(
        self,
        *,
        per_minute: int,
        shared: SharedLimits | None = None,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_minute = per_minute
        self._shared = shared
        self._timer = timer
        self._lock = threading.Lock()
        #: What was in each bucket, and when. Only known keys come here, so there are few.
        self._buckets: dict[uuid.UUID, tuple[float, float]] = {}

    def install(self, app: flask.Flask) -> None:
        """Have every answer to a known key tell where it stands."""
        app.after_request(self._record)

    def count(self, principal: Principal) -> None:
        """Count the current request, and let its body be as large as the key's may be.

        Raises:
            core.errors.RateLimitExceeded: the key has none left.
        """
        standing, taken = self.take(principal.key_id, per_minute=principal.requests_per_minute)
        flask.g.standing = standing
        if not taken:
            raise errors.RateLimitExceeded(
                f"This key may send {standing.per_minute} requests a minute.",
                retry_after=standing.seconds,
            )
        if principal.max_body_mb is not None:
            most = flask.request.max_content_length
            own = principal.max_body_mb * 2**20
            flask.request.max_content_length = own if most is None else min(own, most)

    def take(
        self, key_id: uuid.UUID, *, per_minute: int | None = None
    ) -> tuple[RateLimitState, bool]:
        """Take a request out of the key's bucket; return what is left, and whether there was one."""
        per_minute = per_minute or self._per_minute
        reported = self._shared.take(key_id, per_minute=per_minute) if self._shared else None
        with self._lock:
            now = self._timer()
            if reported is None:
                left, since = self._buckets.get(key_id, (float(per_minute), now))
                left += (now - since) * per_minute / _WINDOW_SECONDS
                left = min(left, float(per_minute))
                taken = left >= 1
                left -= taken
            else:
                left, taken = reported
            self._buckets[key_id] = (left, now)
        missing = 1 - left % 1
        seconds = math.ceil(missing * _WINDOW_SECONDS / per_minute)
        return RateLimitState(per_minute, remaining=int(left), seconds=seconds), taken

    def _record(self, response: Response) -> Response:
        standing: RateLimitState | None = flask.g.get("standing")
        if standing is not None:
            policy = f'"default";q={standing.per_minute};w={_WINDOW_SECONDS}'
            response.headers["RateLimit-Policy"] = policy
            response.headers["RateLimit"] = f'"default";r={standing.remaining};t={standing.seconds}'
        return response
