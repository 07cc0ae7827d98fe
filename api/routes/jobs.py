"""``/v1/jobs``: submit, look, steer."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable
from http import HTTPMethod, HTTPStatus

import flask
from flask import Response

from api import cursors
from api import errors as problems
from api.auth import Caller, Gate, Right
from api.framework import ResponseSpec, Router, reply
from api.revocation import Revocation
from api.routes import texts
from api.schemas.jobs import Job, JobDeleted, JobList
from api.schemas.queries import JobsQuery
from api.schemas.requests import JobPath, RerunHeaders, SubmitHeaders, WaitHeaders
from api.serving import current
from api.streams import Waits
from api.submission import JOB, Accepted, SubmissionService, read_order
from core import errors, ids, logs
from core.database import Database
from core.settings import Settings
from jobs.lifecycle import Status
from jobs.store import history, retention
from jobs.store.positions import PositionForecast

_PACE = ("Retry-After", "openai-poll-after-ms")
_ACCEPTED = {
    200: ResponseSpec(
        Job,
        "The job has finished while the answer was held back.",
        ("Location", "Idempotent-Replayed", "Preference-Applied"),
    ),
    202: ResponseSpec(
        Job,
        "The job, to be asked for again.",
        ("Location", *_PACE, "Idempotent-Replayed", "Preference-Applied"),
    ),
}
_MAX_PAUSE_SECONDS = 10


class JobRoutes:
    """What callers may do with jobs.

    Args:
        settings: limits.
        database: where jobs are kept.
        service: what takes new ones.
        waits: what holds answers back until a job has finished.
        revocation: ends the waits of a key that is revoked.
        gate: what lets callers in.
        forecast: when they may begin.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        service: SubmissionService,
        waits: Waits,
        revocation: Revocation,
        gate: Gate,
        forecast: PositionForecast,
    ) -> None:
        self._max_file_bytes = settings.max_image_mb * 2**20
        self._database = database
        self._service = service
        self._waits = waits
        self._revocation = revocation
        self._gate = gate
        self._forecast = forecast

    def declare(self, router: Router) -> None:
        """Put the routes into ``router``."""
        router.declare(
            HTTPMethod.POST,
            "/v1/jobs",
            self.create,
            name="createJob",
            tag="jobs",
            guard=self._gate.admits(Right.SUBMIT),
            answers=_ACCEPTED,
            faults=(400, 409, 413, 415, 422),
            body=texts.CREATE,
        )
        self._declare_looks(router, self._gate.admits(Right.READ))
        self._declare_commands(router, self._gate.admits(Right.STEER))

    def _declare_looks(self, router: Router, guard: Callable[[], Caller]) -> None:
        router.declare(
            HTTPMethod.GET,
            "/v1/jobs",
            self.listed,
            name="listJobs",
            tag="jobs",
            guard=guard,
            answers={200: ResponseSpec(JobList, "A page of jobs.")},
            faults=(404, 422),
        )
        router.declare(
            HTTPMethod.GET,
            "/v1/jobs/<job_id>",
            self.show,
            name="getJob",
            tag="jobs",
            guard=guard,
            answers={200: ResponseSpec(Job, "The job.", (*_PACE, "Preference-Applied"))},
            faults=(404,),
        )

    def _declare_commands(self, router: Router, guard: Callable[[], Caller]) -> None:
        router.declare(
            HTTPMethod.POST,
            "/v1/jobs/<job_id>/cancel",
            self.cancel,
            name="cancelJob",
            tag="jobs",
            guard=guard,
            answers={200: ResponseSpec(Job, "The job.", _PACE)},
            faults=(404, 409),
        )
        router.declare(
            HTTPMethod.POST,
            "/v1/jobs/<job_id>/rerun",
            self.rerun,
            name="rerunJob",
            tag="jobs",
            guard=guard,
            answers=_ACCEPTED,
            faults=(404, 409, 422),
        )
        router.declare(
            HTTPMethod.DELETE,
            "/v1/jobs/<job_id>",
            self.remove,
            name="deleteJob",
            tag="jobs",
            guard=guard,
            answers={200: ResponseSpec(JobDeleted, "Its data are gone.")},
            faults=(404, 409),
        )

    def create(self, caller: Caller, header: SubmitHeaders) -> Response:
        """Submit a job.

        The answer comes as soon as the job is kept; it runs when an engine has room. Everything wrong with
        the request is told at once.
        """
        order = read_order(
            flask.request,
            kind=JOB,
            limits=self._service.limits,
            max_file_bytes=self._max_file_bytes,
        )
        request_id = problems.request_id()
        accepted = self._service.submit(caller, order, header=header, request_id=request_id)
        return self._accepted(caller, accepted, wait=header.wait)

    def listed(self, caller: Caller, query: JobsQuery) -> Response:
        """List jobs, newest first.

        Operators see all accounts' jobs, or those of one by `account`; all others see their own. A page has fewer
        than `limit` jobs when their texts are very long: `has_more` says whether there are more.
        """
        page = cursors.page("job", query.after, limit=query.limit, order=query.order)
        account_id = self._gate.account(caller, query.account)
        filters = query.filters(account_id, now=self._database.clock())
        with current.waiting() if filters.conditions else contextlib.nullcontext():
            views, more = history.page(
                self._database,
                filters,
                limit=page.limit,
                after=page.after,
                newest_first=page.newest_first,
            )
        return reply(JobList.of(views, has_more=more))

    def show(self, caller: Caller, path: JobPath, header: WaitHeaders) -> Response:
        """Get a job: its status, its answer, what it cost."""
        view = self._find(_job_id(path), caller.scope)
        headers: dict[str, str] = {}
        if (
            header.wait
            and not view.job.status.terminal
            and self._held(caller, view.job.id, header.wait)
        ):
            headers["Preference-Applied"] = f"wait={header.wait}"
            view = self._find(view.job.id, caller.scope)
        return reply(Job.of(view), headers=headers | _pace(view))

    def cancel(self, caller: Caller, path: JobPath) -> Response:
        """Cancel a job.

        A queued one is cancelled at once. A running one is stopped within a second or two; what it has
        written stays. Cancelling again changes nothing; a job that has ended otherwise cannot be cancelled.
        """
        job_id = _job_id(path)
        status = history.cancel(self._database, job_id, account_id=caller.scope, actor=caller.actor)
        if status is None:
            raise _not_found()
        if status in (Status.SUCCEEDED, Status.FAILED):
            raise errors.Conflict(f"The job has {status} already.")
        view = self._find(job_id, caller.scope)
        return reply(Job.of(view), headers=_pace(view))

    def rerun(self, caller: Caller, path: JobPath, header: RerunHeaders) -> Response:
        """Run a job again.

        It is a new job with the same input, for the same account, and both tell of each other. Its priority is the
        same too, but not above the highest one of the key that asks.
        """
        accepted = self._service.rerun(
            caller,
            _job_id(path),
            key=header.idempotency_key,
            request_id=problems.request_id(),
        )
        return self._accepted(caller, accepted, wait=header.wait)

    def remove(self, caller: Caller, path: JobPath) -> Response:
        """Delete a job's question, answer and traces, and images that only it had brought in.

        What it cost and when it ran stays, marked `data_removed`. An unfinished job has to be cancelled first.
        """
        if not retention.remove_job(
            self._database, _job_id(path), account_id=caller.scope, actor=caller.actor
        ):
            raise _not_found()
        return reply(JobDeleted(id=path.job_id))

    def _accepted(self, caller: Caller, accepted: Accepted, *, wait: int) -> Response:
        held = wait > 0 and self._held(caller, accepted.job_id, wait)
        view = (
            self._find(accepted.job_id, None)
            if held or accepted.job is None
            else history.accepted(self._database, accepted.job, accepted.images, self._forecast)
        )
        headers = {"Location": f"/v1/jobs/{ids.show('job', accepted.job_id)}", **_pace(view)}
        if accepted.replayed:
            headers["Idempotent-Replayed"] = "true"
        if held:
            headers["Preference-Applied"] = f"wait={wait}"
        finished = held and view.job.status.terminal
        return reply(
            Job.of(view), HTTPStatus.OK if finished else HTTPStatus.ACCEPTED, headers=headers
        )

    def _held(self, caller: Caller, job_id: uuid.UUID, seconds: int) -> bool:
        ended = threading.Event()
        with self._revocation.watch(caller.key_id, ended.set) as watch:
            held = self._waits.wait(
                job_id, account_id=caller.account_id, seconds=seconds, ended=ended
            )
        watch.check()
        return held

    def _find(self, job_id: uuid.UUID, scope: uuid.UUID | None) -> history.JobView:
        view = history.get(self._database, job_id, account_id=scope)
        if view is None:
            raise _not_found()
        return view


def _job_id(path: JobPath) -> uuid.UUID:
    job_id = ids.parse("job", path.job_id)
    if job_id is None:
        raise _not_found()
    logs.bind(job_id=path.job_id)
    return job_id


def _not_found() -> errors.NotFound:
    return errors.NotFound("There is no such job.")


def _pace(view: history.JobView) -> dict[str, str]:
    """Return how long to wait before asking again: a second, or a quarter of a long wait in the queue."""
    if view.job.status.terminal:
        return {}
    eta = view.queue.eta_seconds if view.queue else None
    seconds = max(1, min(_MAX_PAUSE_SECONDS, (eta or 0) // 4))
    return {"Retry-After": str(seconds), "openai-poll-after-ms": str(seconds * 1000)}
