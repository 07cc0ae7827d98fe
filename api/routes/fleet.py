"""``/v1/engines`` and ``/v1/workers``: which of them get new jobs. For operators."""

from datetime import timedelta

import flask
import structlog
from flask import Response

from api import errors as problems
from api import framework
from api.auth import Caller, Right
from api.framework import RequestBodySpec, ResponseSpec, reply, route
from api.schemas import fleet as schemas
from api.schemas.queue import QueueWorker
from core.database import Database
from core.settings import Settings
from jobs.store import accounts, statistics, workers

_log = structlog.get_logger(__name__)


class FleetRoutes:
    """The routes of engines and workers.

    Args:
        settings: the maximum age of a live worker's heartbeat.
        database: stores heartbeats, cordons and drains.
    """

    TAG = "operations"

    def __init__(self, settings: Settings, *, database: Database) -> None:
        self._alive = timedelta(seconds=settings.lease_seconds)
        self._database = database

    @route.get(
        "/v1/engines",
        operation_id="listEngines",
        guard=Right.EVERYWHERE,
        answers={200: ResponseSpec(schemas.FleetEngines, "The engines.")},
    )
    def engines(self) -> Response:
        """List the engines that live workers report, and their cordons."""
        cordons = workers.cordons(self._database)
        seen = workers.engines(workers.seen(self._database, alive=self._alive))
        # A cordon stays when no worker reports the engine, and may wait for it.
        missing = cordons.keys() - {engine.url for engine in seen}
        listed = [
            *seen,
            *(workers.EngineState(url, "away", cordoned=True) for url in sorted(missing)),
        ]
        names = accounts.key_names(
            self._database, [cordon.cordoned_by for cordon in cordons.values()]
        )
        data = []
        for engine in listed:
            cordon = cordons.get(engine.url)
            data.append(
                schemas.FleetEngine.from_record(
                    engine,
                    cordoned_at=cordon and cordon.cordoned_at,
                    cordoned_by=cordon and cordon.cordoned_by,
                    cordoned_by_name=cordon and names.get(cordon.cordoned_by),
                    reason=cordon and cordon.reason,
                )
            )
        return reply(schemas.FleetEngines(data=data))

    @route.post(
        "/v1/engines/cordon",
        operation_id="cordonEngine",
        guard=Right.EVERYWHERE,
        answers={200: ResponseSpec(schemas.FleetEngines, "The engines.")},
        faults=(400, 404, 413, 415, 422),
        body=RequestBodySpec({"application/json": schemas.EngineCordonRequest}),
    )
    def cordon(self, caller: Caller) -> Response:
        """Give an engine no new jobs. Workers obey at their next heartbeat.

        Jobs that run on it finish there. It is drained once `cordoned` is true and `running` is 0.
        """
        requested = framework.read_model(flask.request, schemas.EngineCordonRequest)
        seen = workers.engines(workers.seen(self._database, alive=self._alive))
        if requested.url not in {engine.url for engine in seen}:
            raise problems.not_found("engine")
        workers.cordon(self._database, requested.url, actor=caller.actor, reason=requested.reason)
        _log.info("engine_cordoned", url=requested.url, actor=caller.actor)
        return self.engines()

    @route.post(
        "/v1/engines/uncordon",
        operation_id="uncordonEngine",
        guard=Right.EVERYWHERE,
        answers={200: ResponseSpec(schemas.FleetEngines, "The engines.")},
        faults=(400, 404, 413, 415, 422),
        body=RequestBodySpec({"application/json": schemas.EngineName}),
    )
    def uncordon(self, caller: Caller) -> Response:
        """Give an engine new jobs again, from the next heartbeats of the workers on."""
        requested = framework.read_model(flask.request, schemas.EngineName)
        if not workers.uncordon(self._database, requested.url):
            raise problems.not_found("cordoned engine")
        _log.info("engine_uncordoned", url=requested.url, actor=caller.actor)
        return self.engines()

    @route.get(
        "/v1/workers",
        operation_id="listWorkers",
        guard=Right.EVERYWHERE,
        answers={200: ResponseSpec(schemas.FleetWorkers, "The workers.")},
    )
    def workers(self) -> Response:
        """List the worker processes, and how many jobs each runs."""
        held = statistics.held(self._database)
        data = []
        for worker in workers.seen(self._database, alive=self._alive):
            shown = QueueWorker.of(worker)
            data.append(
                schemas.FleetWorker.from_record(
                    worker, **dict(shown), running=held.get(shown.id, 0)
                )
            )
        return reply(schemas.FleetWorkers(data=data))

    @route.post(
        "/v1/workers/drain",
        operation_id="drainWorker",
        guard=Right.EVERYWHERE,
        answers={200: ResponseSpec(schemas.FleetWorkers, "The workers.")},
        faults=(400, 404, 413, 415, 422),
        body=RequestBodySpec({"application/json": schemas.WorkerName}),
    )
    def drain(self, caller: Caller) -> Response:
        """Let a worker take no more jobs, from its next heartbeat on. Its running jobs finish.

        The process stays until it is stopped; a new process takes jobs. It is drained once its state is `draining` and
        `running` is 0.
        """
        requested = framework.read_model(flask.request, schemas.WorkerName)
        if not workers.request_drain(self._database, requested.worker, actor=caller.actor):
            raise problems.not_found("worker")
        _log.info("worker_drain_requested", worker=requested.worker, actor=caller.actor)
        return self.workers()

    @route.post(
        "/v1/workers/undrain",
        operation_id="undrainWorker",
        guard=Right.EVERYWHERE,
        answers={200: ResponseSpec(schemas.FleetWorkers, "The workers.")},
        faults=(400, 404, 413, 415, 422),
        body=RequestBodySpec({"application/json": schemas.WorkerName}),
    )
    def undrain(self, caller: Caller) -> Response:
        """Let a drained worker take jobs again, from its next heartbeat on. A process that stops does not."""
        requested = framework.read_model(flask.request, schemas.WorkerName)
        if not workers.undrain(self._database, requested.worker):
            raise problems.not_found("drained worker")
        _log.info("worker_undrained", worker=requested.worker, actor=caller.actor)
        return self.workers()
