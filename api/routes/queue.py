"""``/v1/queue``: the state of the queue and its pauses; ``/v1/jobs/{id}/run_now``: end a job's wait."""

import uuid
from collections.abc import Sequence
from datetime import timedelta

import flask
import structlog
from flask import Response

from api import errors as problems
from api import framework
from api.auth import Caller, Gate, Right
from api.framework import RequestBodySpec, ResponseSpec, reply, route
from api.schemas.jobs import Job
from api.schemas.parameters import QueueQuery
from api.schemas.paths import JobId
from api.schemas.queue import (
    QueuePause,
    QueuePauseList,
    QueuePauseRequest,
    QueuePausesQuery,
    QueueResumed,
    QueueScope,
    QueueState,
)
from api.serving import current
from core import errors
from core.database import Database
from core.settings import Settings
from core.wakeup import Wakeup
from jobs.lifecycle import Priority, Status
from jobs.store import accounts, commands, expiry, history, pauses, statistics, workers
from webhooks import claims

_log = structlog.get_logger(__name__)


class QueueRoutes:
    """The routes of the queue.

    Args:
        settings: the maximum age of a live worker's heartbeat.
        database: stores jobs and heartbeats.
        wakeup: wakes workers for a job whose wait has ended.
        gate: resolves accounts.
    """

    TAG = "operations"

    def __init__(
        self, settings: Settings, *, database: Database, wakeup: Wakeup, gate: Gate
    ) -> None:
        self._alive = timedelta(seconds=settings.lease_seconds)
        self._database = database
        self._wakeup = wakeup
        self._gate = gate

    @route.get(
        "/v1/queue",
        operation_id="getQueue",
        guard=Right.READ,
        answers={200: ResponseSpec(QueueState, "The queue.")},
        faults=(404, 422),
    )
    def get(self, caller: Caller, query: QueueQuery) -> Response:
        """Get the state of the queue.

        Operators see the jobs of all accounts, or of one with `account`, and the workers and engines; others see
        their own jobs. `deliveries` counts webhook deliveries of the same accounts.
        """
        account_id = self._gate.account(caller, query.account)
        with current.waiting():
            queue = statistics.queue(self._database, account_id=account_id)
        seen = None if caller.scope is not None else workers.seen(self._database, alive=self._alive)
        backlog = claims.backlog(self._database, account_id=account_id)
        paused = [
            pause
            for pause in pauses.active(self._database)
            if account_id is None or pause.account_id in (None, account_id)
        ]
        shown = self._shown(paused, caller)
        return reply(QueueState.of(queue, backlog=backlog, paused=shown, seen=seen))

    @route.get(
        "/v1/queue/pauses",
        operation_id="listQueuePauses",
        guard=Right.EVERYWHERE,
        answers={200: ResponseSpec(QueuePauseList, "A page of pauses.")},
        faults=(422,),
    )
    def list_pauses(self, caller: Caller, query: QueuePausesQuery) -> Response:
        """List the pauses of the queue, newest first: the active ones, and those that have ended."""
        listed, more = pauses.page(self._database, limit=query.limit, after=query.after)
        return reply(QueuePauseList.of(self._shown(listed, caller), has_more=more))

    @route.post(
        "/v1/queue/pause",
        operation_id="pauseQueue",
        guard=Right.EVERYWHERE,
        answers={200: ResponseSpec(QueuePause, "The pause.")},
        faults=(400, 404, 413, 415, 422),
        body=RequestBodySpec({"application/json": QueuePauseRequest}),
    )
    def pause(self, caller: Caller) -> Response:
        """Pause all queued jobs, or those of an account, of a priority, or of both.

        Workers claim no paused job. Running jobs continue, new jobs are accepted, and deadlines still count. A pause
        survives restarts. If exactly these jobs are paused already, nothing changes.
        """
        requested = framework.read_model(flask.request, QueuePauseRequest)
        pause = pauses.pause(
            self._database,
            account_id=self._account(caller, requested),
            priority=_priority(requested),
            actor=caller.actor,
            reason=requested.reason,
        )
        _log.info("queue_paused", scope=pause.scope, actor=caller.actor)
        [shown] = self._shown([pause], caller)
        return reply(shown)

    @route.post(
        "/v1/queue/resume",
        operation_id="resumeQueue",
        guard=Right.EVERYWHERE,
        answers={200: ResponseSpec(QueueResumed, "The pause has ended.")},
        faults=(400, 404, 413, 415, 422),
        body=RequestBodySpec({"application/json": QueueScope}),
    )
    def resume(self, caller: Caller) -> Response:
        """End the pause of exactly these jobs. Other pauses that cover them stay."""
        requested = framework.read_model(flask.request, QueueScope)
        if not pauses.resume(
            self._database,
            account_id=self._account(caller, requested),
            priority=_priority(requested),
            actor=caller.actor,
        ):
            raise problems.not_found("pause of exactly these jobs")
        _log.info("queue_resumed", actor=caller.actor)
        slots = workers.workforce(self._database, alive=self._alive).slots
        self._wakeup.notify(expiry.due(self._database, limit=slots))
        return reply(QueueResumed())

    def _account(self, caller: Caller, requested: QueueScope) -> uuid.UUID | None:
        # Without a name the whole queue is meant, not the scope of the caller.
        return None if requested.account is None else self._gate.account(caller, requested.account)

    def _shown(self, listed: Sequence[pauses.PauseView], caller: Caller) -> list[QueuePause]:
        names = None
        if caller.everywhere:
            actors = [actor for each in listed for actor in (each.paused_by, each.resumed_by)]
            names = accounts.key_names(self._database, actors)
        return [QueuePause.of(pause, names=names) for pause in listed]

    @route.post(
        "/v1/jobs/<job_id>/run_now",
        operation_id="runJobNow",
        tag="jobs",
        guard=Right.COMMAND,
        answers={200: ResponseSpec(Job, "The job.")},
        faults=(404, 409),
    )
    def run_now(self, caller: Caller, job_id: JobId) -> Response:
        """End a queued job's wait for its next attempt.

        After a failed attempt, a job waits before the next one. Ending the wait does not change the order of the
        queue. A job that is already due does not change; a job that runs or has ended is a conflict.
        """
        status = commands.run_now(
            self._database, job_id, account_id=caller.scope, actor=caller.actor
        )
        if status is None:
            raise problems.not_found("job")
        if status is not Status.QUEUED:
            raise errors.Conflict(f"The job must be queued; it is {status}.")
        self._wakeup.notify()
        view = history.get(self._database, job_id, account_id=caller.scope)
        return reply(Job.of(problems.existing(view, "job")))


def _priority(requested: QueueScope) -> Priority | None:
    return None if requested.priority is None else Priority(requested.priority)
