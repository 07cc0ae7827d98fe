"""Stand-ins for what the product talks to, told apart from it only by what they remember."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from jobs.events.live import LiveEvent, StoredThrough


class RecordingWakeup:
    """Counts wakeups instead of sending them; ``lying`` of them wait in Redis, which can be away."""

    def __init__(self, *, redis: bool = True, lying: int | None = 0) -> None:
        self.rung = 0
        #: The arguments of each call that asked for some.
        self.calls: list[int] = []
        self.redis = redis
        self.lying = lying
        self.closed = False

    def notify(self, times: int = 1) -> None:
        """Count."""
        if times > 0:
            self.rung += times
            self.calls.append(times)

    def waiting(self) -> int | None:
        """Return how many wait; None: Redis does not answer."""
        return self.lying

    def problem(self) -> str | None:
        """Say whether Redis is there."""
        return None if self.redis else "It does not respond."

    def close(self) -> None:
        """Remember it."""
        self.closed = True


def redis_prefix() -> str:
    """Return the prefix of keys in Redis, without a database that has it."""
    return "test:"


class RecordingPublisher:
    """A publisher that keeps what it is to tell."""

    def __init__(self) -> None:
        self.reported: list[LiveEvent] = []
        self.announced: list[StoredThrough] = []
        self.watching: set[uuid.UUID] = set()

    def record(self, events: Sequence[LiveEvent]) -> None:
        """Keep ``events``."""
        self.reported += events

    def announce(self, stored: Sequence[StoredThrough]) -> None:
        """Keep ``stored``."""
        self.announced += stored

    def watched(self) -> set[uuid.UUID]:
        """Return the jobs that a test watches."""
        return self.watching


class HandTimer:
    """A timer that stands still until somebody moves it."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        """Return the seconds."""
        return self.seconds


class NoSandbox:
    """A sandbox in which no two formulas are equal: texts are compared as texts."""

    def call(self, payload: bytes, **arguments: object) -> tuple[dict[str, Any], bytes]:
        """Say so."""
        del payload, arguments
        return {"equal": False}, b""
