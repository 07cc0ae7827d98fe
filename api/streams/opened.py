"""What every open stream has: a place among the open requests, an end, and the watch of its key."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from typing import Generic, TypeVar

import structlog

from api.revocation import RevocationWatch
from api.streams.feeds import Feed, StoredFeed
from core import ids
from core.closing import Closing

F = TypeVar("F", Feed, StoredFeed)

_log = structlog.get_logger(__name__)


class OpenStream(Closing, Generic[F]):
    """A follower of a job. Closing frees its place, whether it was read or not.

    Args:
        job_id: the job.
        attach: begins to follow the job.
        detach: ends that.
        release: called once, when the stream is closed.
    """

    def __init__(
        self,
        job_id: uuid.UUID,
        *,
        attach: Callable[[uuid.UUID], F],
        detach: Callable[[uuid.UUID, F], None],
        release: Callable[[], None],
    ) -> None:
        self.job_id = job_id
        #: Watches the revocation of its key; set by :class:`api.streams.follow.Streams`.
        self.watch: RevocationWatch | None = None
        self._attach: Callable[[uuid.UUID], F] = attach
        self._detach: Callable[[uuid.UUID, F], None] = detach
        self._release = release
        self._feed: F | None = None
        self._began = time.monotonic()
        self._closed = False
        self._ended = threading.Event()

    def _follow(self) -> F:
        """Begin to follow the job, and return its feed."""
        self._feed = self._attach(self.job_id)
        return self._feed

    def end(self) -> None:
        """End the stream. Any thread may call this."""
        self._ended.set()
        if self._feed is not None:
            self._feed.wake()

    def close(self) -> None:
        """Release everything. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self.watch is not None:
            self.watch.close()
        if self._feed is not None:
            self._detach(self.job_id, self._feed)
        self._release()
        _log.info(
            "stream_closed",
            job_id=ids.show("job", self.job_id),
            seconds=round(time.monotonic() - self._began, 1),
        )
