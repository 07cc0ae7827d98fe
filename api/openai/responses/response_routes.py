"""``/v1/responses``: OpenAI's Responses over the same jobs that ``/v1/jobs`` has."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable
from http import HTTPMethod, HTTPStatus
from typing import Any, Final

import flask
import orjson
from flask import Response

from api import errors as problems
from api import framework
from api.auth import Caller, Right
from api.framework import RequestBodySpec, ResponseSpec, reply, route
from api.openai import conversation, unstored
from api.openai.earlier import Earlier
from api.openai.foreground import Failure, Foreground, replayed
from api.openai.image_files import ImageFiles
from api.openai.responses import items, replay, request, response_object, streams
from api.openai.responses.replay import ResponseReader, StoredResponse
from api.openai.responses.request import ParsedResponse, ResponseRequest
from api.openai.responses.schemas import (
    CreateHeaders,
    InputItemList,
    InputItemsQuery,
    InputTokens,
    ResponseDeleted,
    ResponseObject,
    RetrieveQuery,
)
from api.openai.responses.streams import ResponseTranscript, TypedStream
from api.revocation import Revocation
from api.schemas import cursors
from api.schemas.paths import ResponseId
from api.streams import frames
from api.streams.follow import Streams
from api.streams.waits import Waits
from api.submission import Accepted, SubmissionService
from core import errors, ids
from core.database import Database
from core.settings import Settings
from jobs.store import commands, retention
from webhooks import purge

#: How long the answer to a cancel waits for the engine to stop.
_CANCEL_SECONDS: Final = 20.0
_POLL_MS: Final = 1_000
_PACE: Final = ("openai-poll-after-ms",)
_STREAM: Final[dict[str, Any]] = {
    frames.CONTENT_TYPE.partition(";")[0]: {
        "schema": {
            "type": "string",
            "description": "Frames of `event:` (the type) and `data:` (one line of JSON), with comments between them.",
        },
        "example": 'event: response.reasoning_text.delta\ndata: {"type":"response.reasoning_text.delta",'
        '"sequence_number":5,"item_id":"rs_1","output_index":0,"content_index":0,"delta":"Let me "}\n\n',
    }
}
_BODY: Final = RequestBodySpec(
    {"application/json": ResponseRequest},
    examples={
        "application/json": {
            "background": {
                "summary": "An image, in the background",
                "value": {
                    "background": True,
                    "input": [
                        {
                            "role": "user",
                            "content": [
                                {"type": "input_text", "text": "How many pelicans are there?"},
                                {
                                    "type": "input_image",
                                    "image_url": "data:image/png;base64,iVBORw0KGgo…",
                                },
                            ],
                        }
                    ],
                },
            },
            "text": {"summary": "A text", "value": {"input": "Is 91 a prime number?"}},
        }
    },
    description="As OpenAI's clients send it.",
    carries_images=True,
)


class ResponseRoutes:
    """The routes of responses.

    Args:
        settings: limits.
        database: stores jobs.
        service: submits jobs.
        foreground: holds the responses of clients that wait.
        streams: the native streams of jobs.
        waits: waits for jobs.
        revocation: ends what revoked keys have open.
    """

    TAG = "responses"
    ERRORS = problems.OPENAI

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        service: SubmissionService,
        foreground: Foreground,
        streams: Streams,
        waits: Waits,
        revocation: Revocation,
    ) -> None:
        self._model = settings.model
        self._profile = settings.profile
        self._files = ImageFiles(settings, database=database)
        self._database = database
        self._service = service
        self._foreground = foreground
        self._streams = streams
        self._waits = waits
        self._revocation = revocation

    @route.post(
        "/v1/responses",
        operation_id="createResponse",
        guard=Right.SUBMIT,
        answers={
            200: ResponseSpec(
                ResponseObject,
                "The response; of a background request it has not finished.",
                ("Idempotent-Replayed", *_PACE),
                content=_STREAM,
            )
        },
        faults=(400, 409, 413, 415, 422),
        body=_BODY,
    )
    def create(self, caller: Caller, header: CreateHeaders) -> Response:
        """Create a response.

        With `background` the answer comes at once. Otherwise it is held until the response has ended, with white
        space before the JSON; if the client hangs up, the response is cancelled. With `stream` the answer is a stream
        of typed events.
        """
        parsed = self._parsed(caller)
        request_id = problems.request_id()
        repeatable = header.idempotency_key is not None
        not_stored_for = None if parsed.stored else caller

        def submit() -> Accepted:
            return self._service.submit(
                caller,
                parsed.submission,
                header=header,
                request_id=request_id,
                held=not parsed.background,
            )

        if parsed.background and parsed.stream:
            return self._background_stream(caller, submit)
        if parsed.background:
            accepted = submit()
            stored = replay.find(self._database, accepted.job_id, scope=caller.scope)
            return self._shown(stored, replayed(accepted))
        if parsed.stream:
            transcript = ResponseTranscript(
                self._reader,
                model=self._model,
                after_end=lambda job_id: self.ended(job_id, not_stored_for),
            )
            return self._foreground.stream_stored(caller, submit, transcript, repeatable=repeatable)
        body = _ResponseBody(self, not_stored_for, model=self._model)
        return self._foreground.answer(caller, submit, body, repeatable=repeatable)

    @route.get(
        "/v1/responses/<response_id>",
        operation_id="getResponse",
        guard=Right.READ,
        answers={
            200: ResponseSpec(
                ResponseObject, "The response, or its stream.", _PACE, content=_STREAM
            )
        },
        faults=(400, 404),
    )
    def get(self, caller: Caller, response_id: ResponseId, query: RetrieveQuery) -> Response:
        """Get a response: its status and its output, or with `stream` its typed events.

        Any response can be streamed, at any time and from any number on, also one of a native job or of a foreground
        request; the events are the same each time.
        """
        stored = replay.find(self._database, response_id, scope=caller.scope)
        if query.stream:
            return self._stream(caller, stored, after=query.starting_after)
        return self._shown(stored)

    @route.post(
        "/v1/responses/<response_id>/cancel",
        operation_id="cancelResponse",
        guard=Right.COMMAND,
        answers={200: ResponseSpec(ResponseObject, "The response.", _PACE)},
        faults=(400, 404),
    )
    def cancel(self, caller: Caller, response_id: ResponseId) -> Response:
        """Cancel a response in the background; the partial trace stays.

        The answer is the response as it has ended, any number of times, also if it had ended before.
        """
        stored = replay.find(self._database, response_id, scope=caller.scope)
        if stored.entry is not None and not stored.entry.background:
            raise errors.InvalidRequest(
                "Only a response that was created with `background: true` can be cancelled; to cancel another one, "
                "end its request.",
                param="response_id",
                code="response_not_cancellable",
            )
        status = commands.cancel(
            self._database, response_id, account_id=caller.scope, actor=caller.actor
        )
        if status is None:
            raise problems.not_found("response")
        if not status.terminal:
            self._wait(caller, response_id)
        stored = replay.find(self._database, response_id, scope=caller.scope)
        return self._shown(stored)

    @route.delete(
        "/v1/responses/<response_id>",
        operation_id="deleteResponse",
        guard=Right.COMMAND,
        answers={200: ResponseSpec(ResponseDeleted, "The response is deleted.")},
        faults=(404, 409),
    )
    def delete(self, caller: Caller, response_id: ResponseId) -> Response:
        """Delete a response, as the deletion of its job does. Cancel an unfinished one first."""
        replay.find(self._database, response_id, scope=caller.scope)
        try:
            self._remove(response_id, caller)
        except errors.Conflict:
            raise errors.Conflict(
                "The response has not ended; cancel it first.", code="response_not_deletable"
            ) from None
        return reply(ResponseDeleted(id=ids.show("resp", response_id)))

    @route.get(
        "/v1/responses/<response_id>/input_items",
        operation_id="listInputItems",
        guard=Right.READ,
        answers={200: ResponseSpec(InputItemList, "A page of messages.")},
        faults=(400, 404),
    )
    def input_items(
        self, caller: Caller, response_id: ResponseId, query: InputItemsQuery
    ) -> Response:
        """List the messages that were sent with a response, the last one first."""
        stored = replay.find(self._database, response_id, scope=caller.scope, images=True)
        listed = items.of(stored, image_urls=query.image_urls)
        if query.order == "desc":
            listed.reverse()
        if query.after is not None:
            known = [item["id"] for item in listed]
            if query.after not in known:
                raise problems.refused([errors.Fault("after", cursors.INVALID)])
            listed = listed[known.index(query.after) + 1 :]
        page = listed[: query.limit]
        first, last = (page[0]["id"], page[-1]["id"]) if page else (None, None)
        return reply(
            InputItemList(data=page, first_id=first, last_id=last, has_more=len(listed) > len(page))
        )

    @route.post(
        "/v1/responses/input_tokens",
        operation_id="countInputTokens",
        guard=Right.SUBMIT,
        answers={200: ResponseSpec(InputTokens, "The number of tokens.")},
        faults=(400, 413, 415),
        body=_BODY,
    )
    def input_tokens(self, caller: Caller) -> Response:
        """Estimate the tokens of an input, without running it.

        Only engines have the tokenizer: the number is an upper bound for texts, and exact for images.
        """
        parsed = self._parsed(caller)
        return reply(InputTokens(input_tokens=self._service.count(caller, parsed.submission)))

    def finished(self, job_id: uuid.UUID) -> bytes:
        """Return the JSON of a response that has ended."""
        return orjson.dumps(self._current(replay.find(self._database, job_id, scope=None)))

    def ended(self, job_id: uuid.UUID, not_stored_for: Caller | None) -> None:
        """Remove the content of a response that has ended, if a client asked for that."""
        if not_stored_for is not None:
            unstored.remove(self._database, job_id, not_stored_for)

    def _parsed(self, caller: Caller) -> ParsedResponse:
        body = framework.read_body(flask.request)
        if flask.request.mimetype not in ("", "application/json"):
            raise errors.UnsupportedMediaType(
                "The Content-Type header must be application/json.", param="Content-Type"
            )
        with body.view() as data:
            sent = framework.loads(data, long=conversation.is_image)
            parsed = request.parse(
                sent,
                profile=self._profile,
                limits=self._service.limits,
                earlier=Earlier(self._database, account_id=caller.account_id),
                files=self._files.of(caller),
            )
            del sent
        body.close()
        return parsed

    def _background_stream(self, caller: Caller, submit: Callable[[], Accepted]) -> Response:
        # Before the job: a client that gets no place sends the request again.
        self._streams.take(caller.account_id)
        try:
            accepted = submit()
            stored = replay.find(self._database, accepted.job_id, scope=caller.scope)
        except BaseException:
            self._streams.give_back(caller.account_id)
            raise
        response = self._stream(caller, stored, after=-1, taken=True)
        response.headers.update(replayed(accepted))
        return response

    def _stream(
        self, caller: Caller, stored: StoredResponse, *, after: int, taken: bool = False
    ) -> Response:
        body: TypedStream | bytes = b""
        # A response closes the stream that is its body; a response to HEAD has no body.
        if flask.request.method != HTTPMethod.HEAD:
            reader = self._reader_of(stored, after=after)
            stream = self._streams.follow_stored(
                stored.job.id,
                account_id=caller.account_id,
                key_id=caller.key_id,
                taken=taken,
            )
            body = TypedStream(lambda: reader, stream, model=self._model)
        return Response(body, headers={"X-Accel-Buffering": "no"}, content_type=frames.CONTENT_TYPE)

    def _current(self, stored: StoredResponse) -> dict[str, Any]:
        return replay.current(self._database, stored, turns=self._streams.replays)

    def _shown(self, stored: StoredResponse, headers: dict[str, str] | None = None) -> Response:
        """Return a response as JSON; with the time until the next poll if it has not ended."""
        response = self._current(stored)
        pace = (
            {}
            if response["status"] in response_object.ENDED
            else {"openai-poll-after-ms": str(_POLL_MS)}
        )
        return Response(
            orjson.dumps(response),
            HTTPStatus.OK,
            headers=pace | (headers or {}),
            content_type="application/json",
        )

    def _reader(self, job_id: uuid.UUID) -> ResponseReader:
        return self._reader_of(replay.find(self._database, job_id, scope=None))

    def _reader_of(self, stored: StoredResponse, *, after: int = -1) -> ResponseReader:
        return ResponseReader(self._database, stored, turns=self._streams.replays, after=after)

    def _wait(self, caller: Caller, job_id: uuid.UUID) -> None:
        ended = threading.Event()
        with contextlib.closing(self._revocation.watch(caller.key_id, ended.set)) as watch:
            self._waits.wait(
                job_id, account_id=caller.account_id, seconds=_CANCEL_SECONDS, ended=ended
            )
        watch.check()

    def _remove(self, job_id: uuid.UUID, caller: Caller) -> None:
        removed = retention.remove_job(
            self._database,
            job_id,
            account_id=caller.scope,
            actor=caller.actor,
            remove_copies=purge.reduce_jobs,
        )
        if not removed:
            raise problems.not_found("response")


class _ResponseBody:
    """The JSON of a held response."""

    def __init__(
        self, routes: ResponseRoutes, not_stored_for: Caller | None, *, model: str
    ) -> None:
        self._routes = routes
        self._not_stored_for = not_stored_for
        self._model = model

    def finished(self, job_id: uuid.UUID) -> bytes:
        """Return the response as it has ended."""
        data = self._routes.finished(job_id)
        self._routes.ended(job_id, self._not_stored_for)
        return data

    def failed(self, error: Failure, job_id: uuid.UUID | None) -> bytes:
        """Return a failed response."""
        return orjson.dumps(replay.Unread(self._model, job_id).failed(streams.fault(error)))
