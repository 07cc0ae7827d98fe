"""The convergence guard: short forced answers while it grows; if two in a row agree, the trace is cut.

At a sixteenth, an eighth, a quarter and half of the budget, the engine gets the text so far once more, with words
after which it can only answer. The generation goes on meanwhile: a probe is a request of its own, at the same time,
most of whose prompt is in the engine's cache. A probe is not stored as a sample; its tokens are added to those of the
generation.
"""

from __future__ import annotations

import dataclasses
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from core import errors
from jobs import engine
from jobs.answers import extraction, values
from jobs.findings import FindingKind
from worker.guards import prompts
from worker.guards.forced_answer import box_closed
from worker.guards.protocol import GREEDY, TraceGuard
from worker.guards.trace import GuardedTrace, Verdict

_log = structlog.get_logger(__name__)

#: The most tokens of an answer that is compared.
TOKENS = 24
_SHARES = (16, 8, 4, 2)
#: No probe before this many tokens: the trace has no thought in it yet.
_LEAST_TOKENS = 32
_ABORT_GRACE_SECONDS = 2.0


@dataclass(frozen=True)
class _ProbeAnswer:
    """The answer of a probe after ``chars`` characters of ``tokens`` tokens; None if it did not come in time."""

    chars: int
    tokens: int
    answer: str | None


class ConvergenceGuard(TraceGuard):
    """Probes for the answer while a generation runs, and cuts it when two probes in a row agree.

    Args:
        request: the request of the generation.
        engine_: the engine that runs it.
    """

    every_chunk = True

    def __init__(self, request: engine.GenerationRequest, *, engine_: engine.Engine) -> None:
        self._request = request
        self._engine = engine_
        self._checkpoints: list[int] = []
        self._probe: _Probe | None = None
        self._last: _ProbeAnswer | None = None
        self._started = 0
        self._usage: list[engine.TokenUsage] = []

    def reserve(self, budget: int) -> int:
        """Keep nothing, and place the probes in the budget."""
        places = [tokens for share in _SHARES if (tokens := budget // share) >= _LEAST_TOKENS]
        # A single probe cannot agree with another one.
        self._checkpoints = places if len(places) > 1 else []
        return 0

    def see(self, trace: GuardedTrace) -> Verdict | None:
        """Return a verdict if two probes agree; start the next probe when it is due."""
        verdict = self._agreed(trace)
        # At most one probe runs at a time: a slow engine gets later and fewer ones.
        passed = [tokens for tokens in self._checkpoints if tokens <= trace.tokens]
        if verdict is None and passed and self._probe is None:
            del self._checkpoints[: len(passed)]
            self._start(trace)
        return verdict

    def stop(self) -> Sequence[engine.TokenUsage]:
        """Stop the running probe, at the engine too; return what the probes have used."""
        if self._probe is not None:
            self._probe.stop()
            self._take(self._probe)
            self._probe = None
        used, self._usage = self._usage, []
        return used

    def _start(self, trace: GuardedTrace) -> None:
        """Start a probe after the text so far, unless the final answer has begun."""
        if extraction.heading(trace.document) is not None:
            return
        text = trace.text
        self._started += 1
        self._probe = _Probe(
            dataclasses.replace(
                self._request,
                rid=uuid.uuid4().hex,
                sampling=GREEDY,
                max_output_tokens=TOKENS,
                continuation=text.rstrip() + prompts.forced_answer(trace.question),
            ),
            engine_=self._engine,
            chars=len(text),
            tokens=trace.tokens,
        )

    def _agreed(self, trace: GuardedTrace) -> Verdict | None:
        """Return a verdict if a probe has ended with the same answer as the one before it."""
        if self._probe is None or not self._probe.over:
            return None
        probed = self._take(self._probe)
        self._probe = None
        earlier, self._last = self._last, probed
        if earlier is None or earlier.answer is None or probed.answer is None:
            return None
        if not values.same(earlier.answer, probed.answer):
            return None
        evidence = {
            "probes": self._started,
            "earlier_tokens": earlier.tokens,
            "tokens": probed.tokens,
        }
        finding = trace.finding(
            FindingKind.CONVERGED, probed.chars, trace.length, evidence, spared=True
        )
        return trace.force(finding, trace.text, probed.chars)

    def _take(self, probe: _Probe) -> _ProbeAnswer:
        self._usage.append(probe.usage)
        return probe.answered


class _Probe:
    """A probe that runs, in a thread of its own."""

    def __init__(
        self, request: engine.GenerationRequest, *, engine_: engine.Engine, chars: int, tokens: int
    ) -> None:
        #: What it has used; without a bill, the chunks are counted.
        self.usage = engine.TokenUsage()
        self.answered = _ProbeAnswer(chars, tokens, None)
        self._request = request
        self._engine = engine_
        self._lock = threading.Lock()
        self._stream: engine.GenerationStream | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="probe", daemon=True)
        self._thread.start()

    @property
    def over(self) -> bool:
        """Whether it has ended, with an answer or without."""
        return not self._thread.is_alive()

    def stop(self) -> None:
        """End it: abort at the engine first, and close the connection after two seconds."""
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
            # The trace continues without it.
            _log.info("probe_failed", code=error.code)

    def _read(self, stream: engine.GenerationStream) -> None:
        text, tokens, closed = "", 0, False
        for chunk in stream:
            if chunk.text:
                text += chunk.text
                tokens += 1
                self.usage = engine.TokenUsage(output_tokens=tokens)
            if not closed and box_closed(text):
                closed = True
                extracted = extraction.extract("\\boxed{" + text, ended=False)
                answer = extracted.text if extracted else None
                self.answered = dataclasses.replace(self.answered, answer=answer)
                self._engine.abort(self._request.rid)
            self.usage = chunk.usage or self.usage
