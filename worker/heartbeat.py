"""The heartbeat of a worker process; divides the engines' windows among the processes that are alive."""

import dataclasses
from collections.abc import Callable
from datetime import timedelta

import structlog

from core.background import BackgroundLoop
from core.database import Database
from core.database_faults import DatabaseUnavailable
from jobs.store import workers
from worker.engines.pool import EnginePool

_log = structlog.get_logger(__name__)


class Heartbeat(BackgroundLoop):
    """Stores a heartbeat, refreshes the facts about the engines, and updates the share of their windows.

    Args:
        database: where heartbeats are stored.
        engines: the engines whose windows are divided.
        heartbeat: the description of this process.
        interval_seconds: between two heartbeats.
        alive: the greatest age of a live worker's heartbeat.
        on_room: called when an engine becomes available: the wakeups during its absence found no room.
        on_drain: called when an operator wants this process to take no more jobs.
        on_undrain: called at heartbeats of a draining process that no operator wants drained.
    """

    def __init__(
        self,
        database: Database,
        *,
        engines: EnginePool,
        heartbeat: workers.WorkerHeartbeat,
        interval_seconds: float,
        alive: timedelta,
        on_room: Callable[[], None],
        on_drain: Callable[[], None] = lambda: None,
        on_undrain: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__("heartbeat", self._beat_and_refresh, every=interval_seconds)
        self._database = database
        self._engines = engines
        self._heartbeat = heartbeat
        self._alive = alive
        self._on_room = on_room
        self._on_drain = on_drain
        self._on_undrain = on_undrain
        #: The live workers that take jobs, as of the last heartbeat.
        self.live = 0
        self._reported: tuple[workers.EngineState, ...] | None = None

    def drain(self) -> None:
        """Report from now on that this process takes no more jobs."""
        self._heartbeat = dataclasses.replace(self._heartbeat, draining=True)

    def undrain(self) -> None:
        """Report from now on that this process takes jobs."""
        self._heartbeat = dataclasses.replace(self._heartbeat, draining=False)

    def stop(self) -> None:
        """Stop the thread and remove the process from the list of workers."""
        super().stop()
        try:
            workers.retire(self._database, self._heartbeat.id)
        except DatabaseUnavailable:
            _log.warning("worker_not_retired")

    def beat(self) -> None:
        """Store one heartbeat, and obey what operators want.

        Raises:
            core.database_faults.DatabaseUnavailable: the database does not answer.
        """
        orders = workers.orders(self._database, self._heartbeat.id)
        self._engines.cordon(orders.cordoned)
        if orders.drain and not self._heartbeat.draining:
            self._on_drain()
        undrained = orders.drain is False and self._heartbeat.draining
        if undrained:
            self._on_undrain()
        self._reported = self._engines.states()
        heartbeat = dataclasses.replace(self._heartbeat, engines=self._reported)
        workforce = workers.beat(self._database, heartbeat, alive=self._alive)
        self.live = workforce.processes
        self._engines.share(max(1, workforce.processes))
        if undrained:
            # The wakeups of the meantime went to other workers.
            self._on_room()

    def _beat_and_refresh(self) -> None:
        try:
            window = self._engines.window()
            self.beat()
            self._engines.refresh()
            if _without_use(self._engines.states()) != _without_use(self._reported):
                self.beat()
            if self._engines.window() > window:
                self._on_room()
        except DatabaseUnavailable:
            _log.warning("heartbeat_failed")


def _without_use(
    states: tuple[workers.EngineState, ...] | None,
) -> list[workers.EngineState] | None:
    """Return the states without what changes with each stream, which is no reason for one more heartbeat."""
    if states is None:
        return None
    return [dataclasses.replace(state, running=0) for state in states]
