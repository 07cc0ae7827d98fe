"""``/v1/queue``: how the queue does; and ``/v1/jobs/{id}/run_now``: past its waiting."""

from __future__ import annotations

from datetime import timedelta

from flask import Response

from api import errors as problems
from api.auth import Caller, Gate, Right
from api.framework import ResponseSpec, reply, route
from api.schemas.jobs import Job
from api.schemas.paths import JobId
from api.schemas.queue import QueueState
from api.schemas.requests import QueueQuery
from api.serving import current
from core import errors
from core.database import Database
from core.settings import Settings
from jobs.lifecycle import Status
from jobs.queue import Wakeup
from jobs.store import commands, history, statistics, workers
from webhooks import claims


class QueueRoutes:
    """What callers may ask of the queue.

    Args:
        settings: how recent a live worker's heartbeat is.
        database: where jobs and heartbeats are kept.
        wakeup: rung for a job that waits no longer.
        gate: what lets callers in.
    """

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
        tag="operations",
        guard=Right.READ,
        answers={200: ResponseSpec(QueueState, "The queue.")},
        faults=(404, 422),
    )
    def get(self, caller: Caller, query: QueueQuery) -> Response:
        """Get the state of the queue.

        Operators see all accounts' jobs, or those of one by `account`, and the workers and engines; all
        others see their own jobs. `deliveries` are the webhooks of the same accounts.
        """
        account_id = self._gate.account(caller, query.account)
        with current.waiting():
            queue = statistics.queue(self._database, account_id=account_id)
        seen = None if caller.scope is not None else workers.seen(self._database, alive=self._alive)
        backlog = claims.backlog(self._database, account_id=account_id)
        return reply(QueueState.of(queue, backlog=backlog, seen=seen))

    @route.post(
        "/v1/jobs/<job_id>/run_now",
        operation_id="runJobNow",
        tag="jobs",
        guard=Right.COMMAND,
        answers={200: ResponseSpec(Job, "The job.")},
        faults=(404, 409),
    )
    def run_now(self, caller: Caller, job_id: JobId) -> Response:
        """Let a queued job wait no longer.

        A job whose attempt failed waits before the next one: this ends the wait. It does not change whose
        turn is next. A job that is due already stays as it is; one that runs or has ended is a conflict.
        """
        status = commands.run_now(
            self._database, job_id, account_id=caller.scope, actor=caller.actor
        )
        if status is None:
            raise problems.not_found("job")
        if status is not Status.QUEUED:
            raise errors.Conflict(f"The job is not queued; it is {status}.")
        self._wakeup.notify()
        view = history.get(self._database, job_id, account_id=caller.scope)
        return reply(Job.of(problems.existing(view, "job")))
