"""The body of ``POST /v1/responses``: what is read, what is ignored, and what is refused by name.

:func:`parse` returns a :class:`ParsedResponse`, whose submission has all faults of a body. It needs no request context,
so the line of a batch is parsed in the same way::

    parsed = request.parse(body, profile=profile, limits=service.limits, files=files, earlier=Earlier(...))
    service.submit(caller, parsed.submission, header=GroupHeaders(), request_id=...)
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError

from api import framework
from api.openai import conversation, options
from api.openai.earlier import Earlier
from api.openai.options import ServiceTier, Whole
from api.schemas import fields, requests
from api.submission import parsing
from core import errors
from core.profiles import ModelProfile
from jobs.store.responses import NewResponse

#: The kind of these submissions: its path is part of the fingerprint of an idempotent request.
RESPONSE: Final = parsing.SubmissionKind("/v1/responses", requests.JobFields, requests.JobRequest)
_NO_TOOLS: Final = "Tools are not supported."
#: Known fields that have an effect on OpenAI's side, and none here.
IGNORED: Final = frozenset(
    {
        "max_tool_calls",
        "parallel_tool_calls",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "stream_options",
        "verbosity",
    }
)
#: Known fields that would change the answer, and that are refused unless they are null or empty.
REFUSED: Final[Mapping[str, str]] = {
    "access_programs": "Access programs are not supported.",
    "context_management": "Context management is not supported; `truncation` is.",
    "conversation": "Stored conversations are not supported; `previous_response_id` is.",
    "image": "Image compression is not supported; each image has a `detail`.",
    "moderation": "Moderation is not supported.",
    "personality": "Personalities are not supported; `instructions` are.",
    "prompt": "Stored prompts are not supported.",
    "tools": _NO_TOOLS,
}
_LOGPROBS: Final = "message.output_text.logprobs"
_WINDOWS: Final[Mapping[str, int]] = {"2h": 2 * 3600, "8h": 8 * 3600}
_Text = Annotated[fields.Text, Field(max_length=1_000_000)]


class ReasoningOptions(requests.RequestModel):
    """How much the model reasons, and whether a summary is wanted."""

    effort: options.Effort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    context: Any = None
    mode: Any = None


class TextFormat(requests.RequestModel):
    """The format of the answer."""

    type: Literal["text", "json_schema", "json_object"]
    name: Annotated[fields.Text, Field(max_length=255)] | None = None
    description: Annotated[fields.Text, Field(max_length=8192)] | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class TextOptions(requests.RequestModel):
    """The options of the answer's text."""

    format: TextFormat | None = None
    verbosity: Any = None


class BackgroundOptions(requests.RequestModel):
    """Within which time a response in the background is wanted."""

    completion_window: Literal["soonest", "2h", "8h"] | None = None
    continuation_id: Any = None


class ResponseRequest(requests.RequestModel):
    """A response to create.

    Fields of OpenAI's that have no effect here are accepted; those that would change the answer, such as `tools`, are
    refused by name.
    """

    model: str | None = Field(default=None, max_length=255, description="Default: the served one.")
    input: Any = Field(
        description="Text, or a list of messages: texts, and images as data URLs, URLs or `file_id`. Earlier turns are "
        "folded into the prompt, because the models answer single rounds; the job gets the newest images."
    )
    instructions: _Text | None = Field(
        default=None, description="Follows the system prompt of the model."
    )
    background: bool | None = None
    store: bool | None = Field(
        default=None,
        description="With `false`, the content is removed after the answer; not together with `background`.",
    )
    stream: bool | None = None
    previous_response_id: str | None = Field(default=None, max_length=255)
    max_output_tokens: Whole | None = Field(
        default=None,
        ge=1,
        description="Of reasoning and answer; at most the model's maximum applies.",
    )
    temperature: Any = None
    top_p: Any = None
    reasoning: ReasoningOptions | None = None
    text: TextOptions | None = None
    metadata: Any = None
    truncation: Literal["auto", "disabled"] | None = None
    service_tier: ServiceTier | None = Field(
        default=None, description="`flex` is the priority `low`; others have no effect."
    )
    background_options: BackgroundOptions | None = None
    include: list[Annotated[str, Field(max_length=255)]] | None = Field(default=None, max_length=64)
    tool_choice: Any = None
    top_logprobs: Whole | None = Field(default=None, ge=0, le=20)
    user: Annotated[fields.Text, Field(max_length=512)] | None = None
    options: Any = Field(
        default=None,
        description="Options that OpenAI has no name for, through `extra_body`: "
        + ", ".join(f"`{name}`" for name in sorted(options.EXTRA))
        + ".",
    )


