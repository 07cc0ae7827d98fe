"""``POST /v1/chat/completions``: answers a conversation, whole or in chunks."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Final

import flask
import orjson
from flask import Response

from api import errors as problems
from api import framework
from api.auth import Caller, Right
from api.framework import RequestBodySpec, ResponseSpec, route
from api.openai import conversation, unstored
from api.openai.chat import results
from api.openai.chat.chunks import ChunkTranscript, FinishedJob
from api.openai.chat.objects import ChatCompletion
from api.openai.chat.reading import parse
from api.openai.chat.requests import CompletionRequest
from api.openai.errors_in_body import error_body
from api.openai.foreground import Failure, Foreground
from api.openai.image_files import ImageFiles
from api.schemas.parameters import GroupHeaders
from api.submission import Accepted, SubmissionService
from core import errors
from core.database import Database
from core.settings import Settings
from jobs.store import history, traces

PATH: Final = "/v1/chat/completions"
_IMAGE: Final = "data:image/png;base64,iVBORw0KGgo…"
_BODY: Final = RequestBodySpec(
    {"application/json": CompletionRequest},
    examples={
        "application/json": {
            "image": {
                "summary": "A question about an image",
                "value": {
                    "model": "qvq-72b-preview",
                    "messages": [
                        {
                            "role": "user",
                            "content": [
                                {"type": "text", "text": "How many pelicans are there?"},
                                {"type": "image_url", "image_url": {"url": _IMAGE}},
                            ],
                        }
                    ],
                },
            },
        },
    },
    description="As in OpenAI's API. Earlier turns are folded into the prompt, because the models answer single "
    "rounds: the newest images within the limit are sent, and the oldest turns are left out if all are too long.",
    carries_images=True,
)
_CHUNKS: Final[dict[str, Any]] = {
    "text/event-stream": {
        "schema": {
            "type": "string",
            "description": "`data:` lines with chunks, the last one `[DONE]`.",
        },
        "example": 'data: {"id":"chatcmpl-0190c0de00007000800000000000abcd","object":"chat.completion.chunk",'
        '"created":1760000000,"model":"qvq-72b-preview","choices":[{"index":0,"delta":{"reasoning_content":"Let me "},'
        '"logprobs":null,"finish_reason":null}]}\n\n',
    }
}


class ChatRoutes:
    """The routes of chat completions.

    Args:
        settings: limits.
        database: stores jobs.
        service: submits jobs.
        foreground: holds responses.
    """

    TAG = "chat"
    ERRORS = problems.OPENAI_CHAT

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        service: SubmissionService,
        foreground: Foreground,
    ) -> None:
        self._settings = settings
        self._files = ImageFiles(settings, database=database)
        self._database = database
        self._service = service
        self._foreground = foreground

    @route.post(
        PATH,
        operation_id="createChatCompletion",
        guard=Right.SUBMIT,
        answers={
            200: ResponseSpec(
                ChatCompletion,
                "The answer, or chunks of it.",
                ("Idempotent-Replayed",),
                content=_CHUNKS,
            )
        },
        faults=(400, 404, 409, 413, 415, 422),
        body=_BODY,
    )
    def create(self, caller: Caller, header: GroupHeaders) -> Response:
        """Answer a conversation.

        The response is held until the answer is complete, with white space before the JSON or comments between the
        chunks. `reasoning_content`, of the message or of a delta, has the trace. If the client hangs up, the job is
        cancelled. What fails after the job was accepted is in the body, as `{"error": …}`.
        """
        with _json() as sent:
            chat = parse(
                sent,
                profile=self._settings.profile,
                limits=self._service.limits,
                files=self._files.of(caller),
            )
            del sent
        request_id = problems.request_id()

        def submit() -> Accepted:
            return self._service.submit(
                caller, chat.submission, header=header, request_id=request_id, held=True
            )

        def after_end(job_id: uuid.UUID) -> None:
            if chat.discard:
                unstored.remove(self._database, job_id, caller)

        repeatable = header.idempotency_key is not None

        if chat.stream:
            transcript = ChunkTranscript(
                self._read,
                stop=chat.stop,
                include_usage=chat.include_usage,
                after_end=after_end,
            )
            return self._foreground.stream(caller, submit, transcript, repeatable=repeatable)
        body = _Body(self._read, chat.stop, after_end)
        return self._foreground.answer(caller, submit, body, repeatable=repeatable)

    def _read(self, job_id: uuid.UUID) -> FinishedJob:
        view = problems.existing(history.get(self._database, job_id, account_id=None), "job")
        generations = (
            traces.read(self._database, job_id, attempt=view.job.attempt)
            if view.job.status.terminal
            else []
        )
        return FinishedJob(view.job, generations)


class _Body:
    """Writes a chat completion."""

    def __init__(
        self,
        read: Callable[[uuid.UUID], FinishedJob],
        stop: tuple[str, ...],
        after_end: Callable[[uuid.UUID], None],
    ) -> None:
        self._read = read
        self._stop = stop
        self._after_end = after_end

    def finished(self, job_id: uuid.UUID) -> bytes:
        """Return the chat completion of a finished job."""
        ended = self._read(job_id)
        self._after_end(job_id)
        try:
            whole = results.completion(ended.job, ended.generations, stop=self._stop)
        except results.JobFailed as error:
            return self.failed(error, job_id)
        return whole.model_dump_json().encode()

    def failed(self, error: Failure, _: uuid.UUID | None) -> bytes:
        """Return the body for an error."""
        return orjson.dumps(error_body(error))


@contextlib.contextmanager
def _json() -> Iterator[Any]:
    """Yield the JSON of the current request; its images can be read only inside."""
    request = flask.request
    if request.mimetype not in ("", "application/json"):
        raise errors.UnsupportedMediaType(
            "The Content-Type header must be application/json; it is "
            f"`{problems.shortened(request.mimetype)}`.",
            param="Content-Type",
        )
    body = framework.read_body(request)
    with body.view() as data:
        yield framework.loads(data, long=conversation.is_image)
    body.close()
