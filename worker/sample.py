"""One engine stream from its first byte to its last: reads, records, and says how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from jobs import errors, failpoints
from jobs.store import traces
from worker import engine, leases
from worker.recorder import Live, Recorder, readable

#: The answer is whole. Whoever would stop it now comes too late: only the bill is outstanding.
_WHOLE = ("stop", "length")


@dataclass(frozen=True)
class Result:
    """How a stream ended: with a finish reason, by a fault, or stopped from outside (the holding knows why)."""

    ended: traces.Ended
    fault: errors.EngineError | None = None


def run(
    request: engine.Request,
    *,
    engine_: engine.Engine,
    holding: leases.Holding,
    recorder: Recorder,
    started_at: datetime,
    on_first_token: Callable[[], None],
) -> Result:
    """Stream ``request`` to its end and return everything it left behind, whatever happened.

    Args:
        request: what to ask.
        engine_: whom to ask.
        holding: lets the lease thread stop the stream.
        recorder: keeps the partial trace.
        started_at: the start by the database's clock; further times are measured from it.
        on_first_token: called when the engine has begun to answer.
    """
    live = recorder.open(holding.claim, sample=0, started_at=started_at)
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
                    if ending.finish_reason in _WHOLE:
                        holding.ended()
    except errors.EngineError as error:
        fault = error
    finally:
        holding.ended()
        recorder.close(live)
    if holding.reason is not None:
        fault = None
    return Result(
        ended=_ended(
            live,
            ending,
            finish_reason=_finish_reason(holding, fault, ending),
            ended_at=_later(started_at, begun),
        ),
        fault=fault,
    )


@dataclass
class _Ending:
    """What the end of a stream says."""

    finish_reason: engine.FinishReason | None = None
    usage: engine.Usage | None = None


def _keep(chunk: engine.Chunk, *, live: Live, ending: _Ending) -> None:
    if chunk.text:
        live.add(readable(chunk.text))
    ending.finish_reason = chunk.finish_reason or ending.finish_reason
    ending.usage = chunk.usage or ending.usage


def _later(started_at: datetime, begun: float) -> datetime:
    """Return now on the database's clock, measured here from a start that it gave."""
    return started_at + timedelta(seconds=time.monotonic() - begun)


def _finish_reason(
    holding: leases.Holding, fault: errors.EngineError | None, ending: _Ending
) -> str:
    if holding.reason is not None:
        return str(holding.reason)
    if fault is not None:
        return "error"
    return ending.finish_reason or "error"


def _ended(live: Live, ending: _Ending, *, finish_reason: str, ended_at: datetime) -> traces.Ended:
    usage = ending.usage
    return traces.Ended(
        output=live.text(),
        finish_reason=finish_reason,
        input_tokens=usage.input_tokens if usage else None,
        cached_tokens=usage.cached_tokens if usage else None,
        image_tokens=usage.image_tokens if usage else None,
        output_tokens=usage.output_tokens if usage else live.tokens,
        first_token_at=live.first_token_at,
        ended_at=ended_at,
        marks=live.marks,
    )
