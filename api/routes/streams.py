"""``/v1/jobs/{id}/events`` and ``/stream_token``: following a job as it runs, or as it ran."""

from __future__ import annotations

import uuid
from http import HTTPMethod, HTTPStatus
from typing import Any, Final

import flask
from flask import Response

from api.auth import Caller, Gate, Right
from api.framework import ResponseSpec, Router, reply
from api.schemas.events import EventsHeaders, EventsQuery, StreamToken
from api.schemas.requests import JobPath
from api.streams import Streams, frames
from api.tokens import StreamTokens
from core import errors, ids, logs
from core.database import Database
from jobs.store import event_log, history

EVENTS: Final = "/v1/jobs/<job_id>/events"
TOKEN: Final = "/v1/jobs/<job_id>/stream_token"  # noqa: S105 - a path
_STREAM: Final[dict[str, Any]] = {
    "text/event-stream": {
        "schema": {
            "type": "string",
            "description": "Frames of `id:` (the event's number) and `data:` (one line of JSON: `sequence_number`, "
            "`type`, `at`, and what the type has), with comment lines between them.",
        },
        "example": 'id: 7\ndata: {"sequence_number":7,"type":"trace.delta","at":"2026-11-23T10:00:00.000Z",'
        '"attempt":1,"generation":0,"delta":"Let me "}\n\n',
    }
}


class StreamRoutes:
    """What callers may follow."""

    def __init__(self, *, database: Database, streams: Streams, tokens: StreamTokens) -> None:
        self._database = database
        self._streams = streams
        self._tokens = tokens

    def declare(self, router: Router, gate: Gate) -> None:
        """Put the routes into ``router``."""
        router.declare(
            HTTPMethod.GET,
            EVENTS,
            self.events,
            name="streamEvents",
            tag="jobs",
            guard=gate.admits_follower(),
            answers={
                200: ResponseSpec(None, "The events, to the end of the job.", content=_STREAM),
                204: ResponseSpec(
                    None, "The job has finished and there is no event after this number."
                ),
            },
            faults=(404, 422),
        )
        router.declare(
            HTTPMethod.POST,
            TOKEN,
            self.issue,
            name="createStreamToken",
            tag="jobs",
            guard=gate.admits(Right.READ),
            answers={201: ResponseSpec(StreamToken, "The token.")},
            faults=(404,),
        )

    def events(
        self, caller: Caller, path: JobPath, query: EventsQuery, header: EventsHeaders
    ) -> Response:
        """Follow a job's events, live or as they were.

        Server-sent events from any number on, at any time: `job.queued`, `job.started`, `trace.delta` with its
        `attempt`, `generation` and `delta`, `finding`, `attempt.restarted`, and in the end `job.finished` with the
        whole `job`. The numbers of a job's events are strictly increasing and stay; they are not dense. When an
        attempt was lost, what it said beyond `valid_through` of `attempt.restarted` or `job.finished` is void: only
        those who followed live can have seen it. The stream ends when its key is revoked.
        """
        job_id = self._find(path, caller)
        after = query.after if header.after is None else header.after
        standing = event_log.standings(self._database, [job_id])[job_id]
        if standing.finished and standing.number <= after:
            # For EventSource, which would come back for ever, this is the end.
            return Response(status=HTTPStatus.NO_CONTENT)
        # The answer closes its stream, but one to HEAD has no body that anybody would close.
        body = (
            b""
            if flask.request.method == HTTPMethod.HEAD
            else self._streams.follow(
                job_id, account_id=caller.account_id, key_id=caller.key_id, after=after
            )
        )
        return Response(body, headers={"X-Accel-Buffering": "no"}, content_type=frames.CONTENT_TYPE)

    def issue(self, caller: Caller, path: JobPath) -> Response:
        """Make a token that lets a page follow this job.

        It opens the job's event stream (`?token=`) and nothing else, for an hour, and no longer than the key lives.
        """
        job_id = self._find(path, caller)
        token, expires_at = self._tokens.issue(job_id=job_id, key_id=caller.key_id)
        return reply(
            StreamToken(
                job_id=path.job_id,
                token=token,
                expires_at=expires_at,
                url=f"/v1/jobs/{path.job_id}/events?token={token}",
            ),
            HTTPStatus.CREATED,
        )

    def _find(self, path: JobPath, caller: Caller) -> uuid.UUID:
        job_id = ids.parse("job", path.job_id)
        if job_id is None or not history.exists(self._database, job_id, account_id=caller.scope):
            raise errors.NotFound("There is no such job.")
        logs.bind(job_id=path.job_id)
        return job_id