@dataclass(frozen=True)
class ParsedResponse:
    """A submission, and how its client wants the answer.

    Attributes:
        submission: with all faults.
        background: whether the client does not wait.
        stream: whether it wants a stream of events.
        stored: whether the content stays after the answer.
    """

    submission: parsing.ParsedSubmission
    background: bool = False
    stream: bool = False
    stored: bool = True


def parse(
    body: object,
    *,
    profile: ModelProfile,
    limits: requests.RequestLimits,
    earlier: Earlier,
    files: conversation.Files = lambda _: None,
) -> ParsedResponse:
    """Return the submission of a body, with all of its faults, and how its client wants the answer.

    Args:
        body: decoded JSON; strings at the places of :func:`api.openai.conversation.is_image` may be long ones.
        profile: of the served model.
        limits: of the installation.
        earlier: finds the messages before those of the request.
        files: returns the file for a ``file_id``.
    """
    if not isinstance(body, dict):
        fault = errors.Fault("#", "The body must be a JSON object.")
        return ParsedResponse(parsing.ParsedSubmission(RESPONSE, None, (), (fault,)))
    read, faults = options.split(body, ignored=IGNORED, refused=REFUSED)
    sent: ResponseRequest | None = None
    try:
        sent = ResponseRequest.model_validate(read)
    except ValidationError as error:
        faults += framework.faults_of(error, unknown=options.unknown)
        rest = {"input": None} | options.without_faults(read, error)
        with contextlib.suppress(ValidationError):
            sent = ResponseRequest.model_validate(rest)
    messages = (
        conversation.read(
            body,
            "input",
            max_images=limits.images,
            max_system_chars=limits.question_chars,
            files=files,
            instructions=sent.instructions if sent is not None else None,
            earlier=_earlier(sent, earlier, faults, most_chars=limits.question_chars),
            referenced=earlier.referenced,
            drops_oldest=sent is not None and sent.truncation == "auto",
            most_chars=limits.question_chars,
        )
        if "input" in body
        else None
    )
    if messages is not None:
        faults += messages.faults
    job_options = None
    if sent is not None:
        faults += _model_faults(sent, limits)
        job_options = _options(sent, profile, limits, faults)
    if sent is None or messages is None:
        images = messages.images if messages is not None else ()
        return ParsedResponse(parsing.ParsedSubmission(RESPONSE, None, images, tuple(faults)))
    job = None
    if job_options is not None and messages.conversation is not None:
        question = messages.conversation.whole().question
        job = requests.JobFields.model_construct(question=question, options=job_options)
    requested = requested_of(sent) | {"input": messages.items}
    submission = parsing.ParsedSubmission(
        RESPONSE,
        job,
        messages.images,
        tuple(faults),
        conversation=messages.conversation,
        response=NewResponse(
            "responses", bool(sent.background), requested, discard=sent.store is False
        ),
    )
    return ParsedResponse(
        submission,
        background=bool(sent.background),
        stream=bool(sent.stream),
        stored=sent.store is not False,
    )


def requested_of(sent: ResponseRequest) -> dict[str, Any]:
    """Return the fields that the Response object repeats, without those that have their default."""
    repeated = {
        name: value
        for name, value in sent.model_dump(
            by_alias=True, exclude_none=True, include=_REPEATED
        ).items()
        if value != {}
    }
    if "service_tier" in repeated:
        repeated["service_tier"] = "flex" if repeated["service_tier"] == "flex" else "default"
    return repeated


