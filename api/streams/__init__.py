"""Open requests: waits for the end of a job, and streams of its events."""

from __future__ import annotations

from api.streams.follow import Streams
from api.streams.waits import Waits

__all__ = ["Streams", "Waits"]
