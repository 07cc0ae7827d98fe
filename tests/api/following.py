"""A follower of a job: reads the stream in a thread and stores its events.

The frames are taken apart by the decoder of the ``openai`` client, which is the pickiest one we know of.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from openai._streaming import SSEDecoder

Json = dict[str, Any]


class Follower:
    """Reads ``data``, the bytes of a stream, until it ends or :meth:`leave` is called."""

    def __init__(self, data: Iterable[bytes], *, close: Callable[[], None]) -> None:
        self.events: list[Json] = []
        self.ids: list[str | None] = []
        self.ended = threading.Event()
        self._data = data
        self._close = close
        self._leaving = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """Go away at the next thing that comes."""
        self._leaving = True
        self._thread.join(30)

    def join(self) -> list[Json]:
        """Wait for the end of the stream and return its events."""
        assert self.ended.wait(60), "the stream did not end"
        return self.events

    def text(self, *, attempt: int = 1) -> str:
        """Return the text of an attempt."""
        return text(self.events, attempt=attempt)

    def kinds(self) -> list[str]:
        """Return the types of all events."""
        return [event["type"] for event in self.events]

    def _pieces(self) -> Iterator[bytes]:
        for piece in self._data:
            if self._leaving:
                return
            yield piece

    def _read(self) -> None:
        try:
            for frame in SSEDecoder().iter_bytes(self._pieces()):
                self.ids.append(frame.id)
                self.events.append(json.loads(frame.data))
        finally:
            self._close()
            self.ended.set()


def text(events: Iterable[Json], *, attempt: int = 1) -> str:
    """Return the concatenated deltas of an attempt."""
    return "".join(
        event["delta"]
        for event in events
        if event["type"] == "trace.delta" and event["attempt"] == attempt
    )
