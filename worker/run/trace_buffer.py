"""The traces of the running generations of this process: numbers new text, publishes it, and writes it every second.

One thread serves all generations. Twenty times a second it marks the new text of each generation with the next event
number of its job, and publishes it to the followers. One transaction a second writes the marked text; each row is
fenced. The thread never renews a lease.

Some streams show only stored text: their numbers must be the same after this process was killed. For the jobs that such
a stream follows, up to 64 of them, there are four transactions a second instead of one, and the first text is written
at once.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, Protocol

import structlog

from core.background import BackgroundLoop
from core.database import Database
from core.database_faults import DatabaseUnavailable
from jobs import engine
from jobs.events.index import IndexEntry
from jobs.events.live import LiveEvent, StoredThrough
from jobs.store import traces
from jobs.store.claims import Claim

_log = structlog.get_logger(__name__)

#: Between two events of one generation: there are at most 20 a second.
_TICK_SECONDS = 0.05
#: Between two writes of the text of watched jobs.
_WATCHED_SECONDS = 0.25
#: Writes take at most one part in so many of the time of this thread, which also publishes.
_WATCHED_SHARE = 5
#: The most jobs whose text is written more often.
_MOST_WATCHED = 64


class EventSink(Protocol):
    """Publishes live events, as :class:`jobs.events.live.Publisher` does."""

    def record(self, events: Sequence[LiveEvent]) -> None:
        """Publish ``events`` in their order, without waiting."""

    def announce(self, stored: Sequence[StoredThrough]) -> None:
        """Publish how far the events of jobs are stored, without waiting."""

    def watched(self) -> Collection[uuid.UUID]:
        """Return the announced jobs whose stored events a stream follows."""


class TraceBuffer:
    """The text of one running generation: its reader adds text, the trace writer marks and takes what is new.

    Args:
        claim: the job.
        generation: the number of the generation.
        started_at: its start by the database's clock; the times of its marks are measured from it.
    """

    def __init__(self, claim: Claim, generation: int, *, started_at: datetime) -> None:
        self.claim = claim
        self.generation = generation
        self.first_token_at: datetime | None = None
        self._started_ms = round(started_at.timestamp() * 1000)
        self._begun = time.monotonic()
        self._lock = threading.Lock()
        self._parts: list[str] = []
        self._marked = 0
        #: The tokens of the marked text.
        self._marked_tokens = 0
        self._marks: list[IndexEntry] = []
        #: The marked texts that have not been taken yet.
        self._untaken: list[str] = []
        self._taken = 0
        self._position = 0
        self._tokens = 0

    def add(self, text: str, tokens: int | None = None) -> None:
        """Add a chunk's text; ``tokens`` is the engine's count of all tokens so far, or None without one."""
        with self._lock:
            self._parts.append(text)
            self._tokens = engine.counted(self._tokens, text, tokens)

    @property
    def tokens(self) -> int:
        """The tokens so far, by the engine's count if it has one."""
        return self._tokens

    def text(self) -> str:
        """Return all text so far."""
        with self._lock:
            return "".join(self._parts)

    @property
    def marked(self) -> int:
        """The number of marks so far."""
        return len(self._marks)

    @property
    def event_index(self) -> tuple[IndexEntry, ...]:
        """All marks so far."""
        with self._lock:
            return tuple(self._marks)

    def mark(self, finding: dict[str, Any] | None = None) -> LiveEvent | None:
        """Mark the text since the last mark, or ``finding`` at this place.

        If no event number is left, the text waits for its mark. Only one thread at a time may do this for a claim.

        Returns:
            The event to publish, or None without one.
        """
        numbers = self.claim.numbers
        previous = numbers.last
        with self._lock:
            chunks = [] if finding is not None else self._parts[self._marked :]
            text = "".join(chunks)
            if not text and finding is None:
                return None
            number = numbers.take()
            if number is None:
                return None
            tokens = None
            if finding is None:
                tokens = self._tokens - self._marked_tokens
                self._marked, self._marked_tokens = len(self._parts), self._tokens
            elapsed = round((time.monotonic() - self._begun) * 1000)
            mark = IndexEntry(number, len(text), self._started_ms + elapsed, finding, tokens)
            self._marks.append(mark)
            self._untaken.append(text)
        return LiveEvent(
            self.claim.job_id, self.claim.attempt, self.generation, previous, mark, text
        )

    def take(self) -> traces.TracePart | None:
        """Return the text that was marked since the last call, or None."""
        with self._lock:
            new = tuple(self._marks[self._taken :])
            if not new:
                return None
            part = traces.TracePart(
                job_id=self.claim.job_id,
                attempt=self.claim.attempt,
                generation=self.generation,
                position=self._position,
                text="".join(self._untaken),
                output_tokens=self._tokens,
                first_token_at=self.first_token_at,
                event_index=new,
            )
            self._taken = len(self._marks)
            self._untaken.clear()
            self._position += 1
            return part


