"""What callers send."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from api.schemas import fields
from core import errors, profiles
from core.special_tokens import SpecialTokens
from jobs.answers import json_schema

_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*([0-9]{1,6})(?=$|[,;\s])", re.ASCII | re.IGNORECASE)
MAX_WAIT_SECONDS = 60
#: What can be told of a job, as :class:`webhooks.policy.EventType` has it.
JobEvent = Literal["job.started", "job.succeeded", "job.failed", "job.cancelled"]
#: In a list of kinds of events, which may name one twice.
MAX_EVENTS = 16
#: In one group.
MAX_QUESTIONS = 64
#: As :class:`core.settings.Settings` has it at most.
_MAX_IMAGES = 64
#: More fields than any object has; what it has beyond them is not looked at one by one.
_MAX_FIELDS = 64
#: Of an id or a model's name.
_MAX_NAME_CHARS = 255


@dataclass(frozen=True)
class RequestLimits:
    """What this installation takes: the context in which :class:`JobRequest` is checked."""

    model: str
    question_chars: int
    output_tokens: int
    images: int
    samples: int
    generations: int
    special_tokens: SpecialTokens


class RequestModel(BaseModel):
    """The base of what callers send. A fault in it must not quote what it holds."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, value: Any) -> Any:  # noqa: ANN401 - whatever came in
        if isinstance(value, dict) and len(value) > _MAX_FIELDS:
            raise ValueError(
                f"This may have at most {_MAX_FIELDS} fields; there are {len(value):,}."
            )
        return value


class JobWebhook(RequestModel):
    """Who is told of a job: a `url` or an `endpoint_id`."""

    url: fields.Url | None = Field(
        default=None,
        description="Signed with the account's secret: `/v1/webhook_secret`.",
        examples=["https://example.com/hooks/longlook"],
    )
    endpoint_id: str | None = Field(
        default=None,
        max_length=_MAX_NAME_CHARS,
        description="One of the account's webhook endpoints, whatever its types are.",
    )
    events: Annotated[list[JobEvent], Field(min_length=1, max_length=MAX_EVENTS)] | None = Field(
        default=None, description="Default: the three that end a job."
    )

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if (self.url is None) == (self.endpoint_id is None):
            raise ValueError("This has to have exactly one of `url` and `endpoint_id`.")
        return self


def _short_enough(value: str, info: ValidationInfo) -> str:
    limits: RequestLimits | None = info.context
    if limits and len(value) > limits.question_chars:
        raise ValueError(f"This may have at most {limits.question_chars} characters.")
    return value


def _no_special_token(value: str, info: ValidationInfo) -> str:
    limits: RequestLimits | None = info.context
    spelled = limits.special_tokens.first_in(value) if limits else None
    if spelled is not None:
        shown = "".join(char if char.isprintable() else "\ufffd" for char in spelled)
        raise ValueError(f"This spells the special token `{shown}`: no answer can repeat it.")
    return value


_Question = Annotated[fields.Question, AfterValidator(_short_enough)]
_Choice = Annotated[fields.Question, Field(max_length=200), AfterValidator(_no_special_token)]


class AnswerFormat(RequestModel):
    """As what the answer's text is to be read; `value` of the answer is null when it cannot be.

    For `json_schema` the model reasons freely first; then the engine's grammar holds it to the schema, and a job
    whose answer does not come out so fails with `answer_format_unmet`.
    """

    type: Literal["free", "number", "boolean", "choice", "json_schema"]
    options: (
        Annotated[
            list[_Choice],
            Field(min_length=2, max_length=26),
        ]
        | None
    ) = Field(
        default=None,
        description="For `choice`: what can be chosen. The answer names one by its text or its letter, A the first. "
        "None may spell a special token of the model, such as `<|im_end|>`.",
    )

    schema_: dict[str, Any] | None = Field(
        default=None,
        alias="schema",
        description="For `json_schema`: an object, in JSON Schema 2020-12 without what no grammar holds a model to. "
        f"At most {json_schema.MAX_BYTES} bytes, {json_schema.MAX_DEPTH} levels and {json_schema.MAX_PARTS} parts. "
        "No name, title or value in it may spell a special token of the model.",
        examples=[
            {
                "type": "object",
                "properties": {"count": {"type": "integer", "minimum": 0}},
                "required": ["count"],
            }
        ],
    )

    @field_validator("schema_")
    @classmethod
    def _can_be_met(
        cls, value: dict[str, Any] | None, info: ValidationInfo
    ) -> dict[str, Any] | None:
        limits: RequestLimits | None = info.context
        special_tokens = limits.special_tokens if limits else None
        if value is not None and (faults := json_schema.faults(value, special_tokens)):
            raise ValueError(f"An answer cannot be asked for by this schema. {' '.join(faults)}")
        return value

    @model_validator(mode="after")
    def _schema_for_json(self) -> Self:
        if (self.type == "json_schema") != (self.schema_ is not None):
            raise ValueError("`schema` and the type `json_schema` have to be given together.")
        return self

    @model_validator(mode="after")
    def _options_for_a_choice(self) -> Self:
        if (self.type == "choice") != (self.options is not None):
            raise ValueError("`options` and the type `choice` have to be given together.")
        folded = {option.casefold().strip() for option in self.options or ()}
        if len(folded) < len(self.options or ()):
            raise ValueError("Two of the options are the same.")
        return self


