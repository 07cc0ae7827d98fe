"""Signals of the supervisor: stop requests are counted, and every signal ends a wait."""

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Final

_STOP: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class SignalWait:
    """Counts SIGINT, SIGTERM and SIGHUP; :meth:`wait` returns early on them and on SIGCHLD."""

    def __init__(self, wakeups: int) -> None:
        self.stops = 0
        self._wakeups = wakeups

    def wait(self, seconds: float) -> None:
        """Wait for a signal, at most ``seconds``."""
        ready, _, _ = select.select([self._wakeups], [], [], max(0.0, seconds))
        if ready:
            os.read(self._wakeups, 4096)

    def count(self, _number: int, _frame: FrameType | None) -> None:
        """Count one stop request."""
        self.stops += 1


@contextlib.contextmanager
def handled() -> Iterator[SignalWait]:
    """Handle the signals of this process inside the block."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signals = SignalWait(reader)
    # SIGCHLD needs a handler as well: an ignored signal ends no wait.
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
