"""Gives up requests that get no token although they are not in the engine's queue.

In the queue a request can wait minutes for its first token, so that limit is long. A silent request outside the queue
is stuck and holds its slot in vain. So while requests wait for their first token, the watchdog reads the
load of the engine from time to time: if fewer requests are queued than are silent, the others are stuck.

The load does not say which requests are queued. A request that has just left the queue may count as stuck in one check,
and another one in the next, so the silence of a request counts from the last first token of an earlier request.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Self

import structlog

from core import errors
from core.background import BackgroundLoop
from jobs import engine
from jobs.images.dimensions import dimensions

#: The longest time between two checks of the load, and the number of checks within the limit of silence.
_PERIOD_SECONDS, _LOOKS = 5.0, 4
#: The prefill rate of the slowest engine, by which long prompts get more time.
_PREFILL_TOKENS_PER_SECOND = 500.0
#: One visual token covers 28 x 28 pixels; an image of unknown size counts as one of the highest tier.
_PIXELS_PER_TOKEN, _MOST_IMAGE_TOKENS = 28 * 28, 8192
_CHARS_PER_TOKEN = 2

log = structlog.get_logger(__name__)


class WatchedEngine:
    """An engine under a watchdog, which gives up silent streams that are not in its queue. Thread-safe.

    Args:
        engine_: the engine.
        silent_seconds: longest wait for a first token outside the engine's queue, without the time for the prompt.
        now: a monotonic clock, in seconds.
        period_seconds: between two checks of the load; 0: only calls of :meth:`look`. Default: 5 s or less.
    """

    def __init__(
        self,
        engine_: engine.Engine,
        *,
        silent_seconds: float,
        now: Callable[[], float] = time.monotonic,
        period_seconds: float | None = None,
    ) -> None:
        self.url = engine_.url
        self._engine = engine_
        self._silent_seconds = silent_seconds
        self._now = now
        period = min(_PERIOD_SECONDS, silent_seconds / _LOOKS)
        period = period if period_seconds is None else period_seconds
        self._loop = (
            BackgroundLoop("watchdog", self.look, every=period, first=period) if period else None
        )
        self._lock = threading.Lock()
        #: Streams without a first token in the order of their start, and the number of those with one.
        self._waiting: dict[WatchedGeneration, None] = {}
        self._speaking = 0
        #: Whether several streams were unfinished at a check since which none has had a recent token.
        self._several = False
        self._window = 0
        #: The first of the latest checks that all found more silent streams than queued ones; None: the last did not.
        self._stuck_since: float | None = None
        #: The time of the last token of any stream.
        self._spoke_at: float | None = None

    def stream(self, request: engine.GenerationRequest) -> WatchedGeneration:
        """Return the stream of ``request``, which can end with :class:`core.errors.EngineSilent`."""
        return WatchedGeneration(self, self._engine.stream(request), request)

    def abort(self, rid: str) -> None:
        """Ask the engine to stop the stream ``rid``."""
        self._engine.abort(rid)

    def facts(self) -> engine.EngineFacts:
        """Return the engine's facts. Raises :class:`core.errors.EngineUnavailable`."""
        facts = self._engine.facts()
        self._window = facts.window
        return facts

    def load(self) -> engine.EngineLoad:
        """Return the engine's load. Raises :class:`core.errors.EngineUnavailable`."""
        return self._engine.load()

    def close(self) -> None:
        """Stop the watchdog and release the engine's connections."""
        if self._loop is not None:
            self._loop.request_stop()
        self._engine.close()

    def began(self, stream: WatchedGeneration) -> None:
        """Begin to watch a stream that is sent now."""
        with self._lock:
            if self._loop is not None:
                self._loop.start()
            stream.counts_from = self._now()
            self._waiting[stream] = None

    def spoke(self, stream: WatchedGeneration, chunk: engine.Chunk) -> bool:
        """Note a stream's first token or its early end; False if it has been given up."""
        with self._lock:
            if stream not in self._waiting:
                return False
            now = self._now()
            later = False
            for other in self._waiting:
                if later:
                    # The queue moves: later streams may leave it only now.
                    other.counts_from = now
                later = later or other is stream
            del self._waiting[stream]
            self._speaking += 1
            if chunk.text:
                self._spoke_at = now
            return True

    def woken(self) -> None:
        """Note a further token of a stream."""
        self._spoke_at = self._now()

    def ended(self, stream: WatchedGeneration, *, spoke: bool) -> None:
        """Note a stream's end."""
        with self._lock:
            self._waiting.pop(stream, None)
            self._speaking -= spoke

    @property
    def waiting(self) -> int:
        """The number of streams without a first token."""
        with self._lock:
            return len(self._waiting)

    @property
    def answers(self) -> bool:
        """Whether a stream had a recent token: then the engine as a whole is not stuck."""
        with self._lock:
            return self._answers

    @property
    def _answers(self) -> bool:
        lately = self._now() - self._silent_seconds / 2
        return self._spoke_at is not None and self._spoke_at > lately

    def judge(self, fault: errors.EngineSilent) -> None:
        """Note in ``fault`` whether the engine answers other streams or is silent to them too."""
        fault.answers_others = self.answers
        fault.silent_to_others = self._several and not fault.answers_others

    def look(self) -> None:
        """Check the load once, and give up streams outside the queue that are silent for too long."""
        now = self._now()
        with self._lock:
            waiting = list(self._waiting)
            several = len(waiting) + self._speaking > 1
            self._several = bool(waiting) and not self._answers and (self._several or several)
        if not waiting:
            self._stuck_since = None
            return
        load = self._load()
        stuck = load.stuck(len(waiting))
        if not stuck:
            self._stuck_since = None
            return
        if self._stuck_since is None:
            self._stuck_since = now
        before = 0.0
        for stream in waiting[:stuck]:
            waited = now - max(stream.counts_from, self._stuck_since)
            if waited < self._silent_seconds:
                # Later streams count from the same time or later.
                break
            before += stream.prefill_seconds
            if waited >= self._silent_seconds + before and self._give_up(stream, waited, load):
                before -= stream.prefill_seconds
                if load.waiting:
                    # The queued streams have their turn now, with their full time.
                    self._stuck_since = None
                    return

    def _give_up(self, stream: WatchedGeneration, waited: float, load: _Seen) -> bool:
        """Give up a stream, unless it has had a token by now."""
        with self._lock:
            if stream not in self._waiting:
                return False
            del self._waiting[stream]
        log.warning(
            "engine_silent", url=self.url, rid=stream.rid, seconds=round(waited), load=str(load)
        )
        verdict = errors.EngineSilent(f"The engine sent nothing for {waited:.0f} s, {load}.")
        self.judge(verdict)
        stream.give_up(verdict)
        return True

    def _load(self) -> _Seen:
        """Return the engine's load; if it does not report one, the load by this process's streams."""
        window = self._window
        try:
            reported = self._engine.load()
        except errors.EngineUnavailable:
            with self._lock:
                speaking = self._speaking
            return _Seen(speaking, 0, window, reported=False)
        return _Seen(reported.running, reported.waiting, window, reported=True)


