"""The threads that run requests: places for them, and what a request may do from its thread."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from gunicorn.config import Config

from api.serving.answers import Application, RequestRunner
from api.serving.connections import RequestCycle
from api.serving.identities import Identities
from api.serving.limits import ServerLimits
from api.serving.refusals import EarlyRefusal, overloaded
from api.serving.threads import Threads

#: How long a thread may hold the interpreter lock, by whether several requests run. With CPython's default of 5 ms, a
#: short request waits for all running threads after each of its reads. With less, streams cost more CPU time.
_SWITCH_SECONDS: Final = {True: 0.0005, False: 0.005}


class RequestThreads:
    """Runs requests: those of some paths in a thread of their own, all others in shared ones.

    Args:
        application: the WSGI application.
        cfg: gunicorn's configuration.
        limits: the limits of the server.
        apart: paths with a thread of their own.
        known: the accounts of keys.
        alive: whether the server is not stopping.
        finished: called in the thread of a request after its end.
    """

    def __init__(
        self,
        application: Application,
        *,
        cfg: Config,
        limits: ServerLimits,
        apart: Sequence[str],
        known: Identities,
        alive: Callable[[], bool],
        finished: Callable[[RequestCycle], None],
    ) -> None:
        self._limits = limits
        self._known = known
        self._finished = finished
        self._runner = RequestRunner(
            application,
            cfg=cfg,
            seconds=limits.write_seconds,
            alive=alive,
            refused=known.forget,
        )
        self._threads = Threads(
            limits.threads,
            waiting=limits.waiting,
            run=self._run,
            name="request",
            crowded=_share_interpreter,
        )
        self._apart = {
            path: Threads(1, waiting=limits.waiting, run=self._run, name=path.strip("/"))
            for path in apart
        }

    @property
    def waiting(self) -> int:
        """The number of requests that wait for a shared thread."""
        return self._threads.waiting

    @property
    def running(self) -> int:
        """The number of requests that threads run."""
        return sum(threads.running for threads in (self._threads, *self._apart.values()))

    def submit(self, cycle: RequestCycle) -> None:
        """Run a complete request, or let it wait for a thread.

        Raises:
            EarlyRefusal: too many requests wait.
        """
        threads = self._apart.get(cycle.head.path)
        if threads is not None:
            cycle.group = cycle.group if cycle.charged else cycle.address
        if not (threads or self._threads).submit(cycle):
            raise self.no_thread()

    def overdue(self, now: float) -> Iterator[RequestCycle]:
        """Yield the requests that have waited for a thread too long; they wait no more."""
        for threads in (self._threads, *self._apart.values()):
            yield from threads.overdue(now)

    def no_thread(self) -> EarlyRefusal:
        """Return the refusal of a request that gets no thread."""
        limits = self._limits
        return overloaded(
            f"At most {limits.waiting} requests may wait for a thread, each for {limits.queue_seconds:g} seconds, and "
            "each account or address has a share of them. This request exceeds its share or its time."
        )

    def hold(self, cycle: RequestCycle, hung_up: Callable[[], None]) -> None:
        """Give up the request's place, and call ``hung_up`` when its client disconnects. Called by its thread."""
        cycle.hung_up = hung_up
        if cycle.gone:
            # The client disconnected before `hung_up` was set.
            hung_up()
        if cycle.head.path not in self._apart:
            self._threads.step_aside(cycle)

    def step_aside(self, cycle: RequestCycle) -> bool:
        """Give up the request's place; return whether it had one. Called by its thread."""
        return cycle.head.path not in self._apart and self._threads.step_aside(cycle)

    def step_back(self, cycle: RequestCycle) -> None:
        """Take a place for the request again. Called by its thread."""
        self._threads.step_back(cycle)

    def learn(self, key: bytes, account_id: uuid.UUID) -> None:
        """Remember the account of a key. Called by the thread of a request."""
        self._known.learn(key, account_id)

    def _run(self, cycle: RequestCycle) -> None:
        self._runner.run(cycle)
        self._finished(cycle)


def _share_interpreter(crowded: bool) -> None:  # noqa: FBT001 - a callback
    """Let threads take turns quickly while several requests run."""
    sys.setswitchinterval(_SWITCH_SECONDS[crowded])
