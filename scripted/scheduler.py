"""The generations of a scripted engine and their scheduler: who runs, who waits, which tokens are due.

The engine's two interfaces share it: :class:`scripted.Scripted` in process, with one thread for each stream, and
:mod:`scripted.server` over HTTP, with one event loop for all streams.
"""

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from core.profiles import ModelProfile
from jobs import engine
from jobs.answers import json_schema
from scripted import behaviors
from scripted.options import ScriptedOptions
from scripted.prompt import BadRequest, PrefixCache, Prompt

#: SGLang sorts its queue by cached prefix up to this length, and keeps the order of arrival beyond it.
_SORTED_QUEUE = 128

#: How a stream ends: normally, or by a simulated failure.
End = engine.FinishReason | behaviors.Failure


@dataclass(frozen=True)
class TokenStep:
    """The chunks that have become due, and the end if it has been reached."""

    chunks: Sequence[engine.Chunk] = ()
    end: End | None = None


class ScriptedGeneration:
    """One stream. A single thread advances it; any thread may abort it.

    Args:
        request: what to answer.
        prompt: the request's prompt.
        behavior: how the answer proceeds.
        options: the engine's speeds.
        wake: called from any thread when the generation starts or is aborted.
    """

    def __init__(
        self,
        request: engine.GenerationRequest,
        prompt: Prompt,
        *,
        behavior: behaviors.Behavior,
        options: ScriptedOptions,
        wake: Callable[[], None],
    ) -> None:
        self.rid = request.rid
        self.prompt = prompt
        self.wake = wake
        self.abort_requested = False
        #: When the next token is due; infinite while the generation waits and once it is silent.
        self.next_at = math.inf
        self._behavior = behavior
        self._options = options
        self._tokens = behaviors.generate(request, behavior)
        self._limit = request.max_output_tokens
        self._output: list[str] = []
        #: How many tokens of the output have been in chunks.
        self._sent = 0
        self._first_at = math.inf
        self._cached = 0
        self._rejection: behaviors.Failure | None = None
        self._cache: PrefixCache | None = None

    def reject(self, failure: behaviors.Failure) -> None:
        """End the stream before it starts."""
        self._rejection = failure

    def start(self, now: float, cache: PrefixCache) -> None:
        """Start the prefill; cached tokens take no time."""
        self._cache = cache
        self._cached = cache.match(self.prompt.parts)
        speed = self._options.prefill_tokens_per_second
        prefill = (self.prompt.length - self._cached) / speed if speed else 0.0
        self._first_at = self.next_at = now + prefill + self._behavior.delay_seconds

    def advance(self, now: float) -> TokenStep:
        """Return the chunks due by ``now``, and the end if it has been reached."""
        if self.abort_requested:
            return TokenStep(end="abort")
        if self._rejection is not None:
            return TokenStep(end=self._rejection)
        speed = self._options.tokens_per_second
        while self.next_at <= now:
            end = self._end()
            if end is None and (token := next(self._tokens, None)) is not None:
                if not self._output and self._cache is not None:
                    # As in SGLang, other requests can reuse the prompt as soon as it has been computed.
                    self._cache.insert(self.prompt.parts)
                self._output.append(token)
                if speed:
                    self.next_at = self._first_at + len(self._output) / speed
            elif end == "silent":
                self.next_at = math.inf
            else:
                return TokenStep(self._chunks(whole=True), end or "stop")
        return TokenStep(self._chunks(whole=False))

    def _chunks(self, *, whole: bool) -> list[engine.Chunk]:
        """Return the output that has not been in chunks yet; with ``whole`` also what fills no chunk."""
        chunks = []
        size = self._options.stream_interval
        left = len(self._output) - self._sent
        while left >= size or (whole and left):
            first, self._sent = self._sent, min(self._sent + size, len(self._output))
            text = "".join(self._output[first : self._sent])
            chunks.append(engine.Chunk(text, output_tokens=self._sent))
            left = len(self._output) - self._sent
        return chunks

    def _end(self) -> End | None:
        """Return the end that comes before another token, if any."""
        behavior = self._behavior
        if behavior.failure is not None and len(self._output) == behavior.failure_after:
            return behavior.failure
        return "length" if len(self._output) == self._limit else None

    def cache_output(self, cache: PrefixCache) -> None:
        """Put prompt and output into ``cache``, also after an abort, unless there is no output."""
        if self._output:
            cache.insert(self.prompt.followed_by(self._output))

    def usage(self) -> engine.TokenUsage:
        """Return the usage; all zeros if the generation never started."""
        if self._first_at == math.inf:
            return engine.TokenUsage()
        return engine.TokenUsage(
            input_tokens=self.prompt.length,
            cached_tokens=self._cached,
            image_tokens=self.prompt.image_tokens,
            output_tokens=len(self._output),
        )