_REPEATED: Final[dict[str, Any]] = {
    "instructions": True,
    "store": True,
    "previous_response_id": True,
    "max_output_tokens": True,
    "reasoning": {"effort", "summary", "generate_summary"},
    "text": {"format"},
    "truncation": True,
    "service_tier": True,
    "user": True,
}


def _earlier(
    sent: ResponseRequest | None,
    earlier: Earlier,
    faults: list[errors.Fault],
    *,
    most_chars: int,
) -> list[conversation.Message]:
    if sent is None or sent.previous_response_id is None:
        return []
    return earlier.messages(
        sent.previous_response_id,
        faults,
        most_chars=most_chars,
        drops_oldest=sent.truncation == "auto",
    )


def _model_faults(sent: ResponseRequest, limits: requests.RequestLimits) -> list[errors.Fault]:
    """Return the faults that the types do not show."""
    listed: list[tuple[str, str, str]] = []
    unsupported, code = "unsupported_parameter", errors.Fault.code
    if sent.model not in (None, limits.model):
        sentence = f"There is no such model; this must be `{limits.model}`."
        listed.append(("model", sentence, "model_not_found"))
    if sent.background and sent.store is False:
        sentence = (
            "A response in the background must be stored: without `store`, nothing could be retrieved. Send "
            "`background: false`, or delete the response afterwards."
        )
        listed.append(("store", sentence, unsupported))
    if sent.top_logprobs or _LOGPROBS in (sent.include or ()):
        place = "top_logprobs" if sent.top_logprobs else "include"
        listed.append((place, "Log probabilities are not supported.", unsupported))
    if sent.tool_choice not in (None, "auto", "none"):
        listed.append(("tool_choice", _NO_TOOLS, unsupported))
    window = sent.background_options and sent.background_options.completion_window
    if window in _WINDOWS and (not sent.background or sent.stream):
        sentence = "This needs `background: true`, and no `stream`."
        listed.append(("background_options/completion_window", sentence, code))
    if sent.instructions is not None and len(sent.instructions) > limits.question_chars:
        sentence = (
            f"This must have at most {limits.question_chars:,} characters; it has "
            f"{len(sent.instructions):,}."
        )
        listed.append(("instructions", sentence, "context_length_exceeded"))
    return [errors.Fault(f"#/{place}", sentence, code) for place, sentence, code in listed]


def _options(
    sent: ResponseRequest,
    profile: ModelProfile,
    limits: requests.RequestLimits,
    faults: list[errors.Fault],
) -> requests.JobOptions | None:
    effort = sent.reasoning.effort if sent.reasoning is not None else None
    window = sent.background_options and sent.background_options.completion_window
    deadline = _WINDOWS.get(window or "")
    low = sent.service_tier == "flex" or deadline is not None
    own: dict[str, Any] = {
        "max_output_tokens": options.output_tokens(sent.max_output_tokens, effort, profile),
        "temperature": sent.temperature,
        "top_p": sent.top_p,
        "metadata": sent.metadata,
        "answer_format": _answer_format(sent, faults),
    }
    places = {name: f"#/{name}" for name in own} | {"answer_format": "#/text/format/schema"}
    implied = {"priority": "low"} if low else {}
    extra = options.implied(
        sent.options, implied | ({"deadline_seconds": deadline} if deadline else {})
    )
    given = {name: value for name, value in own.items() if value is not None}
    return options.job_options(given, places, extra, limits=limits, faults=faults)


def _answer_format(sent: ResponseRequest, faults: list[errors.Fault]) -> dict[str, Any] | None:
    text_format = sent.text.format if sent.text is not None else None
    if text_format is None:
        return None
    if text_format.type == "json_schema" and not text_format.name:
        faults.append(errors.Fault("#/text/format/name", "A JSON Schema must have a name."))
    return options.answer_format(text_format.type, text_format.schema_, "#/text/format", faults)
