"""The scripted engine: no model, made-up answers, chosen mishaps; in process and (beside this) over HTTP."""

from __future__ import annotations

from worker.engines.scripted.engine import RealTime, Scripted, Time
from worker.engines.scripted.options import Options

__all__ = ["Options", "RealTime", "Scripted", "Time"]
