"""``/v1/queue``: the state of the queue; ``/v1/jobs/{id}/run_now``: end a job's wait for its next attempt."""

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
from core.wakeup import Wakeup
from jobs.lifecycle import Status
from jobs.store import commands, history, statistics, workers
from webhooks import claims


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
