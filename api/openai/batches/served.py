"""The routes whose requests a batch may have: ``/v1/responses``."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Final

from api.auth import Caller
from api.openai import conversation
from api.openai.batches.endpoints import BatchEndpoint, LineAnswer
from api.openai.batches.results import error_body
from api.openai.earlier import Earlier
from api.openai.files import read_image
from api.openai.responses import request as responses_request
from api.submission import ParsedSubmission, SubmissionService
from core import errors, ids
from core.database import Database
from core.settings import Settings
from jobs.lifecycle import Status
from jobs.records import Job

#: Fields of a request that make no sense in a file, and the value that is refused.
_REFUSED: Final[Mapping[str, tuple[bool, str]]] = {
    "stream": (True, "A line of a batch cannot be streamed."),
    "store": (False, "The results of a batch are read later, so they must be stored."),
}
_FAILED: Final = 500


class ResponsesEndpoint:
    """``/v1/responses``.

    Args:
        settings: the limits of images, and of the served model.
        database: stores jobs and files.
        service: its limits are those of the route.
    """

    path = "/v1/responses"

    def __init__(
        self, settings: Settings, *, database: Database, service: SubmissionService
    ) -> None:
        self._profile = settings.profile
        self._image_bytes = settings.max_image_mb * 2**20
        self._database = database
        self._service = service

    def is_long(self, place: tuple[str | int, ...]) -> bool:
        """Return whether the body has an image at ``place``."""
        return conversation.is_image(place)

    def parse(self, caller: Caller, body: Mapping[str, Any]) -> ParsedSubmission:
        """Return a body as a submission, with all of its faults."""
        parsed = responses_request.parse(
            body,
            profile=self._profile,
            limits=self._service.limits,
            earlier=Earlier(self._database, account_id=caller.account_id),
            files=functools.partial(
                read_image, self._database, caller, max_bytes=self._image_bytes
            ),
        )
        return dataclasses.replace(parsed, faults=(*parsed.faults, *refused(body)))

    def answered(self, job: Job) -> bool:
        """Return whether the job has succeeded."""
        return job.status is Status.SUCCEEDED

    def answer(self, job: Job) -> LineAnswer:
        """Return the Response of a finished job, or its error."""
        if not self.answered(job):
            return failed(job)
        return LineAnswer(200, _response(job), job.request_id)


def refused(body: Mapping[str, Any]) -> list[errors.Fault]:
    """Return the faults of a body that is for no batch."""
    return [
        errors.Fault(f"#/{name}", sentence, "unsupported_parameter")
        for name, (value, sentence) in _REFUSED.items()
        if body.get(name) is value
    ]


def failed(job: Job) -> LineAnswer:
    """Return the error of a job that has failed or was cancelled."""
    code = job.error_code or str(job.status)
    message = job.error_message or f"The job was {job.status}."
    return LineAnswer(_FAILED, error_body(code, message, "server_error"), job.request_id)


def served(
    settings: Settings, *, database: Database, service: SubmissionService
) -> dict[str, BatchEndpoint]:
    """Return the routes whose requests batches may have, by path."""
    endpoints: list[BatchEndpoint] = [
        ResponsesEndpoint(settings, database=database, service=service)
    ]
    return {endpoint.path: endpoint for endpoint in endpoints}


def _response(job: Job) -> dict[str, Any]:
    text = job.answer_text or ""
    return {
        "id": ids.show("resp", job.id),
        "object": "response",
        "created_at": int(job.created_at.timestamp()),
        "status": "completed",
        "model": job.model,
        "output": [
            {
                "id": f"msg_{job.id.hex}",
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": text, "annotations": []}],
            }
        ],
        "usage": {
            "input_tokens": job.input_tokens or 0,
            "input_tokens_details": {"cached_tokens": job.cached_tokens or 0},
            "output_tokens": job.output_tokens or 0,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": (job.input_tokens or 0) + (job.output_tokens or 0),
        },
    }
