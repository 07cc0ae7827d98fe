"""The small model that ships with the service, and what it was trained by."""

from __future__ import annotations

from pathlib import Path

_TINY_QVQ = Path(__file__).resolve().parent / "tiny-qvq"

#: The folder that SGLang loads.
CHECKPOINT = _TINY_QVQ / "checkpoint"
#: Images with questions and true answers, in ``samples.json``.
SAMPLES = _TINY_QVQ / "samples"
