"""``/v1/jobs``: submit, list, get, cancel, rerun and delete jobs."""

import contextlib
import threading
import time
import uuid
from http import HTTPStatus

import flask
from flask import Response

from api import errors as problems
from api.auth import Caller, Gate, Right
from api.framework import ResponseSpec, links, reply, route
from api.revocation import Revocation
from api.routes import texts
from api.schemas.jobs import Job, JobDeleted, JobList
from api.schemas.parameters import MAX_WAIT_SECONDS, RerunHeaders, SubmitHeaders, WaitHeaders
from api.schemas.paths import JobId
from api.schemas.queries import JobsQuery
from api.serving import current
from api.streams.waits import Waits
from api.submission import JOB, Accepted, SubmissionService, read_submission
from core import errors, ids
from core.database import Database
from core.settings import Settings
from jobs.lifecycle import Status
from jobs.store import commands, history, retention
from jobs.store.positions import PositionForecast
from webhooks import purge

_PACE = ("Retry-After", "openai-poll-after-ms")
_ACCEPTED = {
    200: ResponseSpec(
        Job,
        "The job; it finished while the response was delayed.",
        ("Location", "Idempotent-Replayed", "Preference-Applied"),
    ),
    202: ResponseSpec(
        Job,
        "The job, which has not finished.",
        ("Location", *_PACE, "Idempotent-Replayed", "Preference-Applied"),
    ),
}
_MAX_PAUSE_SECONDS = 10


