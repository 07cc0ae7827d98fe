"""What has just happened to a job that somebody follows: one feed for all who do, kept short."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from api.streams import frames
from jobs.events.live import LiveEvent
from jobs.store.event_log import EventKind, EventPosition, JobEvent

#: Events that are kept for those who are a little late; who is later than that reads SQL.
_STORED = 256
#: Events that wait for what lies before them; of more the oldest are left to SQL.
_PENDING = 1024


@dataclass(frozen=True)
class FeedBatch:
    """What a follower got.

    Attributes:
        data: frames, empty when its time was over.
        position: the number of the last event that it knows now.
        behind: it has to read in SQL what lies before the feed.
        over: nothing will ever come.
    """

    data: bytes
    position: int
    behind: bool = False
    over: bool = False


class Feed:
    """The last events of one job, without a gap. The tail thread writes, followers take."""

    def __init__(self) -> None:
        self.followers = 0
        self._changed = threading.Condition()
        self._events: deque[tuple[int, bytes]] = deque()
        #: What lies before or at this number is not here; None: nobody has looked at the job yet.
        self._base: int | None = None
        self._last = 0
        self._over = False
        #: From which position to which, and the frames between them.
        self._answer = (0, 0, b"")
        self._pending: deque[LiveEvent] = deque(maxlen=_PENDING)

    @property
    def last(self) -> int:
        """The number of the last event."""
        return self._last

    def stale(self, standing: EventPosition) -> bool:
        """Whether SQL has more than this feed. At the first look the feed begins where SQL ends."""
        with self._changed:
            if self._base is None:
                self._base = self._last = standing.number
                self._over = standing.finished
                self._wake_pending()
                self._changed.notify_all()
        return standing.number > self._last

    def hear(self, events: list[LiveEvent]) -> None:
        """Add what came by the hot path. What does not follow on what is here waits for SQL."""
        with self._changed:
            self._pending.extend(events)
            if self._base is not None:
                self._wake_pending()
                self._changed.notify_all()

    def read(self, reported: list[tuple[int, bytes]], *, through: int, over: bool) -> None:
        """Add frames with their numbers that were read from SQL, all up to the number ``through``."""
        with self._changed:
            for number, data in reported:
                self._record(number, data)
            self._last = max(self._last, through)
            self._over = over
            self._wake_pending()
            self._changed.notify_all()

    def end(self) -> None:
        """Let all followers go."""
        with self._changed:
            self._over = True
            self._base = self._base or 0
            self._changed.notify_all()

    def take(
        self, position: int, *, seconds: float, ended: Callable[[], bool] = lambda: False
    ) -> FeedBatch:
        """Return what lies beyond ``position``, as soon as there is something, at most after ``seconds``.

        After :meth:`wake` it returns also when ``ended`` says so.
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

    def wake(self) -> None:
        """Let all who take look again whether they have ended."""
        with self._changed:
            self._changed.notify_all()

    def pause(self, seconds: float) -> None:
        """Wait until something changes, at most ``seconds``."""
        with self._changed:
            self._changed.wait(seconds)

    def _has(self, position: int) -> bool:
        return self._base is not None and (
            self._over or position < self._base or position < self._last
        )

    def _beyond(self, position: int) -> bytes:
        """Return the frames beyond ``position``; most followers are at the same one, so the last answer is kept."""
        if self._answer[:2] != (position, self._last):
            new: list[bytes] = []
            for number, data in reversed(self._events):
                if number <= position:
                    break
                new.append(data)
            self._answer = (position, self._last, b"".join(reversed(new)))
        return self._answer[2]

    def _record(self, number: int, data: bytes) -> None:
        if number <= self._last:
            return
        self._events.append((number, data))
        self._last = number
        if len(self._events) > _STORED:
            self._base, _ = self._events.popleft()

    def _wake_pending(self) -> None:
        """Tell what follows on what is here; what lies before it is known already."""
        waiting = sorted(self._pending, key=lambda reported: reported.mark.number)
        self._pending.clear()
        for reported in waiting:
            if reported.previous <= self._last < reported.mark.number:
                self._record(reported.mark.number, frames.frame(_event(reported)))
            elif reported.mark.number > self._last:
                self._pending.append(reported)


def _event(reported: LiveEvent) -> JobEvent:
    finding = reported.mark.finding
    return JobEvent(
        reported.mark.number,
        EventKind.DELTA if finding is None else EventKind.FINDING,
        reported.mark.at,
        attempt=reported.attempt,
        generation=reported.generation,
        delta=reported.delta if finding is None else None,
        finding=finding,
    )
