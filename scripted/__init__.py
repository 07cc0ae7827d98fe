"""The scripted engine: no model, made-up answers, chosen mishaps; in process and (beside this) over HTTP."""

from __future__ import annotations

from scripted.engine import RealTime, Scripted, Time
from scripted.options import ScriptedOptions

__all__ = ["RealTime", "Scripted", "ScriptedOptions", "Time"]