class JobRoutes:
    """The routes of jobs.

    Args:
        settings: limits.
        database: stores jobs.
        service: submits jobs.
        waits: delays responses until a job has finished.
        revocation: ends the waits of revoked keys.
        gate: resolves accounts.
        forecast: estimates when jobs start.
    """

    TAG = "jobs"

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

    @route.post(
        "/v1/jobs",
        operation_id="createJob",
        guard=Right.SUBMIT,
        answers=_ACCEPTED,
        faults=(400, 409, 413, 415, 422),
        body=texts.CREATE,
    )
    def create(self, caller: Caller, header: SubmitHeaders) -> Response:
        """Submit a job.

        The response comes as soon as the job is stored; the job runs when an engine has room. An error lists every
        fault of the request.
        """
        parsed = read_submission(
            flask.request,
            kind=JOB,
            limits=self._service.limits,
            max_file_bytes=self._max_file_bytes,
        )
        request_id = problems.request_id()
        accepted = self._service.submit(caller, parsed, header=header, request_id=request_id)
        return self._accepted(caller, accepted, wait=header.wait)

    @route.get(
        "/v1/jobs",
        operation_id="listJobs",
        guard=Right.READ,
        answers={200: ResponseSpec(JobList, "A page of jobs.")},
        faults=(404, 422),
    )
    def list_all(self, caller: Caller, query: JobsQuery) -> Response:
        """List jobs, newest first.

        Operators see the jobs of all accounts, or of one with `account`; others see their own. A page has fewer
        than `limit` jobs if their texts are very long; `has_more` says whether more jobs follow.
        """
        account_id = self._gate.account(caller, query.account)
        filters = query.filters(account_id, now=self._database.clock())
        with current.waiting() if filters.given else contextlib.nullcontext():
            views, more = history.page(
                self._database,
                filters,
                limit=query.limit,
                after=query.after,
                newest_first=query.order == "desc",
            )
        data = [Job.of(view) for view in views]
        return reply(JobList.of(data, has_more=more))

    @route.get(
        "/v1/jobs/<job_id>",
        operation_id="getJob",
        guard=Right.READ,
        answers={200: ResponseSpec(Job, "The job.", (*_PACE, "Preference-Applied"))},
        faults=(404,),
    )
    def get(self, caller: Caller, job_id: JobId, header: WaitHeaders) -> Response:
        """Get a job: its status, its answer and its usage."""
        view = self._find(job_id, caller.scope)
        headers: dict[str, str] = {}
        if (
            header.wait
            and not view.job.status.terminal
            and self._held(caller, view.job.id, header.wait)
        ):
            headers["Preference-Applied"] = f"wait={header.wait}"
            view = self._find(view.job.id, caller.scope)
        return reply(Job.of(view), headers=headers | _pace(view))

    @route.post(
        "/v1/jobs/<job_id>/cancel",
        operation_id="cancelJob",
        guard=Right.COMMAND,
        answers={200: ResponseSpec(Job, "The job.", _PACE)},
        faults=(404, 409),
    )
    def cancel(self, caller: Caller, job_id: JobId) -> Response:
        """Cancel a job.

        A queued job is cancelled immediately. A running job stops within a second or two and keeps its partial
        trace. Cancelling a cancelled job changes nothing; a job that has ended otherwise is a conflict.
        """
        status = commands.cancel(
            self._database, job_id, account_id=caller.scope, actor=caller.actor
        )
        if status is None:
            raise problems.not_found("job")
        if status in (Status.SUCCEEDED, Status.FAILED):
            raise errors.Conflict(f"The job must be queued or running; it has {status}.")
        view = self._find(job_id, caller.scope)
        return reply(Job.of(view), headers=_pace(view))

    @route.post(
        "/v1/jobs/<job_id>/rerun",
        operation_id="rerunJob",
        guard=Right.COMMAND,
        answers=_ACCEPTED,
        faults=(404, 409, 422),
    )
    def rerun(self, caller: Caller, job_id: JobId, header: RerunHeaders) -> Response:
        """Run a job again.

        This creates a new job with the same input, for the same account; each of the two jobs names the other. The
        priority is the same, unless it is above the highest priority of the requesting key.
        """
        accepted = self._service.rerun(
            caller,
            job_id,
            key=header.idempotency_key,
            request_id=problems.request_id(),
        )
        return self._accepted(caller, accepted, wait=header.wait)

    @route.delete(
        "/v1/jobs/<job_id>",
        operation_id="deleteJob",
        guard=Right.COMMAND,
        answers={200: ResponseSpec(JobDeleted, "The job's data is deleted.")},
        faults=(404, 409),
    )
    def delete(self, caller: Caller, job_id: JobId) -> Response:
        """Delete a job's question, answer, traces and metadata, and the images that only this job submitted.

        Its usage and times remain, marked `data_removed`. The `Idempotency-Key` can be used again. Cancel an unfinished
        job first.
        """
        if not retention.remove_job(
            self._database,
            job_id,
            account_id=caller.scope,
            actor=caller.actor,
            remove_copies=purge.reduce_jobs,
        ):
            raise problems.not_found("job")
        return reply(JobDeleted(id=ids.show("job", job_id)))

    def _accepted(self, caller: Caller, accepted: Accepted, *, wait: int) -> Response:
        held = wait > 0 and self._held(caller, accepted.job_id, wait)
        view = (
            self._find(accepted.job_id, None)
            if held or accepted.job is None
            else history.accepted(self._database, accepted.job, accepted.images, self._forecast)
        )
        where = links.to(f"/v1/jobs/{ids.show('job', accepted.job_id)}")
        headers = {"Location": where, **_pace(view)}
        if accepted.replayed:
            headers["Idempotent-Replayed"] = "true"
        if held:
            headers["Preference-Applied"] = f"wait={wait}"
        finished = held and view.job.status.terminal
        return reply(
            Job.of(view), HTTPStatus.OK if finished else HTTPStatus.ACCEPTED, headers=headers
        )

    def _held(self, caller: Caller, job_id: uuid.UUID, seconds: int) -> bool:
        # Proxies count from the start of the request: what it has taken so far is part of the longest wait.
        left = MAX_WAIT_SECONDS - (time.perf_counter() - flask.g.started)
        if left <= 0:
            return False
        ended = threading.Event()
        with contextlib.closing(self._revocation.watch(caller.key_id, ended.set)) as watch:
            held = self._waits.wait(
                job_id, account_id=caller.account_id, seconds=min(seconds, left), ended=ended
            )
        watch.check()
        return held

    def _find(self, job_id: uuid.UUID, scope: uuid.UUID | None) -> history.JobView:
        view = history.get(self._database, job_id, account_id=scope)
        return problems.existing(view, "job")


def _pace(view: history.JobView) -> dict[str, str]:
    """Return the headers with the time until the next poll: a second, or a quarter of a long wait in the queue."""
    if view.job.status.terminal:
        return {}
    eta = view.queue.eta_seconds if view.queue else None
    seconds = max(1, min(_MAX_PAUSE_SECONDS, (eta or 0) // 4))
    return {"Retry-After": str(seconds), "openai-poll-after-ms": str(seconds * 1000)}
