"""Requests to stop, counted, and woken up for: the only place where a signal means something."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Final

_STOP: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class SignalWait:
    """Counts SIGINT, SIGTERM and SIGHUP; :meth:`wait` returns early for them and for a child's end."""

    def __init__(self, wakeups: int) -> None:
        self.stops = 0
        self._wakeups = wakeups

    def wait(self, seconds: float) -> None:
        """Wait for a signal, at most ``seconds``."""
        ready, _, _ = select.select([self._wakeups], [], [], max(0.0, seconds))
        if ready:
            os.read(self._wakeups, 4096)

    def count(self, _number: int, _frame: FrameType | None) -> None:
        """Count one request to stop."""
        self.stops += 1


@contextlib.contextmanager
def watched() -> Iterator[SignalWait]:
    """Take over the signals of this process for the length of the block."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signals = SignalWait(reader)
    # A handler of ours for SIGCHLD as well: an ignored signal wakes nobody up.
    before = {number: signal.signal(number, signals.count) for number in _STOP}
    before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    previous = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield signals
    finally:
        signal.set_wakeup_fd(previous)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)
