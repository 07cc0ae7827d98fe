"""Limits the requests of a key per minute and the size of their bodies, and reports the limit in every response.

A token bucket holds one minute's requests and refills continuously, so bursts pass and floods are throttled.
All API processes share the buckets through Redis. While Redis is unavailable, each process continues on its own from
the last known state. The headers are those of draft-ietf-httpapi-ratelimit-headers-10.
"""

import math
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import flask
from flask import Response

from core import errors
from core.rate_limits import RateLimits
from jobs.store.accounts import Principal

_WINDOW_SECONDS = 60


@dataclass(frozen=True)
class RateLimitState:
    """The state of a key's bucket: the requests it may send now, and the seconds until it has one more."""

    per_minute: int
    remaining: int
    seconds: int


def current_state() -> RateLimitState:
    """Return the state of the current request's key."""
    state: RateLimitState = flask.g.rate_limit
    return state


class Limiter:
    """Counts the requests of each key.

    Args:
        per_minute: the limit of a key without a limit of its own.
        shared: the buckets of all processes; None: this process has its own.
        timer: a monotonic clock, in seconds.
    """

    def __init__(
        self,
        *,
        per_minute: int,
        shared: RateLimits | None = None,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_minute = per_minute
        self._shared = shared
        self._timer = timer
        self._lock = threading.Lock()
        #: The content of each bucket, and its time. Only valid keys have one, so there are few.
        self._buckets: dict[uuid.UUID, tuple[float, float]] = {}

    def install(self, app: flask.Flask) -> None:
        """Add the rate limit headers to every response to a valid key."""
        app.after_request(self._add_headers)

    def count(self, principal: Principal) -> None:
        """Count the current request, and apply the key's own limit to its body.

        Raises:
            core.errors.RateLimitExceeded: the bucket of the key is empty.
        """
        state, taken = self.take(principal.key_id, per_minute=principal.requests_per_minute)
        flask.g.rate_limit = state
        if not taken:
            raise errors.RateLimitExceeded(
                f"This key may send at most {state.per_minute} requests a minute.",
                retry_after=state.seconds,
            )
        if principal.max_body_mb is not None:
            limit = flask.request.max_content_length
            own = principal.max_body_mb * 2**20
            flask.request.max_content_length = own if limit is None else min(own, limit)

    def take(
        self, key_id: uuid.UUID, *, per_minute: int | None = None
    ) -> tuple[RateLimitState, bool]:
        """Take one request from the key's bucket; return the new state, and whether there was one."""
        per_minute = per_minute or self._per_minute
        shared = self._shared.take(key_id, per_minute=per_minute) if self._shared else None
        with self._lock:
            now = self._timer()
            if shared is None:
                left, since = self._buckets.get(key_id, (float(per_minute), now))
                left += (now - since) * per_minute / _WINDOW_SECONDS
                left = min(left, float(per_minute))
                taken = left >= 1
                left -= taken
            else:
                left, taken = shared
            self._buckets[key_id] = (left, now)
        missing = 1 - left % 1
        seconds = math.ceil(missing * _WINDOW_SECONDS / per_minute)
        return RateLimitState(per_minute, remaining=int(left), seconds=seconds), taken

    def _add_headers(self, response: Response) -> Response:
        state: RateLimitState | None = flask.g.get("rate_limit")
        if state is not None:
            policy = f'"default";q={state.per_minute};w={_WINDOW_SECONDS}'
            response.headers["RateLimit-Policy"] = policy
            response.headers["RateLimit"] = f'"default";r={state.remaining};t={state.seconds}'
        return response
