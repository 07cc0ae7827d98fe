"""Streams that show only stored events: they wait until more are stored, and read them."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Final

from api.serving import current
from api.streams.feeds import StoredFeed
from api.streams.opened import OpenStream
from api.streams.tail import Tail

#: The wait before another read after one that failed.
_PAUSE_SECONDS: Final = 0.25


class StoredStream(OpenStream[StoredFeed]):
    """The place of one follower of stored events.

    Args:
        tail: knows how far events are stored.
        job_id: the job.
        release: called once, when the stream is closed.
        silence_seconds: the longest wait.
    """

    def __init__(
        self,
        tail: Tail,
        job_id: uuid.UUID,
        *,
        release: Callable[[], None],
        silence_seconds: float,
    ) -> None:
        super().__init__(
            job_id, attach=tail.attach_stored, detach=tail.detach_stored, release=release
        )
        self._silence_seconds = silence_seconds
        self._seen = 0
        #: Called when the client hangs up.
        self.hung_up: Callable[[], None] = self.end

    @property
    def ended(self) -> bool:
        """Whether the follower must stop: its client or its job is gone, its key is revoked, or the service stops."""
        return self._ended.is_set() or (self._feed is not None and self._feed.over)

    def begin(self) -> None:
        """Begin to follow. What is stored from now on ends a wait."""
        self._follow()

    def wait(self, number: int) -> None:
        """Wait until events beyond ``number`` may be stored, the stream ends, or the silence is too long."""
        assert self._feed is not None  # noqa: S101 - it has begun
        # Frees the place of the request among the threads: the stream mostly waits.
        current.hold(self.hung_up)
        # A note of more than can be read must not make the follower read again and again.
        self._seen = max(self._seen, number)
        stored = self._feed.wait(
            self._seen, seconds=self._silence_seconds, ended=self._ended.is_set
        )
        self._seen = max(self._seen, stored)

    def pause(self) -> None:
        """Wait a moment before events are read again, because a read has failed."""
        current.hold(self.hung_up)
        self._ended.wait(_PAUSE_SECONDS)
