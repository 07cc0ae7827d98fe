"""Whether the service lives and whether it is ready. Public, and no secrets in it."""

from __future__ import annotations

import functools
import threading
from datetime import timedelta
from http import HTTPMethod, HTTPStatus
from typing import Literal

from flask import Response

from api.framework import ResponseSpec, Router, reply
from api.schemas.problems import Health
from core import errors
from core.database import Database
from core.settings import Settings
from core.wakeup import Wakeup
from jobs.store import workers
from jobs.store.admission import Disk
from migrations import schema

State = Literal["ok", "degraded", "unavailable"]

LIVE = "/livez"
READY = "/readyz"


class HealthRoutes:
    """What load balancers and people ask.

    Without Redis and without workers jobs are still accepted: that is told, but the service is ready.

    Args:
        settings: the lease.
        database: has to answer, at this version's revision or a later one's.
        disk: has to have room.
        wakeup: is asked for Redis.
        draining: set when the service stops.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        disk: Disk,
        wakeup: Wakeup,
        draining: threading.Event,
    ) -> None:
        self._database = database
        self._disk = disk
        self._wakeup = wakeup
        self._draining = draining
        self._alive = timedelta(seconds=settings.lease_seconds)
        self._fits = functools.cache(schema.fits)

    def declare(self, router: Router) -> None:
        """Put the routes into ``router``."""
        router.declare(
            HTTPMethod.GET,
            LIVE,
            self.live,
            name="livez",
            tag="health",
            answers={200: ResponseSpec(Health, "The process lives.")},
        )
        router.declare(
            HTTPMethod.GET,
            READY,
            self.ready,
            name="readyz",
            tag="health",
            answers={
                200: ResponseSpec(Health, "Jobs are accepted."),
                503: ResponseSpec(Health, "They are not."),
            },
        )

    def live(self) -> Response:
        """Tell that the process lives."""
        return reply(Health(status="ok", checks={}))

    def ready(self) -> Response:
        """Tell whether jobs are accepted, and what is missing."""
        checks: dict[str, State] = {
            "accepting": "unavailable" if self._draining.is_set() else "ok",
            "disk": "ok" if self._disk.has_room else "unavailable",
            "redis": "ok" if self._wakeup.answers() else "degraded",
            **self._check_database(),
        }
        found = checks.values()
        status: State = "ok"
        if "unavailable" in found:
            status = "unavailable"
        elif "degraded" in found:
            status = "degraded"
        code = HTTPStatus.SERVICE_UNAVAILABLE if status == "unavailable" else HTTPStatus.OK
        return reply(Health(status=status, checks=checks), code)

    def _check_database(self) -> dict[str, State]:
        try:
            if not self._fits(schema.current(self._database)):
                return {"database": "unavailable"}
            force = workers.workforce(self._database, alive=self._alive)
        except errors.Unavailable:
            return {"database": "unavailable"}
        return {"database": "ok", "workers": "ok" if force.processes else "degraded"}
