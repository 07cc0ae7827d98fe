"""One engine stream from its first byte to its last: reads, records, and says how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from core import errors, failpoints
from jobs import engine, findings
from jobs.store import traces
from worker import leases
from worker.run.trace_buffer import TraceBuffer, TraceWriter, readable

#: The answer is whole. Whoever would stop it now comes too late: only the bill is outstanding.
_WHOLE = ("stop", "length")
_ABORT_GRACE_SECONDS = 2.0


@dataclass(frozen=True)
class GenerationResult:
    """How a stream ended: with a finish reason, by a fault, or stopped from outside (the holding knows why)."""

    ended: traces.GenerationEnd
    fault: errors.EngineError | None = None


class GenerationReader(Protocol):
    """Who reads along, and may have heard enough."""

    #: How a stream ends that is stopped because it has said enough.
    finish_reason: str

    @property
    def more(self) -> bool:
        """Whether another stream is to go on from this one."""

    @property
    def found(self) -> findings.Finding | None:
        """What is to be told of the stream behind its text."""

    def see(self, text: str) -> object:
        """Take a chunk's text; something true ends the stream."""

    def end(self, text: str, finish_reason: str) -> object:
        """Take the whole text of a stream that has stopped by itself."""


def run(
    request: engine.GenerationRequest,
    *,
    engine_: engine.Engine,
    holding: leases.Lease,
    recorder: TraceWriter,
    reader: GenerationReader,
    number: int,
    started_at: datetime,
    on_first_token: Callable[[], None],
) -> GenerationResult:
    """Stream ``request`` to its end and return everything it left behind, whatever happened.

    Args:
        request: what to ask.
        engine_: whom to ask.
        holding: lets the lease thread stop the stream.
        recorder: keeps the partial trace.
        reader: says when the stream has said enough.
        number: which of the attempt's streams it is.
        started_at: the start by the database's clock; further times are measured from it.
        on_first_token: called when the engine has begun to answer.
    """
    live = recorder.open(holding.claim, generation=number, started_at=started_at)
    begun = time.monotonic()
    ending = _Ending()
    fault: errors.EngineError | None = None
    try:
        with engine_.stream(request) as stream:
            proceed = holding.attach(abort=lambda: engine_.abort(request.rid), close=stream.close)
            if proceed:
                for chunk in stream:
                    failpoints.hit("stream", "chunk")
                    if chunk.text and live.first_token_at is None:
                        live.first_token_at = _later(started_at, begun)
                        on_first_token()
                    _keep(chunk, live=live, ending=ending)
                    if ending.overdue:
                        break
                    if _enough(chunk, live=live, ending=ending, reader=reader):
                        ending.cut_at = time.monotonic()
                        engine_.abort(request.rid)
                    elif ending.whole and not reader.more:
                        holding.ended()
    except errors.EngineError as error:
        # After a cut the text is there, and only its bill may be missing.
        fault = error if ending.cut_at is None else None
    finally:
        if fault is not None or not reader.more or holding.reason is not None:
            holding.ended()
        _close(live, recorder=recorder, found=reader.found)
    if holding.reason is not None:
        fault = None
    return GenerationResult(
        ended=_ended(
            live,
            ending,
            generation=number,
            finish_reason=_finish_reason(holding, fault, ending, reader),
            ended_at=_later(started_at, begun),
        ),
        fault=fault,
    )


def unasked(
    *,
    number: int,
    started_at: datetime,
    reason: leases.StopReason | None,
    fault: errors.EngineError | None,
) -> GenerationResult:
    """Return how a stream ended whose start was noted and that no engine was asked for."""
    ended = traces.GenerationEnd(
        output="",
        finish_reason=str(reason) if reason is not None else "error",
        input_tokens=None,
        cached_tokens=None,
        image_tokens=None,
        output_tokens=0,
        first_token_at=None,
        ended_at=started_at,
        event_index=(),
        generation=number,
    )
    return GenerationResult(ended, None if reason is not None else fault)


def _close(live: TraceBuffer, *, recorder: TraceWriter, found: findings.Finding | None) -> None:
    """End the recording of a stream, with what is to be told behind its text."""
    if found is not None:
        recorder.find(live, found.plain())
    recorder.close(live)


@dataclass
class _Ending:
    """What the end of a stream says."""

    finish_reason: engine.FinishReason | None = None
    usage: engine.TokenUsage | None = None
    #: When the reader had heard enough, by the monotonic clock.
    cut_at: float | None = None
    #: Whether the reader has had the whole text.
    read: bool = False

    @property
    def overdue(self) -> bool:
        """Whether an engine goes on that was told to stop: what should come after an abort is its bill."""
        return self.cut_at is not None and time.monotonic() - self.cut_at > _ABORT_GRACE_SECONDS

    @property
    def whole(self) -> bool:
        """Whether the model has stopped by itself."""
        return self.finish_reason in _WHOLE


def _keep(chunk: engine.Chunk, *, live: TraceBuffer, ending: _Ending) -> None:
    if chunk.text:
        live.add(readable(chunk.text))
    ending.finish_reason = chunk.finish_reason or ending.finish_reason
    ending.usage = chunk.usage or ending.usage


def _enough(
    chunk: engine.Chunk, *, live: TraceBuffer, ending: _Ending, reader: GenerationReader
) -> bool:
    """Have the reader read what has come; return whether the stream has said enough, though it would go on."""
    if ending.cut_at is not None:
        return False
    if not ending.whole:
        return bool(chunk.text and reader.see(chunk.text))
    if not ending.read:
        ending.read = True
        reader.end(live.text(), ending.finish_reason or "")
    return False


def _later(started_at: datetime, begun: float) -> datetime:
    """Return now on the database's clock, measured here from a start that it gave."""
    return started_at + timedelta(seconds=time.monotonic() - begun)


def _finish_reason(
    holding: leases.Lease,
    fault: errors.EngineError | None,
    ending: _Ending,
    reader: GenerationReader,
) -> str:
    if holding.reason is not None:
        return str(holding.reason)
    if fault is not None:
        return "error"
    if ending.cut_at is not None:
        return reader.finish_reason
    return ending.finish_reason or "error"


def _ended(
    live: TraceBuffer, ending: _Ending, *, generation: int, finish_reason: str, ended_at: datetime
) -> traces.GenerationEnd:
    usage = ending.usage
    return traces.GenerationEnd(
        output=live.text(),
        finish_reason=finish_reason,
        input_tokens=usage.input_tokens if usage else None,
        cached_tokens=usage.cached_tokens if usage else None,
        image_tokens=usage.image_tokens if usage else None,
        output_tokens=usage.output_tokens if usage else live.tokens,
        first_token_at=live.first_token_at,
        ended_at=ended_at,
        event_index=live.event_index,
        generation=generation,
    )
