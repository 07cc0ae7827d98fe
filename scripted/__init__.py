"""The scripted engine: generates answers without a model, and simulates failures on demand.

It runs in process (:class:`Scripted`) or as a server that speaks SGLang's HTTP API (:mod:`scripted.server`).
"""

from scripted.engine import Clock, Scripted
from scripted.options import ScriptedOptions

__all__ = ["Clock", "Scripted", "ScriptedOptions"]
