"""Says that this process lives, and shares the engines' windows among the processes that do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta

import structlog

from core.background import BackgroundLoop
from core.database import Database, DatabaseUnavailable
from jobs.store import workers
from worker.engines.pool import EnginePool

_log = structlog.get_logger(__name__)


class Heartbeat(BackgroundLoop):
    """Beats, refreshes what the engines say of themselves, and keeps the share of their windows.

    Args:
        database: where heartbeats are kept.
        engines: whose windows are shared.
        heartbeat: this process as it presents itself.
        interval_seconds: between two beats.
        alive: how recent a live worker's beat is.
        on_room: called when an engine has come (back): the bells of its absence found no room.
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
    ) -> None:
        super().__init__("heartbeat", self._beat_and_refresh, every=interval_seconds)
        self._database = database
        self._engines = engines
        self._heartbeat = heartbeat
        self._alive = alive
        self._on_room = on_room
        self._reported: tuple[workers.EngineState, ...] | None = None

    def drain(self) -> None:
        """Say from now on that no more jobs are taken here."""
        self._heartbeat = dataclasses.replace(self._heartbeat, draining=True)

    def stop(self) -> None:
        """Stop the thread and remove the process from the list of workers."""
        super().stop()
        try:
            workers.retire(self._database, self._heartbeat.id)
        except DatabaseUnavailable:
            _log.warning("worker_not_retired")

    def beat(self) -> None:
        """Beat once. Raises :class:`core.database.DatabaseUnavailable`."""
        self._reported = self._engines.states()
        heartbeat = dataclasses.replace(self._heartbeat, engines=self._reported)
        workforce = workers.beat(self._database, heartbeat, alive=self._alive)
        self._engines.share(max(1, workforce.processes))

    def _beat_and_refresh(self) -> None:
        try:
            self.beat()
            window = self._engines.window()
            self._engines.refresh()
            if self._engines.states() != self._reported:
                self.beat()
            if self._engines.window() > window:
                self._on_room()
        except DatabaseUnavailable:
            _log.warning("heartbeat_failed")
