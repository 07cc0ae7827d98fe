"""The routes whose requests a batch may have: ``/v1/responses`` and ``/v1/chat/completions``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from api.auth import Caller
from api.openai import conversation
from api.openai.batches.endpoints import BatchEndpoint, LineAnswer
from api.openai.batches.line_results import error_body
from api.openai.chat import reading as chat_reading
from api.openai.chat import results as chat_results
from api.openai.earlier import Earlier
from api.openai.image_files import ImageFiles
from api.openai.responses import replay, response_object
from api.openai.responses import request as responses_request
from api.submission import ParsedSubmission, SubmissionService
from core import errors
from core.database import Database
from core.settings import Settings
from jobs.answers import json_schema
from jobs.records.jobs import Job
from jobs.store import responses, traces

#: Fields of a request that make no sense in a file, and the value that is refused.
_REFUSED: Final[Mapping[str, tuple[bool, str]]] = {
    "stream": (True, "A line of a batch cannot be streamed."),
    "store": (False, "The results of a batch are read later, so they must be stored."),
}
_OK: Final = 200
_FAILED: Final = 500


class _Endpoint:
    """What both routes have in common.

    Args:
        settings: the limits of images, and of the served model.
        database: stores jobs and files.
        service: its limits are those of the routes.
    """

    def __init__(
        self, settings: Settings, *, database: Database, service: SubmissionService
    ) -> None:
        self._profile = settings.profile
        self._files = ImageFiles(settings, database=database)
        self._database = database
        self._service = service

    def is_long(self, place: tuple[str | int, ...]) -> bool:
        """Return whether the body has an image at ``place``."""
        return conversation.is_image(place)

    def answered(self, job: Job) -> bool:
        """Return whether the job has succeeded, or has used up its tokens without an answer."""
        return response_object.status(job) in {
            response_object.COMPLETED,
            response_object.INCOMPLETE,
        }

    def usage(self, job: Job) -> Mapping[str, Any] | None:
        """Return the tokens of a finished job; None: no engine accepted it."""
        in_json = json_schema.of(job.options.get("answer_format")) is not None
        tokens = traces.answer_tokens(self._database, job.id, job.attempt) if in_json else 0
        return response_object.usage(job, tokens)


class ResponsesEndpoint(_Endpoint):
    """``/v1/responses``."""

    path = "/v1/responses"

    def parse(
        self, caller: Caller, body: Mapping[str, Any], *, read_files: bool
    ) -> ParsedSubmission:
        """Return a body as a submission, with all of its faults."""
        parsed = responses_request.parse(
            body,
            profile=self._profile,
            limits=self._service.limits,
            earlier=Earlier(self._database, account_id=caller.account_id),
            files=self._files.of(caller, read=read_files),
        ).submission
        return _of_batch(parsed, body)

    def answer(self, job: Job) -> LineAnswer:
        """Return the Response of a finished job, or its error.

        Raises:
            core.errors.NotFound: it was deleted.
            core.errors.Unavailable: the database does not answer.
        """
        if not self.answered(job):
            return _failed(job)
        stored = replay.find(self._database, job.id, scope=job.account_id)
        shown = replay.current(self._database, stored)
        return LineAnswer(_OK, shown, job.request_id)


class ChatEndpoint(_Endpoint):
    """``/v1/chat/completions``."""

    path = "/v1/chat/completions"

    def parse(
        self, caller: Caller, body: Mapping[str, Any], *, read_files: bool
    ) -> ParsedSubmission:
        """Return a body as a submission, with all of its faults."""
        parsed = chat_reading.parse(
            body,
            profile=self._profile,
            limits=self._service.limits,
            files=self._files.of(caller, read=read_files),
        ).submission
        return _of_batch(parsed, body)

    def answer(self, job: Job) -> LineAnswer:
        """Return the chat completion of a finished job, or its error.

        Raises:
            core.errors.Unavailable: the database does not answer.
        """
        generations = traces.read(self._database, job.id, attempt=job.attempt)
        entry = responses.get(self._database, job.id)
        sent = (entry.requested if entry is not None else None) or {}
        try:
            whole = chat_results.completion(job, generations, stop=sent.get("stop") or ())
        except chat_results.JobFailed:
            return _failed(job)
        return LineAnswer(_OK, whole.model_dump(mode="json"), job.request_id)


def _of_batch(parsed: ParsedSubmission, body: Mapping[str, Any]) -> ParsedSubmission:
    """Return the submission of a line.

    Its response is not in the background: those have events of their own, which a client of a batch does not want.
    """
    faults = [
        errors.Fault(f"#/{name}", sentence, "unsupported_parameter")
        for name, (value, sentence) in _REFUSED.items()
        if body.get(name) is value
    ]
    sent = parsed.response
    return dataclasses.replace(
        parsed,
        faults=(*parsed.faults, *faults),
        response=None if sent is None else dataclasses.replace(sent, background=False),
    )


def _failed(job: Job) -> LineAnswer:
    """Return the error of a job that has failed or was cancelled."""
    code = job.error_code or str(job.status)
    message = job.error_message or f"The job was {job.status}."
    return LineAnswer(_FAILED, error_body(code, message, "server_error"), job.request_id)


def served(
    settings: Settings, *, database: Database, service: SubmissionService
) -> dict[str, BatchEndpoint]:
    """Return the routes whose requests batches may have, by path."""
    endpoints: list[BatchEndpoint] = [
        ResponsesEndpoint(settings, database=database, service=service),
        ChatEndpoint(settings, database=database, service=service),
    ]
    return {endpoint.path: endpoint for endpoint in endpoints}
