"""An engine with several streams, each of which a test controls by the seed of its request."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import defaultdict
from collections.abc import Iterator

from core import errors
from jobs import engine

#: The seed of the first sample of a job; each other sample has the next one, and its continuations have the same.
FIRST_SEED = 7


class SampleEngine:
    """Gives each stream the items that the test feeds under its vote. An abort ends a stream with its bill."""

    END = object()
    url = "samples:"

    def __init__(self, *, window: int = 16) -> None:
        self.window = window
        self.requests: list[engine.GenerationRequest] = []
        self.aborted: list[int] = []
        #: The most streams that were ever open at once.
        self.most = 0
        self._open = 0
        self._lock = threading.Condition()
        self._feeds: defaultdict[int, queue.SimpleQueue[object]] = defaultdict(queue.SimpleQueue)

    def feed(self, vote: int, *items: object) -> None:
        """Give a stream its next items."""
        for item in items:
            self._feeds[vote].put(item)

    def say(self, vote: int, text: str) -> None:
        """Let a stream send ``text`` and go on."""
        self.feed(vote, engine.Chunk(text=text))

    def answer(self, vote: int, text: str) -> None:
        """Let a stream send an answer and end."""
        bill = engine.TokenUsage(10, 8 if vote else 0, 4, 5)
        self.say(vote, f"I look. **Final Answer** \\boxed{{{text}}}")
        self.feed(vote, engine.Chunk(finish_reason="stop", usage=bill), self.END)

    def begun(self, count: int) -> bool:
        """Wait until ``count`` streams were requested, at most a minute."""
        with self._lock:
            return self._lock.wait_for(lambda: len(self.requests) >= count, timeout=60)

    def votes(self, *, under_grammar: bool = False) -> list[int]:
        """Return the votes in the order of their requests, of all or of those with a grammar."""
        requests = list(self.requests)
        return [_vote(one) for one in requests if one.schema is not None or not under_grammar]

    @contextlib.contextmanager
    def stream(self, request: engine.GenerationRequest) -> Iterator[_SampleStream]:
        """Open a stream."""
        with self._lock:
            self.requests.append(request)
            self._open += 1
            self.most = max(self.most, self._open)
            self._lock.notify_all()
        try:
            yield _SampleStream(self._feeds[_vote(request)])
        finally:
            with self._lock:
                self._open -= 1

    def abort(self, rid: str) -> None:
        """End a stream as SGLang does."""
        with self._lock:
            requested = next(request for request in self.requests if request.rid == rid)
            self.aborted.append(_vote(requested))
        bill = engine.TokenUsage(10, 8, 4, 2)
        self.feed(_vote(requested), engine.Chunk(finish_reason="abort", usage=bill), self.END)

    def facts(self) -> engine.EngineFacts:
        """Return the window."""
        return engine.EngineFacts(model="tiny-qvq", version="samples-1", window=self.window)

    def load(self) -> engine.EngineLoad:
        """Return how many streams are open."""
        return engine.EngineLoad(running=self._open, waiting=0)

    def close(self) -> None:
        """Do nothing."""


def _vote(request: engine.GenerationRequest) -> int:
    assert request.seed is not None
    return request.seed - FIRST_SEED


class _SampleStream:
    def __init__(self, feed: queue.SimpleQueue[object]) -> None:
        self._feed = feed

    def __iter__(self) -> Iterator[engine.Chunk]:
        while (item := self._feed.get(timeout=30)) is not SampleEngine.END:
            if isinstance(item, BaseException):
                raise item
            assert isinstance(item, engine.Chunk)
            yield item

    def close(self) -> None:
        """Close the connection."""
        self._feed.put(errors.EngineFault("The connection was closed."))