class Scheduler:
    """All generations of one scripted engine. Thread-safe.

    Args:
        options: the engine's capacity and behavior.
        profile: the limits of the model that the engine replaces.
        now: a monotonic clock in seconds.
    """

    def __init__(
        self, options: ScriptedOptions, profile: ModelProfile, now: Callable[[], float]
    ) -> None:
        self.options = options
        self.profile = profile
        self.cache = PrefixCache(options.cache_tokens)
        #: Totals of all removed generations, for ``/metrics``.
        self.totals: Counter[str] = Counter()
        self._now = now
        self._lock = threading.Lock()
        self._running: list[ScriptedGeneration] = []
        self._waiting: list[ScriptedGeneration] = []

    def add(
        self, request: engine.GenerationRequest, wake: Callable[[], None], *, stuck: bool = False
    ) -> ScriptedGeneration:
        """Start or queue a request; the caller must :meth:`remove` the generation.

        Args:
            request: what to answer.
            wake: see :class:`ScriptedGeneration`.
            stuck: whether the request never reaches the queue: it neither runs nor waits, and no abort finds it.

        Raises:
            scripted.prompt.BadRequest: the engine can never answer the request.
        """
        behavior = behaviors.select(
            request.requested, self.options.behavior, markers=self.options.markers
        )
        deadly = self.options.deadly_image
        if deadly and any(image.key.startswith(deadly) for image in request.images):
            behavior = behaviors.BEHAVIORS["reset"]
        if behavior.failure == "refused":
            raise BadRequest("The scripted engine is configured to reject this request.")
        if request.schema not in (None, json_schema.ANY_OBJECT) and json_schema.faults(
            request.schema or {}
        ):
            raise BadRequest("Failed to compile json grammar: the schema has faults.")
        if len(request.images) > self.options.max_images:
            raise BadRequest(
                f"Image count {len(request.images)} exceeds limit {self.options.max_images} "
                "per request."
            )
        prompt = Prompt.of(request, self.profile)
        generation = ScriptedGeneration(
            request, prompt, behavior=behavior, options=self.options, wake=wake
        )
        with self._lock:
            if stuck:
                return generation
            if behavior.failure in ("busy", "starting"):
                generation.reject(behavior.failure)
            elif len(self._running) < self.options.window:
                self._start(generation)
            elif len(self._waiting) < self.options.max_queued:
                self._waiting.append(generation)
            else:
                generation.reject("busy")
        return generation

    def remove(self, generation: ScriptedGeneration) -> None:
        """Remove a generation, finished or not, and start the next one. Idempotent."""
        with self._lock:
            for generations in (self._running, self._waiting):
                if generation in generations:
                    generations.remove(generation)
                    generation.cache_output(self.cache)
                    self._count(generation)
            while self._waiting and len(self._running) < self.options.window:
                following = self._next()
                self._waiting.remove(following)
                self._start(following)
                following.wake()

    def abort(self, rid: str) -> None:
        """Abort ``rid`` and, as SGLang does, every generation whose id starts with it. Ignores unknown ids."""
        with self._lock:
            generations = [*self._running, *self._waiting]
            if any(generation.rid == rid for generation in generations):
                _abort(entry for entry in generations if entry.rid.startswith(rid))

    def abort_all(self) -> None:
        """Abort every generation."""
        with self._lock:
            _abort([*self._running, *self._waiting])

    def load(self) -> engine.EngineLoad:
        """Return how many generations run and wait."""
        with self._lock:
            return engine.EngineLoad(running=len(self._running), waiting=len(self._waiting))

    def _start(self, generation: ScriptedGeneration) -> None:
        self._running.append(generation)
        generation.start(self._now(), self.cache)

    def _next(self) -> ScriptedGeneration:
        """Return the waiting generation with the longest cached prefix, or the first one of a long queue."""
        if len(self._waiting) > _SORTED_QUEUE:
            return self._waiting[0]
        return max(self._waiting, key=lambda entry: self.cache.match(entry.prompt.parts))

    def _count(self, generation: ScriptedGeneration) -> None:
        usage = generation.usage()
        self.totals["num_requests"] += 1
        self.totals["prompt_tokens"] += usage.input_tokens
        self.totals["cached_tokens"] += usage.cached_tokens
        self.totals["generation_tokens"] += usage.output_tokens
        self.totals["num_aborted_requests"] += generation.abort_requested


def _abort(generations: Iterable[ScriptedGeneration]) -> None:
    for generation in generations:
        generation.abort_requested = True
        generation.wake()
