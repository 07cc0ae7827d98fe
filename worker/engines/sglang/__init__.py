"""The SGLang client: streamed chat over HTTP."""

from __future__ import annotations

from worker.engines.sglang.client import SGLang

__all__ = ["SGLang"]
