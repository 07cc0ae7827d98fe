"""Writes the running traces of this process: one thread, one transaction a second for all streams, each row fenced."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime

import structlog

from jobs.database import Database, Unavailable
from jobs.store import traces
from jobs.store.claims import Claim

_log = structlog.get_logger(__name__)


class Live:
    """The text of one running stream: the reader adds, the recorder takes what is new."""

    def __init__(self, claim: Claim, sample: int) -> None:
        self.claim = claim
        self.sample = sample
        self.first_token_at: datetime | None = None
        self._lock = threading.Lock()
        self._parts: list[str] = []
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

    def take(self) -> traces.Piece | None:
        """Return what came since the last call, or None."""
        with self._lock:
            new = self._parts[self._taken :]
            if not new:
                return None
            piece = traces.Piece(
                job_id=self.claim.job_id,
                attempt=self.claim.attempt,
                sample=self.sample,
                position=self._position,
                text="".join(new),
                output_tokens=self._tokens,
                first_token_at=self.first_token_at,
            )
            self._taken = len(self._parts)
            self._position += 1
            return piece


class Recorder:
    """Flushes all :class:`Live` streams of a process. It never renews a lease.

    Args:
        database: where traces are kept.
        owner: this process's name in leases.
        flush_seconds: between two writes.
        on_lost: told of each (job, attempt) that turned out to be somebody else's.
    """

    def __init__(
        self,
        database: Database,
        *,
        owner: str,
        flush_seconds: float,
        on_lost: Callable[[traces.Holding], None],
    ) -> None:
        self._database = database
        self._owner = owner
        self._flush_seconds = flush_seconds
        self._on_lost = on_lost
        self._lock = threading.Lock()
        self._lives: set[Live] = set()
        #: Pieces whose write failed; they are written again unchanged, so a lost reply does no harm.
        self._pending: list[traces.Piece] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread; the streams have ended."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def open(self, claim: Claim, *, sample: int) -> Live:
        """Begin to record a stream."""
        live = Live(claim, sample)
        with self._lock:
            self._lives.add(live)
        return live

    def close(self, live: Live) -> None:
        """Stop recording a stream: its end is written whole, with the job's."""
        with self._lock:
            self._lives.discard(live)

    def lives(self) -> list[Live]:
        """Return the streams that are being recorded."""
        with self._lock:
            return list(self._lives)

    def flush(self) -> None:
        """Write what is new of all streams in one transaction.

        What could not be written goes first and alone; meanwhile text gathers in the streams. So an outage
        of any length leaves one piece a stream to make up for, not thousands that would hold up renewals.
        """
        lives = self.lives()
        open_now = {(live.claim.job_id, live.claim.attempt, live.sample) for live in lives}
        pieces = [
            piece
            for piece in self._pending
            if (piece.job_id, piece.attempt, piece.sample) in open_now
        ]
        pieces = pieces or [piece for live in lives if (piece := live.take()) is not None]
        self._pending = pieces
        if not pieces:
            return
        try:
            lost = traces.append(self._database, owner=self._owner, pieces=pieces)
        except Unavailable:
            _log.warning("traces_not_written", pieces=len(pieces))
            return
        self._pending = []
        still_open = {(live.claim.job_id, live.claim.attempt) for live in self.lives()}
        for holding in lost & still_open:
            self._on_lost(holding)

    def _run(self) -> None:
        while not self._stop.wait(self._flush_seconds):
            self.flush()


def readable(text: str) -> str:
    """Return ``text`` without what a database refuses to keep: NUL and lone surrogates."""
    if "\x00" in text:
        text = text.replace("\x00", "\ufffd")
    if text.isascii():
        return text
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
