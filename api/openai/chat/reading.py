"""Reads the request of a chat completion as the submission of a job."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from api import framework
from api.openai import conversation, options
from api.openai.chat.requests import CompletionRequest
from api.schemas import requests
from api.submission import parsing
from core import errors
from core.profiles import ModelProfile
from jobs.store.responses import NewResponse

#: The kind of these submissions: its path is part of the fingerprint of an idempotent request.
CHAT: Final = parsing.SubmissionKind(
    "/v1/chat/completions", requests.JobFields, requests.JobRequest
)


@dataclass(frozen=True)
class ParsedChat:
    """A parsed request.

    Attributes:
        submission: the job, with all faults.
        stream: whether to stream.
        include_usage: whether the stream ends with the usage.
        stop: texts before which the answer ends.
        discard: whether the content is removed after the response.
    """

    submission: parsing.ParsedSubmission
    stream: bool = False
    include_usage: bool = False
    stop: tuple[str, ...] = ()
    discard: bool = False


def parse(
    body: object,
    *,
    profile: ModelProfile,
    limits: requests.RequestLimits,
    files: conversation.Files = lambda _: None,
) -> ParsedChat:
    """Return the submission of a body, with all of its faults.

    It needs no request context, so the line of a batch is parsed in the same way.

    Args:
        body: the JSON of the request.
        profile: of the served model.
        limits: of the installation.
        files: returns the uploaded file of an id.
    """
    sent: Mapping[str, Any] = body if isinstance(body, dict) else {}
    faults: list[errors.Fault] = []
    chat: CompletionRequest | None = None
    try:
        chat = CompletionRequest.model_validate(body, context=limits)
    except ValidationError as error:
        faults += framework.faults_of(error, unknown=options.unknown)
        valid = options.without_faults(sent, error)
        with contextlib.suppress(ValidationError):
            chat = CompletionRequest.model_validate(valid | {"messages": [{}]}, context=limits)
    read = conversation.read(
        sent,
        "messages",
        max_images=limits.images,
        max_system_chars=limits.question_chars,
        files=files,
        drops_oldest=True,
        most_chars=limits.question_chars,
    )
    known = {fault.pointer for fault in faults}
    faults += (fault for fault in read.faults if fault.pointer not in known)
    job_options = _options(chat, sent, profile, limits, faults)
    if chat is None or job_options is None or read.conversation is None or faults:
        return ParsedChat(
            parsing.ParsedSubmission(
                CHAT, None, read.images, tuple(faults), conversation=read.conversation
            )
        )
    job = requests.JobFields.model_construct(
        model=chat.model, question=read.conversation.whole().question, options=job_options
    )
    stop = chat.stops
    submission = parsing.ParsedSubmission(
        CHAT,
        job,
        read.images,
        (),
        conversation=read.conversation,
        response=NewResponse(
            "chat",
            background=False,
            requested={
                "input": read.items,
                "stop": list(stop),
                **({"store": False} if chat.store is False else {}),
            },
            discard=chat.store is False,
        ),
    )
    return ParsedChat(
        submission,
        stream=bool(chat.stream),
        include_usage=bool(chat.stream_options and chat.stream_options.include_usage),
        stop=stop,
        discard=chat.store is False,
    )


def _options(
    chat: CompletionRequest | None,
    sent: Mapping[str, Any],
    profile: ModelProfile,
    limits: requests.RequestLimits,
    faults: list[errors.Fault],
) -> requests.JobOptions | None:
    """Return the options of the job; append their faults."""
    if chat is None:
        return None
    requested = chat.max_completion_tokens or chat.max_tokens
    own = {
        "max_output_tokens": options.output_tokens(requested, chat.reasoning_effort, profile),
        "answer_format": _answer_format(chat, faults),
        "temperature": chat.temperature,
        "top_p": chat.top_p,
        "seed": chat.job_seed,
        "metadata": chat.metadata,
    }
    places = {name: f"#/{name}" for name in own} | {
        "max_output_tokens": "#/max_completion_tokens",
        "answer_format": "#/response_format/json_schema/schema",
    }
    return options.job_options(
        {name: value for name, value in own.items() if value is not None},
        places,
        options.implied(sent.get("options"), {"priority": "low"} if chat.flexible else {}),
        limits=limits,
        faults=faults,
    )


def _answer_format(chat: CompletionRequest, faults: list[errors.Fault]) -> dict[str, Any] | None:
    form = chat.response_format
    if form is None:
        return None
    schema = form.json_schema.schema_ if form.json_schema is not None else None
    place = "#/response_format/json_schema"
    if form.type == "json_schema" and form.json_schema is None:
        faults.append(errors.Fault(place, "This must be an object with `name` and `schema`."))
        return None
    return options.answer_format(form.type, schema, place, faults)