class Guards(RequestModel):
    """Which guards watch the trace. One that is not named is as the installation has it."""

    loop: bool | None = Field(
        default=None, description="Stops an endless loop; the answer is then asked for."
    )
    budget: bool | None = Field(
        default=None,
        description="Keeps 80 tokens of `max_output_tokens` (from 256 on) for an answer when the reasoning uses up "
        "the others; ends a final answer that does not come to its end.",
    )
    convergence: bool | None = Field(
        default=None,
        description="Has the answer given on the way, at 1/16, 1/8, 1/4 and 1/2 of `max_output_tokens`, and stops the "
        "reasoning when two in a row are the same. Costs up to 24 tokens each, beside `max_output_tokens`.",
    )
    language: bool | None = Field(
        default=None,
        description="Asks again for an answer in another script than the question's, when the reasoning drifted there.",
    )
    verify: bool | None = Field(
        default=None,
        description="Keeps a quarter of `max_output_tokens`, 512 at most, for a second look at the image, by which the "
        "answer is confirmed or corrected. Nothing is done when that would be less than 32 tokens.",
    )


class JobOptions(RequestModel):
    """How the job is to be run. All of it is optional."""

    detail: profiles.Detail | None = Field(
        default=None,
        description="Detail tier of the images that name none: most visual tokens per image are "
        + ", ".join(f"{tokens} ({tier})" for tier, tokens in profiles.DETAIL_TOKENS.items())
        + ". Default: `standard`.",
    )
    max_output_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Longest answer with its reasoning, in all streams of a sample but the probes of the guard "
        "`convergence`. Default: the model's, or what the images and the question leave of its context.",
    )
    temperature: float | None = Field(default=None, ge=0, le=2, description="0 is greedy.")
    top_p: float | None = Field(default=None, gt=0, le=1, description="Nucleus sampling.")
    seed: int | None = Field(
        default=None,
        ge=0,
        le=2**31 - 1,
        description="Best effort; no effect on a CPU engine. Each further sample has the next one.",
    )
    samples: int | None = Field(
        default=None,
        ge=1,
        description="So many samples vote on the answer, at most: they are asked for in waves, until the leading "
        "answer cannot be overtaken. Needs a temperature above 0; its default is then the model's for voting. "
        "Default: 1.",
    )
    answer_format: AnswerFormat | None = Field(
        default=None,
        description="What `value` of the answer is to be. The question itself should say so too.",
        examples=[{"type": "choice", "options": ["red", "green"]}],
    )
    priority: Literal["high", "normal", "low"] | None = Field(
        default=None,
        description="Default: `normal`. Within a priority, accounts take turns. A key has a highest priority: `normal` "
        "unless its operator allows more; a higher one is refused with the code `priority_not_allowed`.",
    )
    deadline_seconds: int | None = Field(
        default=None,
        ge=1,
        le=fields.MAX_DEADLINE_SECONDS,
        description="The job fails with `deadline_exceeded` so long after its submission.",
    )
    max_attempts: int | None = Field(
        default=None, ge=1, le=20, description="Engine faults after which the job fails."
    )
    guards: Guards | None = Field(default=None, description="Guards, on or off.")
    metadata: fields.Metadata | None = Field(
        default=None,
        description="Up to 16 pairs of text to find the job by. Keys: 1 to 64 characters; values: up to 512.",
        examples=[{"case": "42"}],
    )

    webhook: JobWebhook | None = Field(
        default=None, description="Tell of this job, beside the account's webhook endpoints."
    )

    @field_validator("max_output_tokens")
    @classmethod
    def _within_the_model(cls, value: int | None, info: ValidationInfo) -> int | None:
        limits: RequestLimits | None = info.context
        if limits and value is not None and value > limits.output_tokens:
            raise ValueError(f"This model gives at most {limits.output_tokens} tokens.")
        return value

    @field_validator("samples")
    @classmethod
    def _within_the_limit(cls, value: int | None, info: ValidationInfo) -> int | None:
        limits: RequestLimits | None = info.context
        if limits and value is not None and value > limits.samples:
            raise ValueError(f"There may be at most {limits.samples} samples here.")
        if (value or 1) > 1 and info.data.get("temperature") == 0:
            raise ValueError("At temperature 0 all samples would be the same.")
        return value


