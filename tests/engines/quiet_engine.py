"""An engine that is never asked, and a pool of such engines, for tests of permits."""

from __future__ import annotations

from contextlib import AbstractContextManager

from core import errors
from jobs import engine
from worker.engines.pool import EnginePool, EngineSlot


class Quiet:
    """An engine that only tells its window; None is out of reach."""

    def __init__(self, url: str = "a", window: int | None = 8) -> None:
        self.url = url
        self.window = window
        self.closed = False

    def facts(self) -> engine.EngineFacts:
        if self.window is None:
            raise errors.EngineUnavailable("gone")
        return engine.EngineFacts(model="m", version="1", window=self.window)

    def stream(
        self, request: engine.GenerationRequest
    ) -> AbstractContextManager[engine.GenerationStream]:
        raise NotImplementedError

    def abort(self, rid: str) -> None:
        raise NotImplementedError

    def load(self) -> engine.EngineLoad:
        raise NotImplementedError

    def close(self) -> None:
        self.closed = True


class Watch:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def made(*engines: Quiet, watch: Watch | None = None, live_workers: int = 1) -> EnginePool:
    engines_ = EnginePool(
        engines, live_workers=live_workers, now=watch or Watch(), jitter=lambda: 1.0
    )
    engines_.refresh()
    return engines_


def drain(engines: EnginePool) -> list[EngineSlot]:
    """Take all permits there are."""
    return list(iter(engines.acquire, None))
