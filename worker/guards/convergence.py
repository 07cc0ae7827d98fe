"""Short forced answers on the way: when two in a row agree, the rest of a trace is not worth its tokens.

At a sixteenth, an eighth, a quarter and half of a stream's budget its text so far is given to the engine once more,
with nothing left to say but the answer. The stream runs on meanwhile: a probe is a stream of its own, beside it,
whose prompt the engine has mostly in its cache. It is not kept as a sample; its tokens are on the bill of the
stream that it belongs to.
"""

from __future__ import annotations

import dataclasses
import threading
import uuid
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import structlog

from core import errors
from core.profiles import Sampling
from jobs import engine
from jobs.answers import extraction, values
from jobs.findings import Finding
from jobs.store import traces
from worker.guards import detectors

_log = structlog.get_logger(__name__)

#: Longest answer that is compared.
TOKENS = 24
_SHARES = (16, 8, 4, 2)
#: No look at less than this: there is no thought in it yet.
_LEAST_TOKENS = 32
_ABORT_GRACE_SECONDS = 2.0
_GREEDY = Sampling(temperature=0.0, top_p=1.0)


@dataclass(frozen=True)
class _Probe:
    """One answer on the way: asked after ``chars`` characters, of ``tokens`` tokens; None: there was none in time."""

    chars: int
    tokens: int
    answer: str | None


class ConvergenceProbe:
    """Reads along for a watch, as :class:`worker.run.generation.GenerationReader` does, and asks on the way.

    Leaving its context stops what it has asked.

    Args:
        watch: who is told when answers agree.
        request: the stream's.
        engine_: whom to ask.
    """

    def __init__(
        self,
        watch: detectors.GenerationGuard,
        request: engine.GenerationRequest,
        *,
        engine_: engine.Engine,
    ) -> None:
        self._watch = watch
        self._request = request
        self._engine = engine_
        self._checkpoints = [
            tokens for share in _SHARES if (tokens := watch.limit // share) >= _LEAST_TOKENS
        ]
        if len(self._checkpoints) == 1:
            # One answer agrees with nothing.
            self._checkpoints.clear()
        self._asking: _Asking | None = None
        self._last: _Probe | None = None
        self._requested = 0
        self._usage: list[engine.TokenUsage] = []

    finish_reason = detectors.GenerationGuard.finish_reason

    @property
    def more(self) -> bool:
        """Whether another stream is to go on from this one."""
        return self._watch.more

    @property
    def found(self) -> Finding | None:
        """What the watch has found."""
        return self._watch.found

    def see(self, text: str) -> detectors.Verdict | None:
        """Take a chunk's text; return what to do when the watch or two probes have seen enough."""
        verdict = self._watch.see(text)
        if verdict is not None:
            return verdict
        verdict = self._woken()
        # While one is on its way the next one waits: a slow engine is asked later, and less often.
        passed = [tokens for tokens in self._checkpoints if tokens <= self._watch.tokens]
        if verdict is None and passed and self._asking is None:
            del self._checkpoints[: len(passed)]
            self._ask()
        return verdict

    def end(self, text: str, finish_reason: str) -> detectors.Verdict | None:
        """Take the whole text of a stream that has stopped by itself."""
        return self._watch.end(text, finish_reason)

    def billed(self, ended: traces.GenerationEnd) -> traces.GenerationEnd:
        """Return ``ended`` with the tokens of its probes; to be called when they have been stopped."""
        if not self._usage:
            return ended
        more = {
            name: sum(getattr(usage, name) for usage in self._usage) + (getattr(ended, name) or 0)
            for name in ("input_tokens", "cached_tokens", "image_tokens", "output_tokens")
        }
        return dataclasses.replace(ended, **more)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop what is still being asked; nothing of it is left at the engine."""
        if self._asking is not None:
            self._asking.stop()
            self._take(self._asking)
            self._asking = None

    def _ask(self) -> None:
        """Ask after the text so far, unless the final answer has begun."""
        text = self._watch.text
        if extraction.heading(text) is not None:
            return
        self._requested += 1
        self._asking = _Asking(
            dataclasses.replace(
                self._request,
                rid=uuid.uuid4().hex,
                sampling=_GREEDY,
                max_output_tokens=TOKENS,
                continuation=text.rstrip() + detectors.ask(self._request.question),
            ),
            engine_=self._engine,
            chars=len(text),
            tokens=self._watch.tokens,
        )

    def _woken(self) -> detectors.Verdict | None:
        """Return what to do about a probe that has come back; None when it has not, or says something new."""
        if self._asking is None or not self._asking.over:
            return None
        probe = self._take(self._asking)
        self._asking = None
        earlier, self._last = self._last, probe
        if earlier is None or earlier.answer is None or probe.answer is None:
            return None
        if not values.same(earlier.answer, probe.answer):
            return None
        return self._watch.converged(
            probe.chars,
            {"probes": self._requested, "earlier_tokens": earlier.tokens, "tokens": probe.tokens},
        )

    def _take(self, asking: _Asking) -> _Probe:
        self._usage.append(asking.usage)
        return asking.probe


class _Asking:
    """A probe that is on its way, in a thread of its own."""

    def __init__(
        self, request: engine.GenerationRequest, *, engine_: engine.Engine, chars: int, tokens: int
    ) -> None:
        #: What it cost so far; without a bill its tokens are counted.
        self.usage = engine.TokenUsage()
        self.probe = _Probe(chars, tokens, None)
        self._request = request
        self._engine = engine_
        self._lock = threading.Lock()
        self._stream: engine.GenerationStream | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="probe", daemon=True)
        self._thread.start()

    @property
    def over(self) -> bool:
        """Whether it has come back, with an answer or without."""
        return not self._thread.is_alive()

    def stop(self) -> None:
        """End it: at the engine first, and its reading at the latest two seconds later."""
        with self._lock:
            self._stopped, stream = True, self._stream
        if stream is not None and not self.over:
            self._engine.abort(self._request.rid)
            self._thread.join(_ABORT_GRACE_SECONDS)
            stream.close()
        self._thread.join()

    def _run(self) -> None:
        try:
            with self._engine.stream(self._request) as stream:
                with self._lock:
                    if self._stopped:
                        return
                    self._stream = stream
                self._read(stream)
        except errors.EngineError as error:
            # The trace goes on without it.
            _log.info("probe_failed", code=error.code)

    def _read(self, stream: engine.GenerationStream) -> None:
        said, tokens, closed = "", 0, False
        for chunk in stream:
            if chunk.text:
                said += chunk.text
                tokens += 1
                self.usage = engine.TokenUsage(output_tokens=tokens)
            if not closed and detectors.box_closed(said):
                closed = True
                found = extraction.extract("\\boxed{" + said)
                answer = found.text if found else None
                self.probe = dataclasses.replace(self.probe, answer=answer)
                self._engine.abort(self._request.rid)
            self.usage = chunk.usage or self.usage