class TraceWriter(BackgroundLoop):
    """Marks, publishes and writes the text of every :class:`TraceBuffer` of a process.

    Args:
        database: where traces are stored.
        publisher: publishes to the followers.
        owner: the name of this process in leases.
        flush_seconds: between two writes.
        on_lost: called with each (job, attempt) that another process owns now.
    """

    def __init__(
        self,
        database: Database,
        *,
        publisher: EventSink,
        owner: str,
        flush_seconds: float,
        on_lost: Callable[[traces.Holding], None],
    ) -> None:
        every = min(_TICK_SECONDS, flush_seconds)
        super().__init__("trace-writer", self._tick_or_flush, every=every, first=every)
        self._database = database
        self._publisher = publisher
        self._owner = owner
        self._flush_seconds = flush_seconds
        self._on_lost = on_lost
        self._lock = threading.Lock()
        #: Held while text is marked and published, so that a job's events are published in the order of their numbers.
        self._marking = threading.Lock()
        self._buffers: set[TraceBuffer] = set()
        #: Ended generations whose last text is not written yet; others of their attempt may go on, with higher numbers.
        self._closed: list[TraceBuffer] = []
        #: Parts whose write failed; they are written again unchanged, so a lost reply does no harm.
        self._pending: list[traces.TracePart] = []
        self._flushed_at = self._watched_at = time.monotonic()
        self._watched_seconds = _WATCHED_SECONDS

    def open(self, claim: Claim, *, generation: int, started_at: datetime) -> TraceBuffer:
        """Start to record a generation that started at ``started_at`` by the database's clock."""
        buffer = TraceBuffer(claim, generation, started_at=started_at)
        with self._lock:
            self._buffers.add(buffer)
        return buffer

    def close(self, buffer: TraceBuffer) -> None:
        """Stop recording a generation and mark its last text; its whole text is written with the end of the attempt."""
        self._mark([buffer])
        with self._lock:
            self._buffers.discard(buffer)
            self._closed.append(buffer)

    def skip_to(self, claim: Claim, number: int) -> None:
        """Give the next event of a claim a higher number than ``number``."""
        with self._marking:
            claim.numbers.pass_by(number)

    def add_finding(self, buffer: TraceBuffer, finding: dict[str, Any]) -> None:
        """Publish a finding after the text so far, as an event of the generation."""
        self._mark([buffer])
        with self._marking:
            event = buffer.mark(finding)
            self._publisher.record([event] if event else [])

    def buffers(self) -> list[TraceBuffer]:
        """Return the buffers of the running generations."""
        with self._lock:
            return list(self._buffers)

    def tick(self) -> None:
        """Mark and publish the new text of every generation."""
        self._mark(self.buffers())

    def flush(self) -> None:
        """Mark and publish the new text of every generation, and write what is marked in one transaction.

        Parts whose write failed are written first and alone; meanwhile the buffers gather text. So an outage of any
        length leaves one part for each generation, not thousands that would delay the renewal of leases.
        """
        self._flush(None)

    def flush_watched(self) -> bool:
        """Write the text of the watched jobs; return False without one, or if an earlier write has failed."""
        watched = self._publisher.watched()
        running = {buffer.claim.job_id for buffer in self.buffers()}
        jobs = frozenset(sorted(running.intersection(watched))[:_MOST_WATCHED])
        if not jobs or self._pending:
            return False
        self._flush(jobs)
        return True

    def _flush(self, jobs: Collection[uuid.UUID] | None) -> None:
        """Write what is marked of ``jobs``; None: of all."""
        with self._marking:
            self._record(self.buffers())
            self._pending = parts = self._pending or self._take(jobs)
            buffers = [one for one in self.buffers() if jobs is None or one.claim.job_id in jobs]
            numbers = {
                (buffer.claim.job_id, buffer.claim.attempt): buffer.claim.numbers
                for buffer in buffers
            }
            wanted = {key: end for key, held in numbers.items() if (end := held.wanted())}
        if not parts and not wanted:
            return
        try:
            lost = traces.append(self._database, owner=self._owner, pieces=parts, reserve=wanted)
        except DatabaseUnavailable:
            _log.warning("traces_not_written", parts=len(parts))
            return
        self._pending = []
        self._publisher.announce(_stored(part for part in parts if _holding(part) not in lost))
        with self._marking:
            for key in wanted.keys() - lost:
                numbers[key].extend(wanted[key])
        still_open = {(buffer.claim.job_id, buffer.claim.attempt) for buffer in self.buffers()}
        for holding in lost & still_open:
            self._on_lost(holding)

    def _take(self, jobs: Collection[uuid.UUID] | None) -> list[traces.TracePart]:
        """Return the marked text of ``jobs`` that is not written yet, of ended generations too.

        It is that of all generations of a job: a lower number of a job is never stored later than a higher one.
        """
        with self._lock:
            buffers = [
                one
                for one in (*self._closed, *self._buffers)
                if jobs is None or one.claim.job_id in jobs
            ]
            self._closed = [
                one for one in self._closed if jobs is not None and one.claim.job_id not in jobs
            ]
        return [part for buffer in buffers if (part := buffer.take()) is not None]

    def _mark(self, buffers: list[TraceBuffer]) -> None:
        with self._marking:
            self._record(buffers)

    def _record(self, buffers: list[TraceBuffer]) -> None:
        new = [buffer for buffer in buffers if not buffer.marked]
        if events := [event for buffer in buffers if (event := buffer.mark()) is not None]:
            self._publisher.record(events)
        # Whether a job is watched shows when it is announced; its first text is not to wait for a write.
        if begun := [StoredThrough(one.claim.job_id, 0) for one in new if one.marked]:
            self._publisher.announce(begun)

    def _tick_or_flush(self) -> None:
        if time.monotonic() - self._flushed_at >= self._flush_seconds:
            self._flushed_at = self._watched_at = time.monotonic()
            self.flush()
        elif time.monotonic() - self._watched_at < self._watched_seconds:
            self.tick()
        else:
            began = time.monotonic()
            if self.flush_watched():
                self._watched_at = began
                took = time.monotonic() - began
                self._watched_seconds = max(_WATCHED_SECONDS, _WATCHED_SHARE * took)
            else:
                self.tick()


def _holding(part: traces.TracePart) -> traces.Holding:
    return part.job_id, part.attempt


def _stored(parts: Iterable[traces.TracePart]) -> list[StoredThrough]:
    """Return how far the events of each job are stored, from what has just been written."""
    through: dict[uuid.UUID, int] = {}
    for part in parts:
        number = part.event_index[-1].number if part.event_index else 0
        through[part.job_id] = max(number, through.get(part.job_id, 0))
    return [StoredThrough(job_id, number) for job_id, number in through.items()]


def readable(text: str) -> str:
    """Return ``text`` without the characters that a database rejects: NUL and lone surrogates."""
    if "\x00" in text:
        text = text.replace("\x00", "\ufffd")
    if text.isascii():
        return text
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
