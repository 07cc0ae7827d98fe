"""An engine whose stream a test controls: chunk by chunk, fault by fault."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from core import errors
from jobs import engine

#: The text of an engine that repeats itself.
LOOP = "So I count them again. "


class ControlledEngine:
    """Gives out what the test puts in: chunks are yielded, exceptions raised; END ends the stream.

    An abort ends the stream as SGLang does, with a finish reason and the bill, unless it is ``deaf``.
    """

    END = object()

    def __init__(self, *, url: str = "fake:", window: int = 4, deaf: bool = False) -> None:
        self.url = url
        self.window = window
        self.deaf = deaf
        self.requests: list[engine.GenerationRequest] = []
        self.aborted: list[str] = []
        self.closed = 0
        #: Items that the reader has taken; it has processed all of them but the last.
        self.given = 0
        #: Set when a stream waits for its next item: what the test had put in before is processed.
        self.reading = threading.Event()
        #: Set when a second stream is read.
        self.second = threading.Event()
        #: What the streams after the first aborted ones say: one list for each abort, then they end as aborted.
        self.after_abort: list[list[object]] = []
        self._feed: queue.SimpleQueue[object] = queue.SimpleQueue()

    def feed(self, *items: object) -> None:
        """Give the stream its next items."""
        for item in items:
            self._feed.put(item)

    def answer(self, text: str, *, usage: engine.TokenUsage | None = None) -> None:
        """Give the stream a whole answer, word by word, and its end."""
        words = text.split(" ")
        for index, word in enumerate(words):
            self.feed(engine.Chunk(text=word if index == 0 else f" {word}"))
        bill = usage or engine.TokenUsage(10, 5, 1, len(words))
        self.feed(engine.Chunk(finish_reason="stop", usage=bill), self.END)

    def loop(self, before: str = "I see. ") -> None:
        """Have the stream go round in circles after ``before``, until it is aborted."""
        texts = [before, *[LOOP] * 64]
        self.feed(*(engine.Chunk(text, output_tokens=n) for n, text in enumerate(texts, start=1)))

    @contextlib.contextmanager
    def stream(self, request: engine.GenerationRequest) -> Iterator[_Stream]:
        self.requests.append(request)
        yield _Stream(self, self._feed)

    def abort(self, rid: str) -> None:
        self.aborted.append(rid)
        if self.deaf:
            return
        while not self._feed.empty():  # What had not been said is not said any more.
            self._feed.get()
        self.feed(
            engine.Chunk(finish_reason="abort", usage=engine.TokenUsage(10, 0, 1, 3)), self.END
        )
        self.feed(*(self.after_abort.pop(0) if self.after_abort else ()))

    def facts(self) -> engine.EngineFacts:
        return engine.EngineFacts(model="tiny-qvq", version="fake-1", window=self.window)

    def load(self) -> engine.EngineLoad:
        return engine.EngineLoad(running=0, waiting=0)

    def close(self) -> None:
        return


@dataclass
class _Stream:
    conducted: ControlledEngine
    feed: queue.SimpleQueue[object]
    _closed: threading.Event = field(default_factory=threading.Event)

    def __iter__(self) -> Iterator[engine.Chunk]:
        if len(self.conducted.requests) > 1:
            self.conducted.second.set()
        while True:
            if self.feed.empty():
                self.conducted.reading.set()
            item = self.feed.get(timeout=30)
            self.conducted.given += 1
            if item is ControlledEngine.END:
                return
            if isinstance(item, BaseException):
                raise item
            assert isinstance(item, engine.Chunk)
            yield item

    def close(self) -> None:
        if not self._closed.is_set():
            self._closed.set()
            self.conducted.closed += 1
            self.feed.put(errors.EngineFault("The connection was closed."))
