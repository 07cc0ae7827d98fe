"""The scripted engine in process: for tests, for `longlook up --engine scripted`, and for load without a model."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Protocol

from core import errors, profiles
from core.closing import Closing
from jobs import engine, refusals
from scripted.options import ScriptedOptions
from scripted.prompt import Refused
from scripted.stage import Scheduler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scripted.play import ScriptedGeneration, TokenStep

VERSION = "scripted-1"


class Time(Protocol):
    """The passing of time, so that tests need none."""

    def now(self) -> float:
        """Return monotonic seconds."""

    def wait(self, event: threading.Event, seconds: float | None) -> None:
        """Return when ``event`` is set or ``seconds`` have passed; None is for ever."""


class RealTime:
    """Time as it passes."""

    def now(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    def wait(self, event: threading.Event, seconds: float | None) -> None:
        """Wait for ``event``, ``seconds`` at most."""
        event.wait(seconds)


class Scripted:
    """An engine that makes its answers up: the same answer to the same question, unless told otherwise.

    Args:
        url: ``scripted:`` with :class:`ScriptedOptions` as its query string.
        options: the same from code; they replace the URL's.
        profile: the limits of the model it stands in for.
        model: the name it gives that model.
        clock: the passing of time.
    """

    def __init__(
        self,
        url: str = "scripted:",
        *,
        options: ScriptedOptions | None = None,
        profile: profiles.ModelProfile = profiles.TINY,
        model: str = "",
        clock: Time | None = None,
    ) -> None:
        self.url = url
        self._model = model or profile.name
        self._clock = clock or RealTime()
        self._stage = Scheduler(options or ScriptedOptions.parse(url), profile, self._clock.now)

    def stream(self, request: engine.GenerationRequest) -> ScriptedStream:
        """Return the stream of ``request``; see :class:`jobs.engine.GenerationStream` for its faults."""
        return ScriptedStream(request, self._stage, self._clock)

    def abort(self, rid: str) -> None:
        """End the stream ``rid``."""
        self._stage.abort(rid)

    def facts(self) -> engine.EngineFacts:
        """Return the engine's facts."""
        return engine.EngineFacts(
            model=self._model,
            version=VERSION,
            window=self._stage.options.window,
            context_tokens=self._stage.profile.context_tokens,
        )

    def load(self) -> engine.EngineLoad:
        """Return the engine's load."""
        return self._stage.load()

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


class ScriptedStream(Closing):
    """A stream as :class:`jobs.engine.GenerationStream` promises it; reading ends silently once it is closed."""

    def __init__(self, request: engine.GenerationRequest, stage: Scheduler, clock: Time) -> None:
        self._request = request
        self._stage = stage
        self._clock = clock
        self._news = threading.Event()
        self._play: ScriptedGeneration | None = None
        self._closed = False

    def __exit__(self, *_: object) -> None:
        self.close()
        if self._play is not None:
            self._stage.leave(self._play)

    def close(self) -> None:
        """End the reading from any thread."""
        self._closed = True
        self._news.set()

    def __iter__(self) -> Iterator[engine.Chunk]:
        """Yield the chunks as they come due."""
        try:
            self._play = play = self._stage.enter(self._request, self._news.set)
        except Refused as refused:
            raise refusals.understand(400, refused.message).error from refused
        try:
            yield from self._read(play)
        finally:
            self._stage.leave(play)

    def _read(self, play: ScriptedGeneration) -> Iterator[engine.Chunk]:
        spoke = False
        while True:
            # Cleared before the look at what happened: news that comes after it ends the wait below.
            self._news.clear()
            if self._closed:
                return
            step = play.advance(self._clock.now())
            for token in step.tokens:
                spoke = True
                yield engine.Chunk(text=token)
            if step.end is not None:
                self._stage.leave(play)
                yield from _ending(step, play, spoke=spoke)
                return
            due = play.next_at - self._clock.now()
            self._clock.wait(self._news, None if due == math.inf else max(due, 0.0))


def _ending(step: TokenStep, play: ScriptedGeneration, *, spoke: bool) -> Iterator[engine.Chunk]:
    """Yield the end and the bill, or raise what a mishap is for a client."""
    match step.end:
        case "stop" | "length" | "abort":
            yield engine.Chunk(finish_reason=step.end)
            yield engine.Chunk(usage=play.usage())
        case "starting":
            raise errors.EngineUnavailable("The engine is not ready.")
        case "busy":
            raise errors.EngineBusy("The engine has no room.")
        case "reset":
            raise errors.EngineLost("The engine broke off in the middle of its answer.")
        case "given_up" if not spoke:
            raise errors.EngineBusy("The engine gave the request up before it began.")
        case _:
            raise errors.EngineFault("The engine failed in the middle of its answer.")