class ImageInput(RequestModel):
    """One picture: `data`, `image_id` or `url`."""

    data: str | None = Field(
        default=None,
        description="The image file as a data URL.",
        examples=["data:image/png;base64,iVBORw0KGgo…"],
    )
    image_id: str | None = Field(
        default=None,
        max_length=_MAX_NAME_CHARS,
        description="An image that was uploaded before.",
        examples=["img_0190c0de00007000800000000000abcd"],
    )
    url: fields.Url | None = Field(
        default=None,
        description="Where the file is fetched from, before the answer: http or https, at a public address.",
        examples=["https://example.com/pelicans.jpg"],
    )
    detail: profiles.Detail | None = Field(
        default=None,
        description="Detail tier. With `image_id` it has to be the one of the upload.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if [self.data, self.image_id, self.url].count(None) != 2:  # noqa: PLR2004 - of three
            raise ValueError("This has to have exactly one of `data`, `image_id` and `url`.")
        return self


class SubmissionFields(RequestModel):
    """What all forms of all orders have."""

    model: str | None = Field(
        default=None, max_length=_MAX_NAME_CHARS, description="Default: the served model."
    )
    options: JobOptions = Field(default=JobOptions(), description="An object; JSON text in a form.")

    @field_validator("model")
    @classmethod
    def _served(cls, value: str | None, info: ValidationInfo) -> str | None:
        limits: RequestLimits | None = info.context
        if limits and value not in (None, limits.model):
            raise fields.InvalidValue(
                f"There is no such model here; it has to be `{limits.model}`.",
                code="model_not_found",
            )
        return value


class JobFields(SubmissionFields):
    """What both forms of a job have."""

    question: _Question = Field(
        description="What to find out.", examples=["How many pelicans are there?"]
    )

    @property
    def requested(self) -> tuple[str, ...]:
        """The questions: one."""
        return (self.question,)


class GroupFields(SubmissionFields):
    """What both forms of a group have."""

    questions: Annotated[list[_Question], Field(min_length=1, max_length=MAX_QUESTIONS)] = Field(
        description="What to find out about the same images, each a job of its own.",
        examples=[["How many pelicans are there?", "Which of them fly?"]],
    )

    @property
    def requested(self) -> tuple[str, ...]:
        """The questions."""
        return tuple(self.questions)


class _WithImages(RequestModel):
    """Images as JSON."""

    images: Annotated[list[ImageInput], Field(min_length=1, max_length=_MAX_IMAGES)]

    @field_validator("images", mode="before")
    @classmethod
    def _few_enough(cls, value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401 - whatever came in
        limits: RequestLimits | None = info.context
        if limits and isinstance(value, list) and len(value) > limits.images:
            raise ValueError(
                f"There may be at most {limits.images} images; there are {len(value):,}."
            )
        return value


class JobRequest(_WithImages, JobFields):
    """A job as JSON."""


class GroupRequest(_WithImages, GroupFields):
    """A group as JSON."""


class _FormFields(RequestModel):
    """Images as files in parts called `image`."""

    image: Annotated[
        list[Annotated[bytes, WithJsonSchema({"type": "string", "contentMediaType": "image/*"})]],
        Field(min_length=1, description="One part for each image, in order."),
    ]


class JobForm(_FormFields, JobFields):
    """A job as a form: files in parts called `image`."""


class GroupForm(_FormFields, GroupFields):
    """A group as a form: files in parts called `image`, questions in parts called `questions`."""


class ImageUpload(RequestModel):
    """An image as JSON."""

    data: str = Field(description="The image file as a data URL.")


class ImageForm(RequestModel):
    """An image as a form: one file, called `image` or `file`."""

    image: Annotated[bytes, WithJsonSchema({"type": "string", "contentMediaType": "image/*"})]


class ParameterModel(BaseModel):
    """Values of the path, the query or headers: always text."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class JobPath(ParameterModel):
    """Which job."""

    job_id: str = Field(description="`job_` and 32 hex digits.")


class GroupPath(ParameterModel):
    """Which group."""

    group_id: str = Field(description="`grp_` and 32 hex digits.")


class ImagePath(ParameterModel):
    """Which image."""

    image_id: str = Field(description="`img_` and 32 hex digits.")


class ModelPath(ParameterModel):
    """Which model."""

    model_id: str = Field(description="The model's name.")


class UploadQuery(ParameterModel):
    """How to keep an uploaded image."""

    detail: profiles.Detail = Field(
        default="standard", description="Detail tier; it is fixed when the image comes in."
    )


class TraceQuery(ParameterModel):
    """Which part of the trace."""

    attempt: int | None = Field(default=None, ge=1, description="Only this attempt's generations.")


class TimelineQuery(ParameterModel):
    """Which page of the timeline."""

    after: int = Field(
        default=0, ge=0, le=2**63 - 1, description="The `last_id` of the page before."
    )
    limit: int = Field(default=100, ge=1, le=1000, description="Entries on a page.")


class QueueQuery(ParameterModel):
    """Whose queue."""

    account: Annotated[fields.Text, Field(max_length=255)] | None = Field(
        default=None, description="Of this account, by name or id. For operators, who see all."
    )


class UsageQuery(ParameterModel):
    """Whose usage."""

    account: Annotated[fields.Text, Field(max_length=255)] | None = Field(
        default=None, description="Of this account, by name or id. For operators."
    )


class WaitHeaders(ParameterModel):
    """How long the answer may be held back."""

    prefer: str | None = Field(
        default=None,
        alias="Prefer",
        description=f"`wait=n` holds the answer until the job has finished, n seconds at most (up to "
        f"{MAX_WAIT_SECONDS}; RFC 7240).",
        json_schema_extra={"example": "wait=30"},
    )

    @property
    def wait(self) -> int:
        """Seconds to wait, 0 for not at all. What is not understood is no preference (RFC 7240)."""
        found = _WAIT.search(self.prefer or "")
        return min(int(found[1]), MAX_WAIT_SECONDS) if found else 0


class KeyHeaders(ParameterModel):
    """How often a request may be sent."""

    idempotency_key: fields.IdempotencyKey | None = Field(
        default=None,
        alias="Idempotency-Key",
        description="A request that is sent again with the same key is not done again: the answer is the job "
        "that it made, with `Idempotent-Replayed: true`. 1 to 255 printable characters, quoted or not.",
        json_schema_extra={"example": "8e03978e-40d5-43e8-bc93-6894a57f9324"},
    )


class RerunHeaders(KeyHeaders, WaitHeaders):
    """How often a request may be sent, and how long it may take."""


class GroupHeaders(KeyHeaders):
    """How often a request may be sent, and when to give up."""

    cancel_after: fields.Duration | None = Field(
        default=None,
        alias="Cancel-After",
        description="A deadline such as `30s`, `10m`, `2h`; the earlier of it and `deadline_seconds` holds.",
        json_schema_extra={"example": "10m"},
    )


class SubmitHeaders(GroupHeaders, WaitHeaders):
    """The same, and how long it may take."""


def unknown(place: tuple[str | int, ...]) -> tuple[str, str]:
    """Say what is wrong with a field that is not known, and under which code."""
    name = str(place[-1])
    if place == ("questions",):
        return (
            "Several questions about the same images are a group: POST /v1/groups.",
            errors.Fault.code,
        )
    if len(place) == 1 and name in JobOptions.model_fields:
        return f"`{name}` belongs inside `options`.", errors.Fault.code
    return "There is no such field.", errors.Fault.code
