"""One generation, from the first byte of its stream to the last: reads, records, and returns how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from core import errors, failpoints
from jobs import engine, findings
from jobs.store import traces
from worker import leases
from worker.guards.protocol import GenerationResult, GuardedGeneration
from worker.run.trace_buffer import TraceBuffer, TraceWriter, readable

#: The text is complete and only the bill is missing: it is too late to stop the generation.
_WHOLE = ("stop", "length")
_ABORT_GRACE_SECONDS = 2.0


def run(
    generation: GuardedGeneration,
    *,
    engine_: engine.Engine,
    lease: leases.Lease,
    trace_writer: TraceWriter,
    pending: Callable[[], bool],
    number: int,
    started_at: datetime,
    on_first_token: Callable[[], None],
) -> GenerationResult:
    """Stream a generation to its end and return everything it left behind, whatever happened.

    Args:
        generation: the request, and the reader that may cut the stream.
        engine_: runs it.
        lease: lets other threads stop the stream.
        trace_writer: stores the partial trace.
        pending: whether another generation is expected after this one; until the last one ends, the job can be
            stopped.
        number: which of the attempt's generations it is.
        started_at: the start by the database's clock; further times are measured from it.
        on_first_token: called when the engine begins to answer.
    """
    request = generation.request
    buffer = trace_writer.open(lease.claim, generation=number, started_at=started_at)
    begun = time.monotonic()
    ending = _Ending()
    fault: errors.EngineError | None = None
    try:
        with engine_.stream(request) as stream:
            proceed = lease.attach(abort=lambda: engine_.abort(request.rid), close=stream.close)
            if proceed:
                for chunk in stream:
                    failpoints.hit("stream", "chunk")
                    if chunk.text and buffer.first_token_at is None:
                        buffer.first_token_at = _later(started_at, begun)
                        on_first_token()
                    _keep(chunk, buffer=buffer, ending=ending)
                    if ending.overdue:
                        break
                    if _cuts(chunk, buffer=buffer, ending=ending, generation=generation):
                        ending.cut_at = time.monotonic()
                        engine_.abort(request.rid)
                    elif ending.whole and not pending():
                        lease.ended()
    except errors.EngineError as error:
        # After a cut the text is complete, and only the bill may be missing.
        fault = error if ending.cut_at is None else None
    finally:
        if fault is not None or not pending() or lease.reason is not None:
            lease.ended()
        _close(buffer, trace_writer=trace_writer, finding=generation.finding)
    reason = lease.reason
    if reason is not None:
        fault = None
    return GenerationResult(
        _end(
            buffer,
            ending,
            number=number,
            finish_reason=_finish_reason(reason, fault, ending, cut=generation.finish_reason),
            ended_at=_later(started_at, begun),
        ),
        fault,
        stopped=reason is not None,
    )


def not_started(
    *,
    number: int,
    started_at: datetime,
    reason: leases.StopReason | None,
    fault: errors.EngineError | None,
) -> GenerationResult:
    """Return the result of a generation whose start is stored and that no engine was asked for."""
    end = traces.GenerationEnd(
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
    return GenerationResult(end, None if reason is not None else fault, stopped=reason is not None)


def _close(
    buffer: TraceBuffer, *, trace_writer: TraceWriter, finding: findings.Finding | None
) -> None:
    """End the recording of a stream, with the finding after its text."""
    if finding is not None:
        trace_writer.add_finding(buffer, finding.plain())
    trace_writer.close(buffer)


@dataclass
class _Ending:
    """What the end of a stream says."""

    finish_reason: engine.FinishReason | None = None
    usage: engine.TokenUsage | None = None
    #: When the reader cut the stream, by the monotonic clock.
    cut_at: float | None = None
    #: Whether the reader has read the whole text.
    read: bool = False

    @property
    def overdue(self) -> bool:
        """Whether the engine still streams after an abort, which only token counts should follow."""
        return self.cut_at is not None and time.monotonic() - self.cut_at > _ABORT_GRACE_SECONDS

    @property
    def whole(self) -> bool:
        """Whether the model has ended the text."""
        return self.finish_reason in _WHOLE


def _keep(chunk: engine.Chunk, *, buffer: TraceBuffer, ending: _Ending) -> None:
    if chunk.text:
        buffer.add(readable(chunk.text), chunk.output_tokens)
    ending.finish_reason = chunk.finish_reason or ending.finish_reason
    ending.usage = chunk.usage or ending.usage


def _cuts(
    chunk: engine.Chunk, *, buffer: TraceBuffer, ending: _Ending, generation: GuardedGeneration
) -> bool:
    """Let the reader read what has come; return whether it cuts a stream that would go on."""
    if ending.cut_at is not None:
        return False
    if not ending.whole:
        return bool(chunk.text and generation.see(chunk.text, chunk.output_tokens))
    if not ending.read:
        ending.read = True
        generation.end(buffer.text(), ending.finish_reason or "")
    return False


def _later(started_at: datetime, begun: float) -> datetime:
    """Return the time on the database's clock, measured here from the start that it gave."""
    return started_at + timedelta(seconds=time.monotonic() - begun)


def _finish_reason(
    reason: leases.StopReason | None,
    fault: errors.EngineError | None,
    ending: _Ending,
    *,
    cut: str,
) -> str:
    if reason is not None:
        return str(reason)
    if fault is not None:
        return "error"
    if ending.cut_at is not None:
        return cut
    return ending.finish_reason or "error"


def _end(
    buffer: TraceBuffer, ending: _Ending, *, number: int, finish_reason: str, ended_at: datetime
) -> traces.GenerationEnd:
    usage = ending.usage
    return traces.GenerationEnd(
        output=buffer.text(),
        finish_reason=finish_reason,
        input_tokens=usage.input_tokens if usage else None,
        cached_tokens=usage.cached_tokens if usage else None,
        image_tokens=usage.image_tokens if usage else None,
        output_tokens=usage.output_tokens if usage else buffer.tokens,
        first_token_at=buffer.first_token_at,
        ended_at=ended_at,
        event_index=buffer.event_index,
        generation=number,
    )
