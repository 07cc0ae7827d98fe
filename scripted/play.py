"""One stream of the scripted engine: its tokens, when each is due, and how it ends."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs import engine
from scripted import script

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scripted.options import ScriptedOptions
    from scripted.prefix_cache import PrefixCache
    from scripted.prompt import Prompt

#: How a stream ends: as it should, or by a mishap.
End = engine.FinishReason | script.Mishap


@dataclass(frozen=True)
class TokenStep:
    """What came due: tokens, and the end once it is reached."""

    tokens: Sequence[str] = ()
    end: End | None = None


class ScriptedGeneration:
    """One stream. One thread moves it on; any thread may abort it.

    Args:
        request: what is asked.
        prompt: the same, counted.
        how: its persona.
        options: the engine's speeds.
        wake: called from any thread when there is news: it begins, or is aborted.
    """

    def __init__(
        self,
        request: engine.GenerationRequest,
        prompt: Prompt,
        *,
        how: script.Behavior,
        options: ScriptedOptions,
        wake: Callable[[], None],
    ) -> None:
        self.rid = request.rid
        self.prompt = prompt
        self.wake = wake
        self.abort_requested = False
        #: When the next token is due; infinite while it waits and once it is silent.
        self.next_at = math.inf
        self._how = how
        self._options = options
        self._tokens = script.speak(request, how)
        self._limit = request.max_output_tokens
        self._said: list[str] = []
        self._first_at = math.inf
        self._cached = 0
        self._refusal: script.Mishap | None = None
        self._cache: PrefixCache | None = None

    def refuse(self, mishap: script.Mishap) -> None:
        """End before the beginning."""
        self._refusal = mishap

    def begin(self, now: float, cache: PrefixCache) -> None:
        """Start the prefill: what is cached costs no time."""
        self._cache = cache
        self._cached = cache.match(self.prompt.parts)
        pace = self._options.prefill_tokens_per_second
        prefill = (self.prompt.tokens - self._cached) / pace if pace else 0.0
        self._first_at = self.next_at = now + prefill + self._how.head_seconds

    def advance(self, now: float) -> TokenStep:
        """Return the tokens that came due up to ``now``, and the end if there is one."""
        if self.abort_requested:
            return TokenStep(end="abort")
        if self._refusal is not None:
            return TokenStep(end=self._refusal)
        pace = self._options.tokens_per_second
        fresh: list[str] = []
        while self.next_at <= now:
            end = self._end()
            if end is None and (token := next(self._tokens, None)) is not None:
                if not self._said and self._cache is not None:
                    # As in SGLang, others find the prompt as soon as it has been computed.
                    self._cache.insert(self.prompt.parts)
                fresh.append(token)
                self._said.append(token)
                if pace:
                    self.next_at = self._first_at + len(self._said) / pace
            elif end == "silent":
                self.next_at = math.inf
            else:
                return TokenStep(fresh, end or "stop")
        return TokenStep(fresh)

    def _end(self) -> End | None:
        """Return the end that is reached before another token, if any."""
        if self._how.mishap is not None and len(self._said) == self._how.after:
            return self._how.mishap
        return "length" if len(self._said) == self._limit else None

    @property
    def began(self) -> bool:
        """Whether it has ever run."""
        return self._first_at < math.inf

    def keep(self, cache: PrefixCache) -> None:
        """Leave what was computed in ``cache``; an aborted stream does so too, one that waited does not."""
        if self._said:
            cache.insert(self.prompt.after(self._said))

    def usage(self) -> engine.TokenUsage:
        """Return the bill; nothing for a stream that never ran."""
        if not self.began:
            return engine.TokenUsage()
        return engine.TokenUsage(
            input_tokens=self.prompt.tokens,
            cached_tokens=self._cached,
            image_tokens=self.prompt.image_tokens,
            output_tokens=len(self._said),
        )
