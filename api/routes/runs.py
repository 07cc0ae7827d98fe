"""``/v1/jobs/{id}/trace``, ``/attempts`` and ``/timeline``: how a job ran."""

import uuid

from flask import Response

from api import errors as problems
from api.auth import Caller, Right
from api.framework import ResponseSpec, reply, route
from api.schemas.parameters import TimelineQuery, TraceQuery
from api.schemas.paths import JobId
from api.schemas.runs import Attempt, AttemptList, Timeline, TimelineEntry, Trace, TraceGeneration
from core import ids
from core.database import Database
from jobs.store import accounts, history, timeline, traces

#: Maximum characters of text in a trace; older attempts beyond it are omitted.
MAX_TRACE_CHARS = 2 * 2**20


class RunRoutes:
    """The routes of traces, attempts and timelines."""

    TAG = "jobs"

    def __init__(self, *, database: Database) -> None:
        self._database = database

    @route.get(
        "/v1/jobs/<job_id>/trace",
        operation_id="getTrace",
        guard=Right.READ,
        answers={200: ResponseSpec(Trace, "The trace so far.")},
        faults=(404, 422),
    )
    def trace(self, caller: Caller, job_id: JobId, query: TraceQuery) -> Response:
        """Get a job's reasoning: the raw text of its attempts and its steps, partial while it runs.

        A very long trace contains only the newest attempts; `omitted_attempts` names the others.
        """
        # Read the job first: if it has finished, the trace that is read next is complete.
        job = problems.existing(history.job(self._database, job_id, account_id=caller.scope), "job")
        if query.attempt is not None and query.attempt > job.attempt:
            raise problems.not_found("attempt", param="attempt")
        generations, omitted = (
            traces.newest(self._database, job_id, chars=MAX_TRACE_CHARS)
            if query.attempt is None
            else (traces.read(self._database, job_id, attempt=query.attempt), [])
        )
        return reply(
            Trace(
                job_id=ids.show("job", job_id),
                complete=job.status.terminal,
                data_removed=job.trace_removed,
                omitted_attempts=omitted,
                generations=[TraceGeneration.of(generation) for generation in generations],
            )
        )

    @route.get(
        "/v1/jobs/<job_id>/attempts",
        operation_id="listAttempts",
        guard=Right.READ,
        answers={200: ResponseSpec(AttemptList, "All attempts.")},
        faults=(404,),
    )
    def attempts(self, caller: Caller, job_id: JobId) -> Response:
        """List a job's attempts: worker, engine, prompt and outcome of each."""
        self._check(job_id, caller)
        views = history.attempts(self._database, job_id)
        return reply(AttemptList(data=[Attempt.of(view) for view in views]))

    @route.get(
        "/v1/jobs/<job_id>/timeline",
        operation_id="listTimeline",
        guard=Right.READ,
        answers={200: ResponseSpec(Timeline, "A page of the timeline.")},
        faults=(404, 422),
    )
    def timeline(self, caller: Caller, job_id: JobId, query: TimelineQuery) -> Response:
        """List a job's changes, oldest first: who made each one, and when."""
        self._check(job_id, caller)
        entries, more = timeline.read(self._database, job_id, limit=query.limit, after=query.after)
        names = accounts.key_names(
            self._database, [entry.actor for entry in entries], account_id=caller.scope
        )
        data = [
            TimelineEntry.from_record(entry, actor_name=names.get(entry.actor)) for entry in entries
        ]
        return reply(Timeline.of(data, has_more=more))

    def _check(self, job_id: uuid.UUID, caller: Caller) -> None:
        if not history.exists(self._database, job_id, account_id=caller.scope):
            raise problems.not_found("job")
