"""The scripted engine's inside: who runs and who waits.

Both doors of the engine stand on it: :class:`scripted.Scripted` (in process, one thread a
stream) and :mod:`scripted.server` (over HTTP, one loop for all streams).
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING

from jobs import engine
from jobs.answers import json_schema
from scripted import script
from scripted.play import ScriptedGeneration
from scripted.prefix_cache import PrefixCache
from scripted.prompt import Prompt, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from core.profiles import ModelProfile
    from scripted.options import ScriptedOptions

#: SGLang sorts its queue by cached prefix up to this length, and not at all beyond.
_SORTED_QUEUE = 128


class Scheduler:
    """All streams of one scripted engine. Thread-safe.

    Args:
        options: how it behaves.
        profile: the limits of the model it stands in for.
        now: a monotonic clock, in seconds.
    """

    def __init__(
        self, options: ScriptedOptions, profile: ModelProfile, now: Callable[[], float]
    ) -> None:
        self.options = options
        self.profile = profile
        self.cache = PrefixCache(options.cache_tokens)
        #: Sums over the streams that have left, for ``/metrics``.
        self.totals: Counter[str] = Counter()
        self._now = now
        self._lock = threading.Lock()
        self._running: list[ScriptedGeneration] = []
        self._waiting: list[ScriptedGeneration] = []

    def enter(
        self, request: engine.GenerationRequest, wake: Callable[[], None], *, stuck: bool = False
    ) -> ScriptedGeneration:
        """Take a request; who enters has to :meth:`leave`.

        Args:
            request: what is asked.
            wake: see :class:`scripted.play.ScriptedGeneration`.
            stuck: whether it gets stuck on its way to the scheduler: it neither runs nor waits, and no abort finds it.

        Raises:
            scripted.prompt.Refused: the request can never be taken.
        """
        how = script.persona(request.requested, self.options.persona, markers=self.options.markers)
        deadly = self.options.deadly_image
        if deadly and any(image.key.startswith(deadly) for image in request.images):
            how = script.PERSONAS["reset"]
        if how.mishap == "refused":
            raise Refused("The scripted engine was told to refuse this.")
        if request.schema is not None and json_schema.faults(request.schema):
            raise Refused("Failed to compile json grammar: the schema has faults.")
        if len(request.images) > self.options.max_images:
            raise Refused(
                f"Image count {len(request.images)} exceeds limit {self.options.max_images} "
                "per request."
            )
        prompt = Prompt.of(request, self.profile)
        play = ScriptedGeneration(request, prompt, how=how, options=self.options, wake=wake)
        with self._lock:
            if stuck:
                return play
            if how.mishap in ("busy", "starting"):
                play.refuse(how.mishap)
            elif len(self._running) < self.options.window:
                self._begin(play)
            elif len(self._waiting) < self.options.max_queued:
                self._waiting.append(play)
            else:
                play.refuse("busy")
        return play

    def leave(self, play: ScriptedGeneration) -> None:
        """Give up a play's place, ended or not, and let the next one begin. Idempotent."""
        with self._lock:
            for places in (self._running, self._waiting):
                if play in places:
                    places.remove(play)
                    play.keep(self.cache)
                    self._count(play)
            while self._waiting and len(self._running) < self.options.window:
                following = self._next()
                self._waiting.remove(following)
                self._begin(following)
                following.wake()

    def abort(self, rid: str) -> None:
        """Abort ``rid`` and, as SGLang does, all whose id begins with it. Unknown ids are fine."""
        with self._lock:
            plays = [*self._running, *self._waiting]
            if any(play.rid == rid for play in plays):
                _abort(play for play in plays if play.rid.startswith(rid))

    def abort_all(self) -> None:
        """Abort every stream."""
        with self._lock:
            _abort([*self._running, *self._waiting])

    def load(self) -> engine.EngineLoad:
        """Return how many streams run and wait."""
        with self._lock:
            return engine.EngineLoad(running=len(self._running), waiting=len(self._waiting))

    def _begin(self, play: ScriptedGeneration) -> None:
        self._running.append(play)
        play.begin(self._now(), self.cache)

    def _next(self) -> ScriptedGeneration:
        """Return who begins next: the longest cached prefix, while the queue is short enough to sort."""
        if len(self._waiting) > _SORTED_QUEUE:
            return self._waiting[0]
        return max(self._waiting, key=lambda play: self.cache.match(play.prompt.parts))

    def _count(self, play: ScriptedGeneration) -> None:
        usage = play.usage()
        self.totals["num_requests"] += 1
        self.totals["prompt_tokens"] += usage.input_tokens
        self.totals["cached_tokens"] += usage.cached_tokens
        self.totals["generation_tokens"] += usage.output_tokens
        self.totals["num_aborted_requests"] += play.abort_requested


def _abort(plays: Iterable[ScriptedGeneration]) -> None:
    for play in plays:
        play.abort_requested = True
        play.wake()
