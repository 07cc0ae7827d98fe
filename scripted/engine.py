"""The scripted engine in process: for tests, `longlook up --engine scripted`, and load tests without a model."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator

from core import errors, profiles
from core.closing import Closing
from jobs import engine, refusals
from scripted.options import ScriptedOptions
from scripted.prompt import BadRequest
from scripted.scheduler import Scheduler, ScriptedGeneration, TokenStep

VERSION = "scripted-1"


class Clock:
    """The system's monotonic clock; a test's clock need not wait."""

    def now(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    def wait(self, event: threading.Event, seconds: float | None) -> None:
        """Return when ``event`` is set or after ``seconds``; None waits without a limit."""
        event.wait(seconds)


class Scripted:
    """An engine that generates answers without a model: the same request has the same answer.

    Args:
        url: ``scripted:`` with :class:`ScriptedOptions` as its query string.
        options: replace the options in the URL.
        profile: the limits of the model that the engine replaces.
        model: the name of that model.
        clock: tells the time.
    """

    def __init__(
        self,
        url: str = "scripted:",
        *,
        options: ScriptedOptions | None = None,
        profile: profiles.ModelProfile = profiles.TINY,
        model: str = "",
        clock: Clock | None = None,
    ) -> None:
        self.url = url
        self._model = model or profile.name
        self._clock = clock or Clock()
        self._scheduler = Scheduler(options or ScriptedOptions.parse(url), profile, self._clock.now)

    def stream(self, request: engine.GenerationRequest) -> ScriptedStream:
        """Return the stream of ``request``; see :class:`jobs.engine.GenerationStream` for its errors."""
        return ScriptedStream(request, self._scheduler, self._clock)

    def abort(self, rid: str) -> None:
        """End the stream ``rid``."""
        self._scheduler.abort(rid)

    def facts(self) -> engine.EngineFacts:
        """Return the engine's facts."""
        return engine.EngineFacts(
            model=self._model,
            version=VERSION,
            window=self._scheduler.options.window,
            context_tokens=self._scheduler.profile.context_tokens,
        )

    def load(self) -> engine.EngineLoad:
        """Return the engine's load."""
        return self._scheduler.load()

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


class ScriptedStream(Closing):
    """A :class:`jobs.engine.GenerationStream`; iteration ends without an error once the stream is closed."""

    def __init__(
        self, request: engine.GenerationRequest, scheduler: Scheduler, clock: Clock
    ) -> None:
        self._request = request
        self._scheduler = scheduler
        self._clock = clock
        self._changed = threading.Event()
        self._generation: ScriptedGeneration | None = None
        self._closed = False

    def left(self) -> None:
        """Remove the generation."""
        if self._generation is not None:
            self._scheduler.remove(self._generation)

    def close(self) -> None:
        """End the iteration from any thread."""
        self._closed = True
        self._changed.set()

    def __iter__(self) -> Iterator[engine.Chunk]:
        """Yield the chunks as they become due."""
        try:
            generation = self._scheduler.add(self._request, self._changed.set)
        except BadRequest as rejection:
            raise refusals.understand(400, rejection.message).error from rejection
        self._generation = generation
        try:
            yield from self._read(generation)
        finally:
            self._scheduler.remove(generation)

    def _read(self, generation: ScriptedGeneration) -> Iterator[engine.Chunk]:
        has_text = False
        while True:
            # Cleared before the state is read, so that a later change ends the wait below.
            self._changed.clear()
            if self._closed:
                return
            step = generation.advance(self._clock.now())
            for chunk in step.chunks:
                has_text = True
                yield chunk
            if step.end is not None:
                self._scheduler.remove(generation)
                yield from _end(step, generation, has_text=has_text)
                return
            due = generation.next_at - self._clock.now()
            self._clock.wait(self._changed, None if due == math.inf else max(due, 0.0))


def _end(
    step: TokenStep, generation: ScriptedGeneration, *, has_text: bool
) -> Iterator[engine.Chunk]:
    """Yield the finish reason and the usage, or raise the error that a client sees for a failure."""
    match step.end:
        case "stop" | "length" | "abort":
            yield engine.Chunk(finish_reason=step.end)
            yield engine.Chunk(usage=generation.usage())
        case "starting":
            raise errors.EngineUnavailable("The engine is not ready.")
        case "busy":
            raise errors.EngineBusy("The engine has no room.")
        case "reset":
            raise errors.EngineLost("The engine closed the connection in the middle of its answer.")
        case "given_up" if not has_text:
            raise errors.EngineBusy("The engine aborted the request before it began.")
        case _:
            raise errors.EngineFault("The engine failed in the middle of its answer.")