@dataclass(frozen=True)
class _Seen:
    """The load of an engine at a check."""

    running: int
    waiting: int
    window: int
    reported: bool

    def stuck(self, silent: int) -> int:
        """Return how many of ``silent`` silent streams are not in the engine's queue.

        An engine that does not report its load is assumed to have a queue when a full window of streams has tokens.
        """
        if not self.reported:
            return 0 if self.running >= max(self.window, 1) else silent
        return max(silent - self.waiting, 0)

    def __str__(self) -> str:
        if not self.reported:
            return "and does not report its load"
        return f"with {self.running} of {self.window} streams running and {self.waiting} waiting"


class WatchedGeneration:
    """A stream of a :class:`WatchedEngine` engine."""

    def __init__(
        self,
        owner: WatchedEngine,
        context: AbstractContextManager[engine.GenerationStream],
        request: engine.GenerationRequest,
    ) -> None:
        self.rid = request.rid
        #: When it was sent, or when a stream that was sent earlier had its first token.
        self.counts_from = 0.0
        self._owner = owner
        self._context = context
        self._stream: engine.GenerationStream | None = None
        self._request = request
        self._verdict: errors.EngineSilent | None = None

    @property
    def prefill_seconds(self) -> float:
        """The time that a slow engine needs for its prompt."""
        return prompt_tokens(self._request) / _PREFILL_TOKENS_PER_SECOND

    def give_up(self, verdict: errors.EngineSilent) -> None:
        """End the reading from the watchdog's thread; the reader gets ``verdict``."""
        self._verdict = verdict
        self.close()

    def close(self) -> None:
        """End the reading from any thread."""
        if self._stream is not None:
            self._stream.close()

    def __enter__(self) -> Self:
        if self._stream is None:
            self._stream = self._context.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._context.__exit__(None, None, None)

    def __iter__(self) -> Iterator[engine.Chunk]:
        """Yield chunks until the end, like the engine's own stream."""
        spoke = False
        chunks = iter(self._stream or ())
        self._owner.began(self)
        try:
            for chunk in chunks:
                if chunk.text or chunk.finish_reason is not None:
                    spoke = self._owner.spoke(self, chunk)
                    if spoke:
                        yield chunk
                    break
                yield chunk
            if spoke:
                for chunk in chunks:
                    self._owner.woken()
                    yield chunk
        except errors.EngineError as error:
            if self._verdict is None:
                if isinstance(error, errors.EngineSilent):
                    self._owner.judge(error)
                raise
        finally:
            self._owner.ended(self, spoke=spoke)
        if self._verdict is not None:
            # The stream is closed already; the abort stops the generation in the engine.
            self._owner.abort(self.rid)
            raise self._verdict


def prompt_tokens(request: engine.GenerationRequest) -> float:
    """Return an upper estimate of the tokens in the prompt of ``request``."""
    turn = request.turn
    texts = (
        request.system,
        request.requested,
        request.continuation or "",
        *((turn.said, turn.requested) if turn is not None else ()),
    )
    with_images = 0.0
    for image in request.images:
        size = dimensions(image.data)
        with_images += size[0] * size[1] / _PIXELS_PER_TOKEN if size else _MOST_IMAGE_TOKENS
    return with_images + sum(map(len, texts)) / _CHARS_PER_TOKEN
