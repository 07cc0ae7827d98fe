"""Requests that are held open: those who wait for a job's end, and those who follow its events."""

from __future__ import annotations

from api.streams.follow import Streams
from api.streams.waits import Waits

__all__ = ["Streams", "Waits"]
