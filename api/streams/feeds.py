"""What is new of a followed job, for all of its followers: its latest events, or how far they are stored."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from api.streams import frames
from jobs.events.live import LiveEvent
from jobs.store.event_log import EventKind, EventPosition, JobEvent

#: Events in memory for followers that lag a little; others read SQL.
_STORED = 256
#: Live events that wait for earlier ones; beyond this number the oldest are dropped, because SQL has them.
_PENDING = 1024


@dataclass(frozen=True)
class FeedBatch:
    """The next frames for a follower.

    Attributes:
        data: frames; empty after a timeout.
        position: the number of the last event in ``data`` or before it.
        behind: whether the follower must first read from SQL the events before the feed.
        over: whether the job has no further events.
    """

    data: bytes
    position: int
    behind: bool = False
    over: bool = False


class _Followed:
    """What the followers of one job share. The tail thread writes; followers read."""

    def __init__(self) -> None:
        self.followers = 0
        self._changed = threading.Condition()
        self._over = False

    def end(self) -> None:
        """End all followers."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def wake(self) -> None:
        """Make all waiting followers check whether they have ended."""
        with self._changed:
            self._changed.notify_all()


class Feed(_Followed):
    """The last events of one job, without gaps."""

    def __init__(self) -> None:
        super().__init__()
        self._events: deque[tuple[int, bytes]] = deque()
        #: The feed starts after this number; None: the tail has not read the job yet.
        self._base: int | None = None
        self._last = 0
        #: The last result: a position, the next one, and the frames between them.
        self._cached = (0, 0, b"")
        self._pending: deque[LiveEvent] = deque(maxlen=_PENDING)

    @property
    def last(self) -> int:
        """The number of the last event."""
        return self._last

    def stale(self, position: EventPosition) -> bool:
        """Whether SQL has more events than this feed. The first call starts the feed at the last event in SQL."""
        with self._changed:
            if self._base is None:
                self._base = self._last = position.number
                self._over = position.finished
                self._add_pending()
                self._changed.notify_all()
        return position.number > self._last

    def add_live(self, events: list[LiveEvent]) -> None:
        """Add live events. An event that does not follow directly on the last one waits for SQL."""
        with self._changed:
            self._pending.extend(events)
            if self._base is not None:
                self._add_pending()
                self._changed.notify_all()

    def add_read(self, events: list[tuple[int, bytes]], *, through: int, over: bool) -> None:
        """Add numbered frames from SQL, complete up to the number ``through``."""
        with self._changed:
            for number, data in events:
                self._append(number, data)
            self._last = max(self._last, through)
            self._over = over
            self._add_pending()
            self._changed.notify_all()

    def end(self) -> None:
        """End all followers."""
        with self._changed:
            self._base = self._base or 0
            super().end()

    def take(
        self, position: int, *, seconds: float, ended: Callable[[], bool] = lambda: False
    ) -> FeedBatch:
        """Return the frames beyond ``position``, waiting up to ``seconds`` for one.

        After :meth:`wake`, it also returns if ``ended`` is true.
        """
        with self._changed:
            self._changed.wait_for(lambda: ended() or self._has(position), timeout=seconds)
            if self._base is None:
                return FeedBatch(b"", position)
            if position < self._base:
                return FeedBatch(b"", position, behind=True)
            data = self._beyond(position)
            position = max(position, self._last)
            return FeedBatch(data, position, over=self._over)

    def pause(self, seconds: float) -> None:
        """Wait for a change, at most ``seconds``."""
        with self._changed:
            self._changed.wait(seconds)

    def _has(self, position: int) -> bool:
        return self._base is not None and (
            self._over or position < self._base or position < self._last
        )

    def _beyond(self, position: int) -> bytes:
        """Return the frames beyond ``position``. Most followers are at the same one, so the last result is cached."""
        if self._cached[:2] != (position, self._last):
            new: list[bytes] = []
            for number, data in reversed(self._events):
                if number <= position:
                    break
                new.append(data)
            self._cached = (position, self._last, b"".join(reversed(new)))
        return self._cached[2]

    def _append(self, number: int, data: bytes) -> None:
        if number <= self._last:
            return
        self._events.append((number, data))
        self._last = number
        if len(self._events) > _STORED:
            self._base, _ = self._events.popleft()

    def _add_pending(self) -> None:
        """Append the pending events that follow on the last one, and drop those that are known."""
        waiting = sorted(self._pending, key=lambda event: event.mark.number)
        self._pending.clear()
        for event in waiting:
            if event.previous <= self._last < event.mark.number:
                self._append(event.mark.number, frames.frame(_job_event(event)))
            elif event.mark.number > self._last:
                self._pending.append(event)


class StoredFeed(_Followed):
    """How far the events of one job are stored."""

    def __init__(self) -> None:
        super().__init__()
        self._number = 0

    @property
    def over(self) -> bool:
        """Whether the job does not exist any more, or the service stops."""
        return self._over

    def advance(self, number: int) -> None:
        """Wake the followers if the events are stored up to a higher number than before."""
        with self._changed:
            if number > self._number:
                self._number = number
                self._changed.notify_all()

    def wait(self, number: int, *, seconds: float, ended: Callable[[], bool]) -> int:
        """Wait up to ``seconds`` until events beyond ``number`` are stored; return the number of the last one.

        After :meth:`wake`, it also returns if ``ended`` is true.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: ended() or self._over or self._number > number, timeout=seconds
            )
            return self._number


def _job_event(live: LiveEvent) -> JobEvent:
    finding = live.mark.finding
    return JobEvent(
        live.mark.number,
        EventKind.DELTA if finding is None else EventKind.FINDING,
        live.mark.at,
        attempt=live.attempt,
        generation=live.generation,
        delta=live.delta if finding is None else None,
        finding=finding,
    )
