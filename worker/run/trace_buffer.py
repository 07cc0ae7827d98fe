"""Keeps the running traces of this process: numbers what is new, tells it at once, and writes it once a second.

One thread for all streams. Twenty times a second it puts a mark behind what has come in of each stream, under
the next number of its job, and tells it to those who follow; one transaction a second writes what has been
marked, each row fenced. It never renews a lease.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Protocol

import structlog

from core.background import BackgroundLoop
from core.database import Database, DatabaseUnavailable
from jobs.events.index import IndexEntry
from jobs.events.live import LiveEvent
from jobs.store import traces
from jobs.store.claims import Claim

_log = structlog.get_logger(__name__)

#: Between two events of one stream: there are at most 20 a second.
_TICK_SECONDS = 0.05


class Publisher(Protocol):
    """Tells those who follow, as :class:`jobs.events.live.Publisher` does."""

    def record(self, events: Sequence[LiveEvent]) -> None:
        """Tell ``events`` in their order, without waiting."""


class TraceBuffer:
    """The text of one running stream: the reader adds, the recorder marks and takes what is new.

    Args:
        claim: whose stream it is.
        generation: which one.
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
        self._marks: list[IndexEntry] = []
        #: Of what is marked, the texts that have not been taken yet.
        self._untaken: list[str] = []
        self._taken = 0
        self._position = 0
        self._tokens = 0

    def add(self, text: str) -> None:
        """Add a chunk's text."""
        with self._lock:
            self._parts.append(text)
            self._tokens += 1

    @property
    def tokens(self) -> int:
        """Chunks so far, which is tokens so far until the engine's bill says it exactly."""
        return self._tokens

    def text(self) -> str:
        """Return all text so far."""
        with self._lock:
            return "".join(self._parts)

    @property
    def event_index(self) -> tuple[IndexEntry, ...]:
        """All marks so far."""
        with self._lock:
            return tuple(self._marks)

    def mark(self, finding: dict[str, Any] | None = None) -> LiveEvent | None:
        """Mark what came since the last mark, or ``finding`` at this place; None when there is nothing to tell.

        When no number is left the text waits for its mark. One thread at a time may do this for a claim.
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
            if finding is None:
                self._marked = len(self._parts)
            elapsed = round((time.monotonic() - self._begun) * 1000)
            tokens = len(chunks) if finding is None else None
            mark = IndexEntry(number, len(text), self._started_ms + elapsed, finding, tokens)
            self._marks.append(mark)
            self._untaken.append(text)
        return LiveEvent(
            self.claim.job_id, self.claim.attempt, self.generation, previous, mark, text
        )

    def take(self) -> traces.TracePart | None:
        """Return what was marked since the last call, or None."""
        with self._lock:
            new = tuple(self._marks[self._taken :])
            if not new:
                return None
            piece = traces.TracePart(
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
            return piece


class TraceWriter(BackgroundLoop):
    """Marks and flushes all :class:`TraceBuffer` streams of a process.

    Args:
        database: where traces are kept.
        publisher: tells those who follow.
        owner: this process's name in leases.
        flush_seconds: between two writes.
        on_lost: told of each (job, attempt) that turned out to be somebody else's.
    """

    def __init__(
        self,
        database: Database,
        *,
        publisher: Publisher,
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
        #: Held while marks are made and told, so that the numbers of a job are told in their order.
        self._marking = threading.Lock()
        self._lives: set[TraceBuffer] = set()
        #: Ended streams whose rest is not written yet: others of their attempt may go on, with higher numbers.
        self._closed: list[TraceBuffer] = []
        #: Pieces whose write failed; they are written again unchanged, so a lost reply does no harm.
        self._pending: list[traces.TracePart] = []
        self._flushed_at = time.monotonic()

    def open(self, claim: Claim, *, generation: int, started_at: datetime) -> TraceBuffer:
        """Begin to record a stream that started at ``started_at`` by the database's clock."""
        live = TraceBuffer(claim, generation, started_at=started_at)
        with self._lock:
            self._lives.add(live)
        return live

    def close(self, live: TraceBuffer) -> None:
        """Stop recording a stream and mark its rest; its end is written whole, with the attempt's."""
        self._mark([live])
        with self._lock:
            self._lives.discard(live)
            self._closed.append(live)

    def pass_by(self, claim: Claim, number: int) -> None:
        """Tell what comes of a claim's streams under later numbers than ``number``."""
        with self._marking:
            claim.numbers.pass_by(number)

    def find(self, live: TraceBuffer, finding: dict[str, Any]) -> None:
        """Tell a finding behind the text so far, as an event of the stream."""
        self._mark([live])
        with self._marking:
            reported = live.mark(finding)
            self._publisher.record([reported] if reported else [])

    def lives(self) -> list[TraceBuffer]:
        """Return the streams that are being recorded."""
        with self._lock:
            return list(self._lives)

    def tick(self) -> None:
        """Mark what is new of all streams, and tell it."""
        self._mark(self.lives())

    def flush(self) -> None:
        """Mark what is new of all streams and write what is marked, in one transaction.

        What could not be written goes first and alone; meanwhile text gathers in the streams. So an outage
        of any length leaves one piece a stream to make up for, not thousands that would hold up renewals.
        """
        with self._marking:
            lives = self.lives()
            self._record(lives)
            self._pending = pieces = self._pending or self._take()
            numbers = {
                (live.claim.job_id, live.claim.attempt): live.claim.numbers for live in lives
            }
            wanted = {key: end for key, held in numbers.items() if (end := held.wanted())}
        if not pieces and not wanted:
            return
        try:
            lost = traces.append(self._database, owner=self._owner, pieces=pieces, reserve=wanted)
        except DatabaseUnavailable:
            _log.warning("traces_not_written", pieces=len(pieces))
            return
        self._pending = []
        with self._marking:
            for key in wanted.keys() - lost:
                numbers[key].extend(wanted[key])
        still_open = {(live.claim.job_id, live.claim.attempt) for live in self.lives()}
        for holding in lost & still_open:
            self._on_lost(holding)

    def _take(self) -> list[traces.TracePart]:
        """Return what is marked and not yet written, of the ended streams too."""
        with self._lock:
            lives = [*self._closed, *self._lives]
            self._closed.clear()
        return [piece for live in lives if (piece := live.take()) is not None]

    def _mark(self, lives: list[TraceBuffer]) -> None:
        with self._marking:
            self._record(lives)

    def _record(self, lives: list[TraceBuffer]) -> None:
        if reported := [event for live in lives if (event := live.mark()) is not None]:
            self._publisher.record(reported)

    def _tick_or_flush(self) -> None:
        if time.monotonic() - self._flushed_at >= self._flush_seconds:
            self._flushed_at = time.monotonic()
            self.flush()
        else:
            self.tick()


def readable(text: str) -> str:
    """Return ``text`` without what a database refuses to keep: NUL and lone surrogates."""
    if "\x00" in text:
        text = text.replace("\x00", "\ufffd")
    if text.isascii():
        return text
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
