"""Submits a job in a thread of its own, so that the response can begin before the job is accepted."""

from __future__ import annotations

import threading
from collections.abc import Callable

from api.framework import spooling
from api.serving import current
from api.submission import Accepted


class Preparation:
    """The submission of a job, as a part of the current request.

    Args:
        submit: returns the accepted job, or raises why it is refused.
        discard: called with an accepted job whose client no longer waits.
    """

    def __init__(
        self, submit: Callable[[], Accepted], *, discard: Callable[[Accepted], None]
    ) -> None:
        self._submit = submit
        self._discard = discard
        self._lock = threading.Lock()
        self._abandoned = False
        self._done = threading.Event()
        self._accepted: Accepted | None = None
        self._error: BaseException | None = None
        run = current.carried(spooling.carried(self._run))
        threading.Thread(target=run, name="preparation", daemon=True).start()

    def over(self, seconds: float) -> bool:
        """Wait for up to ``seconds``; return whether the job was accepted or refused."""
        return self._done.wait(seconds)

    def accepted(self) -> Accepted:
        """Return the accepted job, or raise the error with which it was refused."""
        if self._error is not None:
            raise self._error
        assert self._accepted is not None  # noqa: S101 - it is over
        return self._accepted

    def abandon(self) -> None:
        """Wait for the job no longer: discard it when it is accepted."""
        with self._lock:
            self._abandoned = True
            accepted = self._accepted
        if accepted is not None:
            self._discard(accepted)

    def _run(self) -> None:
        try:
            accepted = self._submit()
        except BaseException as error:  # noqa: BLE001 - the thread of the request raises it
            self._error = error
        else:
            with self._lock:
                self._accepted = accepted
                abandoned = self._abandoned
            if abandoned:
                self._discard(accepted)
        finally:
            self._done.set()
