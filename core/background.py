"""Background threads: one class for every thread that works in rounds until its process stops it."""

import threading
from collections.abc import Callable


class BackgroundLoop:
    """Runs ``round_`` in a daemon thread, again and again, until it is stopped.

    A loop is used as it is, or as the base class of a service. The thread starts with :meth:`start` and not before:
    threads do not survive a fork.

    Args:
        name: the thread's name.
        round_: one round of work. It may return the seconds until the next round, which replace ``every``. What it
            raises ends the thread, and with :func:`core.process.exit_on_thread_death` the process.
        every: seconds between two rounds; a function returns them each time; None waits for :meth:`wake`.
        first: seconds before the first round; None waits for :meth:`wake`.
        after: called in the thread after the last round.
        join_seconds: how long :meth:`stop` waits for the thread at most; None has no limit.
    """

    def __init__(
        self,
        name: str,
        round_: Callable[[], float | None],
        *,
        every: float | Callable[[], float] | None = None,
        first: float | None = 0.0,
        after: Callable[[], None] = lambda: None,
        join_seconds: float | None = None,
    ) -> None:
        self._name = name
        self._round = round_
        self._every = every
        self._first = first
        self._after = after
        self._join_seconds = join_seconds
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._woken = threading.Event()

    @property
    def stopping(self) -> bool:
        """Whether the loop has been asked to stop."""
        return self._stopping.is_set()

    def start(self) -> None:
        """Start the thread, unless it runs. After a request to stop it only calls ``after``."""
        with self._starting:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def wake(self) -> None:
        """Begin the next round at once, or right after the one that runs."""
        self._woken.set()

    def request_stop(self) -> None:
        """Ask the loop to stop after the current round, without waiting; safe in a signal handler."""
        self._stopping.set()
        self._woken.set()

    def stop(self) -> None:
        """Ask the loop to stop and wait until its thread has ended."""
        self.request_stop()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(self._join_seconds)

    def pause(self, seconds: float) -> bool:
        """Wait within a round; return whether the loop is asked to stop, which ends the wait early."""
        return self._stopping.wait(seconds)

    def _run(self) -> None:
        pause = self._first
        while not self.stopping:
            self._woken.wait(pause)
            # Cleared before the work is looked at: what comes later sets it again.
            self._woken.clear()
            if self.stopping:
                break
            pause = self._round()
            if pause is None:
                pause = self._every() if callable(self._every) else self._every
        self._after()
