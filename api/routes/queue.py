"""``/v1/queue``: how the queue does; and ``/v1/jobs/{id}/run_now``: past its waiting."""

from __future__ import annotations

from datetime import timedelta
from http import HTTPMethod

from flask import Response

from api.auth import Caller, Gate, Right
from api.framework import ResponseSpec, Router, reply
from api.schemas.jobs import Job
from api.schemas.queue import QueueState
from api.schemas.requests import JobPath, QueueQuery
from api.serving import current
from core import errors, ids, logs
from core.database import Database
from core.settings import Settings
from core.wakeup import Wakeup
from jobs.lifecycle import Status
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

    def declare(self, router: Router) -> None:
        """Put the routes into ``router``."""
        router.declare(
            HTTPMethod.GET,
            "/v1/queue",
            self.shown,
            name="getQueue",
            tag="operations",
            guard=self._gate.admits(Right.READ),
            answers={200: ResponseSpec(QueueState, "The queue.")},
            faults=(404, 422),
        )
        router.declare(
            HTTPMethod.POST,
            "/v1/jobs/<job_id>/run_now",
            self.run_now,
            name="runJobNow",
            tag="jobs",
            guard=self._gate.admits(Right.STEER),
            answers={200: ResponseSpec(Job, "The job.")},
            faults=(404, 409),
        )

    def shown(self, caller: Caller, query: QueueQuery) -> Response:
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

    def run_now(self, caller: Caller, path: JobPath) -> Response:
        """Let a queued job wait no longer.

        A job whose attempt failed waits before the next one: this ends the wait. It does not change whose
        turn is next. A job that is due already stays as it is; one that runs or has ended is a conflict.
        """
        job_id = ids.parse("job", path.job_id)
        status = job_id and commands.run_now(
            self._database, job_id, account_id=caller.scope, actor=caller.actor
        )
        view = job_id and history.get(self._database, job_id, account_id=caller.scope)
        if not status or not view:
            raise errors.NotFound("There is no such job.")
        logs.bind(job_id=path.job_id)
        if status is not Status.QUEUED:
            raise errors.Conflict(f"The job is not queued; it is {status}.")
        self._wakeup.notify()
        return reply(Job.of(view))
