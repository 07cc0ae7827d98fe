"""Liveness and readiness. Public, without secrets."""

import functools
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from http import HTTPStatus
from typing import Final, Literal

from flask import Response

from api.framework import ResponseSpec, reply, route
from api.schemas.problems import Health
from core import errors
from core.database import Database
from core.settings import Settings
from core.wakeup import Wakeup
from jobs.store import batch_backlog, pauses, workers
from jobs.store.admission import Disk
from migrations import schema

State = Literal["ok", "degraded", "unavailable"]
#: A due batch that no process has worked on for so long is stuck. Usually it waits for seconds.
_STUCK: Final = timedelta(minutes=5)

LIVE = "/livez"
READY = "/readyz"


class HealthRoutes:
    """The routes of health checks.

    Without Redis or without workers, the service still accepts jobs: it is `degraded`, but ready.

    Args:
        settings: the maximum age of a live worker's heartbeat.
        database: must be available, at this version's revision or a later one.
        disk: must have free space.
        wakeup: checks Redis.
        draining: set while the service stops.
        check_vault: raises :class:`core.errors.VaultError` if the vault does not open the secrets of the database.
    """

    TAG = "health"

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        disk: Disk,
        wakeup: Wakeup,
        draining: threading.Event,
        check_vault: Callable[[], None],
    ) -> None:
        self._database = database
        self._disk = disk
        self._wakeup = wakeup
        self._draining = draining
        self._check_vault = check_vault
        self._alive = timedelta(seconds=settings.lease_seconds)
        self._fits = functools.cache(schema.fits)

    @route.get(
        LIVE,
        operation_id="livez",
        answers={200: ResponseSpec(Health, "The process is alive.")},
    )
    def live(self) -> Response:
        """Check that the process is alive."""
        return reply(Health(status="ok", checks={}, reasons={}, notes=[]))

    @route.get(
        READY,
        operation_id="readyz",
        answers={
            200: ResponseSpec(Health, "Jobs are accepted."),
            503: ResponseSpec(Health, "Jobs are not accepted."),
        },
    )
    def ready(self) -> Response:
        """Check whether jobs are accepted, and what is unavailable."""
        problem = self._wakeup.problem()
        checks: dict[str, State] = {
            "accepting": "unavailable" if self._draining.is_set() else "ok",
            "disk": "ok" if self._disk.has_room else "unavailable",
            "redis": "degraded" if problem else "ok",
            **self._check_database(),
        }
        reasons = {"redis": problem} if problem else {}
        seen = self._seen() if checks["database"] == "ok" else []
        if checks.get("workers") == "ok" and (cause := _no_engine(seen)):
            checks["engines"], reasons["engines"] = "degraded", cause
        if checks["database"] == "ok" and (cause := self._stuck_batch()):
            checks["batches"], reasons["batches"] = "degraded", cause
        states = checks.values()
        status: State = "ok"
        if "unavailable" in states:
            status = "unavailable"
        elif "degraded" in states:
            status = "degraded"
        notes = self._notes(seen) if checks["database"] == "ok" else []
        code = HTTPStatus.SERVICE_UNAVAILABLE if status == "unavailable" else HTTPStatus.OK
        return reply(Health(status=status, checks=checks, reasons=reasons, notes=notes), code)

    def _seen(self) -> list[workers.WorkerStatus]:
        try:
            return workers.seen(self._database, alive=self._alive)
        except errors.Unavailable:
            return []

    def _stuck_batch(self) -> str:
        """Return that batches do not proceed, or nothing."""
        try:
            waited = batch_backlog.oldest_due(self._database)
        except errors.Unavailable:
            return ""
        if waited is None or waited < _STUCK:
            return ""
        return f"No API process has worked on a due batch for {waited // timedelta(minutes=1)} minutes."

    def _notes(self, seen: Sequence[workers.WorkerStatus]) -> list[str]:
        """Return what operators have stopped. Names of accounts and engines are not public."""
        try:
            paused = pauses.active(self._database)
        except errors.Unavailable:
            return []
        return [*_of_pauses(paused), *_of_engines(workers.engines(seen))]

    def _check_database(self) -> dict[str, State]:
        try:
            self._database.check()
            if not self._fits(schema.current(self._database)):
                return {"database": "unavailable"}
            live = workers.workforce(self._database, alive=self._alive)
        except errors.Unavailable:
            return {"database": "unavailable"}
        return {
            "database": "ok",
            "workers": "ok" if live.processes else "degraded",
            "vault": self._vault(),
        }

    def _vault(self) -> State:
        """Return the state of the vault. Without it jobs run, and no webhook is sent."""
        try:
            self._check_vault()
        except (errors.VaultError, errors.Unavailable):
            return "degraded"
        return "ok"


def _no_engine(seen: Sequence[workers.WorkerStatus]) -> str:
    """Return why no job can run on an engine, without addresses, or nothing if one can or no worker has checked."""
    engines = workers.engines(seen)
    if not engines or any(engine.state != "away" for engine in engines):
        return ""
    return f"No engine responds to the workers ({len(engines)} away)."


def _of_pauses(paused: Sequence[pauses.PauseView]) -> list[str]:
    if any(pause.account_id is None and pause.priority is None for pause in paused):
        return ["The queue is paused."]
    return ["A part of the queue is paused."] if paused else []


def _of_engines(engines: Sequence[workers.EngineState]) -> list[str]:
    cordoned = sum(engine.cordoned for engine in engines)
    if not cordoned:
        return []
    if cordoned == len(engines):
        return ["All engines are cordoned: jobs stay queued."]
    return [f"{cordoned} of {len(engines)} engines are cordoned."]
