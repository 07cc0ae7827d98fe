"""``/v1/jobs/{id}/events`` and ``/stream_token``: the events of a job, live or replayed."""

import uuid
from http import HTTPMethod, HTTPStatus
from typing import Any, Final

import flask
from flask import Response

from api import errors as problems
from api.auth import FOLLOWER, Caller, Right
from api.framework import ResponseSpec, links, reply, route
from api.schemas.events import EventsHeaders, EventsQuery, StreamToken
from api.schemas.paths import JobId
from api.streams import frames
from api.streams.follow import Streams
from api.tokens import StreamTokens
from core import ids
from core.database import Database
from jobs.store import event_log, history

EVENTS: Final = "/v1/jobs/<job_id>/events"
TOKEN: Final = "/v1/jobs/<job_id>/stream_token"  # noqa: S105 - a path
#: The routes that CORS may open to pages of other origins.
RULES: Final = (EVENTS, TOKEN)
_STREAM: Final[dict[str, Any]] = {
    "text/event-stream": {
        "schema": {
            "type": "string",
            "description": "Frames of `id:` (the event's number) and `data:` (one line of JSON: `sequence_number`, "
            "`type`, `at`, and the members of the type), with comment lines between them.",
        },
        "example": 'id: 7\ndata: {"sequence_number":7,"type":"trace.delta","at":"2026-11-23T10:00:00.000Z",'
        '"attempt":1,"generation":0,"delta":"Let me "}\n\n',
    }
}


class StreamRoutes:
    """The routes of event streams and stream tokens."""

    TAG = "jobs"

    def __init__(self, *, database: Database, streams: Streams, tokens: StreamTokens) -> None:
        self._database = database
        self._streams = streams
        self._tokens = tokens

    @route.get(
        EVENTS,
        operation_id="streamEvents",
        guard=FOLLOWER,
        answers={
            200: ResponseSpec(None, "The events until the end of the job.", content=_STREAM),
            204: ResponseSpec(None, "The job has finished and has no event after this number."),
        },
        faults=(404, 422),
    )
    def events(
        self, caller: Caller, job_id: JobId, query: EventsQuery, header: EventsHeaders
    ) -> Response:
        """Follow a job's events, live or replayed.

        Sends server-sent events from any number on, at any time: `job.queued`, `job.started`, `trace.delta` with
        `attempt`, `sample` and `delta`, `finding`, `attempt.restarted`, and at the end `job.finished` with the whole
        `job`. The numbers of a job's events increase and never change; they may have gaps. After a lost attempt,
        discard its events with numbers above `valid_through` of `attempt.restarted` or `job.finished`; only live
        followers can have received them. The stream ends if its key is revoked.
        """
        self._check(job_id, caller)
        after = query.after if header.after is None else header.after
        position = event_log.standings(self._database, [job_id])[job_id]
        if position.finished and position.number <= after:
            # Stops EventSource, which would otherwise reconnect endlessly.
            return Response(status=HTTPStatus.NO_CONTENT)
        # A response closes the stream that is its body; a response to HEAD has no body.
        body = (
            b""
            if flask.request.method == HTTPMethod.HEAD
            else self._streams.follow(
                job_id, account_id=caller.account_id, key_id=caller.key_id, after=after
            )
        )
        return Response(body, headers={"X-Accel-Buffering": "no"}, content_type=frames.CONTENT_TYPE)

    @route.post(
        TOKEN,
        operation_id="createStreamToken",
        guard=Right.READ,
        answers={201: ResponseSpec(StreamToken, "The token.")},
        faults=(404,),
    )
    def issue(self, caller: Caller, job_id: JobId) -> Response:
        """Create a token with which a web page can follow this job.

        The token opens the job's event stream (`?token=`) and nothing else. It expires after an hour, or when the
        key is revoked.
        """
        self._check(job_id, caller)
        token, expires_at = self._tokens.issue(job_id=job_id, key_id=caller.key_id)
        public_id = ids.show("job", job_id)
        return reply(
            StreamToken(
                job_id=public_id,
                token=token,
                expires_at=expires_at,
                url=links.to(f"/v1/jobs/{public_id}/events?token={token}"),
            ),
            HTTPStatus.CREATED,
        )

    def _check(self, job_id: uuid.UUID, caller: Caller) -> None:
        if not history.exists(self._database, job_id, account_id=caller.scope):
            raise problems.not_found("job")
