"""Random faults from a seed: target, time and duration. At the end, all faults are undone."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import redis

from tests.chaos.deployment import LEASE_SECONDS, Deployment

#: Seconds between two faults.
PAUSE = (1.0, 4.0)
_TICK_SECONDS = 0.1


@dataclass(frozen=True)
class Fault:
    """An injected fault.

    Attributes:
        kind: kind of fault.
        at: time of the fault.
        pid: the affected worker, or None if the fault affects all workers.
    """

    kind: str
    at: datetime
    pid: int | None = None


class Storm:
    """Injects faults into a deployment. Use it in the thread that created it, whose children the processes are.

    Args:
        house: the deployment.
        rng: determines all faults.
    """

    def __init__(self, deployment: Deployment, *, rng: random.Random) -> None:
        self.faults: list[Fault] = []
        self._deployment = deployment
        self._rng = rng
        #: Scheduled actions, mostly the ends of faults; the number orders equal times.
        self._later: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._turn: list[str] = []
        self._kinds: dict[str, Callable[[], int | None]] = {
            "worker killed": self._kill_worker,
            "worker drained": self._drain_worker,
            "worker frozen beyond its lease": self._freeze_worker,
            "redis flushed": self._flush_redis,
            "redis killed": self._kill_redis,
            "redis half open": self._break_redis,
            "engine killed": self._kill_engine,
            "engine reset": self._reset_engine,
            "engine half open": self._break_engine,
            "delivery killed": self._kill_delivery,
            "delivery drained": self._drain_delivery,
            "receiver failing": self._break_receiver,
            "api killed": self._kill_api,
            "api's process killed": self._kill_api_process,
        }
        if deployment.postgres is not None and deployment.postgres.ours:
            self._kinds["database restarted"] = self._restart_database

    def rage(self, seconds: float) -> None:
        """Inject faults for ``seconds``, and half of the kinds at least, however long they take on a busy machine."""
        until = time.monotonic() + seconds
        while time.monotonic() < until or len(self.faults) < len(self._kinds) / 2:
            self.calm(self._rng.uniform(*PAUSE))
            self._hurt()

    def calm(self, seconds: float) -> None:
        """Inject no more faults for some seconds, end faults that are due, and restart dead processes."""
        until = time.monotonic() + seconds
        pause = threading.Event()
        while time.monotonic() < until:
            self._end_due(time.monotonic())
            self._deployment.tend()
            pause.wait(_TICK_SECONDS)

    def end(self) -> None:
        """End all remaining faults."""
        while self._later:
            self._end_due(float("inf"))
        self._deployment.tend()

    def _hurt(self) -> None:
        if not self._turn:
            # Each kind takes a turn in random order, so that a short storm includes most kinds.
            self._turn = self._rng.sample(sorted(self._kinds), k=len(self._kinds))
        kind, at = self._turn.pop(), datetime.now(UTC)
        self.faults.append(Fault(kind, at, self._kinds[kind]()))

    def _end_due(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            heapq.heappop(self._later)[2]()

    def _after(self, seconds: float, do: Callable[[], object]) -> None:
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._numbers), do))

    def _some_worker(self) -> str:
        """Return a healthy worker, or None."""
        workers = self._deployment.workers
        well = [name for name in workers if workers[name].well]
        return self._rng.choice([*filter(self._deployment.up, well)] or well or [*workers])

    def _kill_worker(self) -> int:
        name = self._some_worker()
        self._deployment.kill(name)
        return self._deployment.places[name].process.pid

    def _drain_worker(self) -> int:
        name = self._some_worker()
        if self._deployment.up(name):
            self._deployment.ask_to_leave(name)
        return self._deployment.places[name].process.pid

    def _freeze_worker(self) -> int:
        name = self._some_worker()
        self._deployment.freeze(name)
        seconds = LEASE_SECONDS * self._rng.uniform(1.5, 2.5)
        self._after(seconds, lambda: self._deployment.thaw(name))
        return self._deployment.places[name].process.pid

    def _flush_redis(self) -> None:
        with contextlib.suppress(
            redis.ConnectionError
        ):  # Redis is down and therefore forgets its data anyway.
            self._deployment.redis.flush()

    def _kill_redis(self) -> None:
        self._deployment.redis.stop(signal.SIGKILL)
        self._after(self._rng.uniform(0, 4), self._raise_redis)

    def _raise_redis(self) -> None:
        # A second fault with its own end may have occurred in the meantime.
        self._deployment.redis.stop(signal.SIGKILL)
        self._deployment.redis.start()

    def _break_redis(self) -> None:
        self._deployment.redis_proxy.break_half()
        self._after(self._rng.uniform(4, 10), self._deployment.redis_proxy.reset)

    def _kill_engine(self) -> None:
        self._deployment.places["engine"].down = True
        self._deployment.kill("engine")
        self._after(self._rng.uniform(0, 3), self._raise_engine)

    def _raise_engine(self) -> None:
        self._deployment.places["engine"].down = False

    def _reset_engine(self) -> None:
        self._deployment.engine_proxy.reset()

    def _break_engine(self) -> None:
        self._deployment.engine_proxy.break_half()
        self._after(self._rng.uniform(4, 10), self._deployment.engine_proxy.reset)

    def _kill_delivery(self) -> None:
        self._deployment.kill(self._rng.choice([*self._deployment.deliveries]))

    def _drain_delivery(self) -> None:
        name = self._rng.choice([*self._deployment.deliveries])
        if self._deployment.up(name):
            self._deployment.ask_to_leave(name)

    def _break_receiver(self) -> None:
        self._deployment.receiver.status = 503
        self._after(self._rng.uniform(1, 4), self._mend_receiver)

    def _mend_receiver(self) -> None:
        self._deployment.receiver.status = 200

    def _kill_api(self) -> None:
        self._deployment.kill("api")

    def _kill_api_process(self) -> None:
        self._deployment.kill_children("api")

    def _restart_database(self) -> None:
        self._deployment.restart_database()
