"""``/v1/jobs/{id}/trace``, ``/attempts`` and ``/timeline``: how a job was run."""

from __future__ import annotations

from http import HTTPMethod

from flask import Response

from api.auth import Caller, Gate, Right
from api.framework import ResponseSpec, Router, reply
from api.schemas.requests import JobPath, TimelineQuery, TraceQuery
from api.schemas.runs import Attempt, AttemptList, Timeline, Trace, TraceGeneration
from core import errors, ids, logs
from core.database import Database
from jobs.store import history, timeline, traces

#: Characters of text in a trace; attempts before those that have them are left out.
MAX_TRACE_CHARS = 2 * 2**20


class RunRoutes:
    """What callers may ask of a job's running."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    def declare(self, router: Router, gate: Gate) -> None:
        """Put the routes into ``router``."""
        router.declare(
            HTTPMethod.GET,
            "/v1/jobs/<job_id>/trace",
            self.trace,
            name="getTrace",
            tag="jobs",
            guard=gate.admits(Right.READ),
            answers={200: ResponseSpec(Trace, "The trace as far as it is known.")},
            faults=(404, 422),
        )
        router.declare(
            HTTPMethod.GET,
            "/v1/jobs/<job_id>/attempts",
            self.attempts,
            name="listAttempts",
            tag="jobs",
            guard=gate.admits(Right.READ),
            answers={200: ResponseSpec(AttemptList, "All attempts.")},
            faults=(404,),
        )
        router.declare(
            HTTPMethod.GET,
            "/v1/jobs/<job_id>/timeline",
            self.timeline,
            name="listTimeline",
            tag="jobs",
            guard=gate.admits(Right.READ),
            answers={200: ResponseSpec(Timeline, "A page of the timeline.")},
            faults=(404, 422),
        )

    def trace(self, caller: Caller, path: JobPath, query: TraceQuery) -> Response:
        """Get a job's reasoning: the raw text of its attempts and its steps, partial while it runs.

        Very long traces are told in parts: the newest attempts come first, and `omitted_attempts` names the others.
        """
        # The job comes first: when it has finished, what is read after it is whole.
        job = self._find(path, caller).job
        if query.attempt is not None and query.attempt > job.attempt:
            raise errors.NotFound("There is no such attempt.", param="attempt")
        generations, omitted = (
            traces.newest(self._database, job.id, chars=MAX_TRACE_CHARS)
            if query.attempt is None
            else (traces.read(self._database, job.id, attempt=query.attempt), [])
        )
        return reply(
            Trace(
                job_id=path.job_id,
                complete=job.status.terminal,
                data_removed=job.trace_removed,
                omitted_attempts=omitted,
                generations=[TraceGeneration.of(generation) for generation in generations],
            )
        )

    def attempts(self, caller: Caller, path: JobPath) -> Response:
        """List a job's attempts: which worker and engine, what was sent, how it ended."""
        job = self._find(path, caller).job
        views = history.attempts(self._database, job.id)
        return reply(AttemptList(data=[Attempt.of(view) for view in views]))

    def timeline(self, caller: Caller, path: JobPath, query: TimelineQuery) -> Response:
        """List a job's changes: who made them and when, oldest first."""
        job = self._find(path, caller).job
        entries, more = timeline.read(self._database, job.id, limit=query.limit, after=query.after)
        return reply(Timeline.of(entries, has_more=more))

    def _find(self, path: JobPath, caller: Caller) -> history.JobView:
        job_id = ids.parse("job", path.job_id)
        view = job_id and history.get(self._database, job_id, account_id=caller.scope)
        if not view:
            raise errors.NotFound("There is no such job.")
        logs.bind(job_id=path.job_id)
        return view
