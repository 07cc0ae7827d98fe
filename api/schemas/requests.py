"""Request bodies: submissions, and the base of all others."""

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
from jobs.answers import json_schema, string_formats

#: The notification types of a job, as in :class:`webhooks.policy.EventType`.
JobEvent = Literal["job.started", "job.succeeded", "job.failed", "job.cancelled"]
#: Maximum length of a list of notification types, which may contain duplicates.
MAX_EVENTS = 16
#: Maximum number of questions in a group.
MAX_QUESTIONS = 64
#: The upper bound of the setting in :class:`core.settings.Settings`.
_MAX_IMAGES = 64
#: More fields than any object has; an object with more is refused as a whole.
_MAX_FIELDS = 64
#: Names under which clients look for the list of images.
_IMAGE_NAMES = frozenset({"image", "image_url", "image_urls", "image_id", "files", "file", "data"})
#: Maximum length of an id or a model's name.
_MAX_NAME_CHARS = 255


@dataclass(frozen=True)
class RequestLimits:
    """The limits of this installation: the context for validating :class:`JobRequest`."""

    model: str
    question_chars: int
    output_tokens: int
    images: int
    samples: int
    generations: int
    special_tokens: SpecialTokens


class RequestModel(BaseModel):
    """The base of all request bodies. A validation error must not quote its values."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, value: Any) -> Any:  # noqa: ANN401 - untrusted input
        if isinstance(value, dict) and len(value) > _MAX_FIELDS:
            raise ValueError(f"This must have at most {_MAX_FIELDS} fields; it has {len(value):,}.")
        return value


class JobWebhook(RequestModel):
    """The receiver of a job's notifications: a `url` or an `endpoint_id`."""

    url: fields.Url | None = Field(
        default=None,
        description="Notifications are signed with the account's secret: `/v1/webhook_secret`.",
        examples=["https://example.com/hooks/longlook"],
    )
    endpoint_id: str | None = Field(
        default=None,
        max_length=_MAX_NAME_CHARS,
        description="One of the account's webhook endpoints; its own event types do not matter.",
    )
    events: Annotated[list[JobEvent], Field(min_length=1, max_length=MAX_EVENTS)] | None = Field(
        default=None, description="Default: the three types that report the end of a job."
    )

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if (self.url is None) == (self.endpoint_id is None):
            raise ValueError("This must have exactly one of `url` and `endpoint_id`.")
        return self


def _short_enough(value: str, info: ValidationInfo) -> str:
    limits: RequestLimits | None = info.context
    if limits and len(value) > limits.question_chars:
        raise ValueError(
            f"This must have at most {limits.question_chars:,} characters; it has {len(value):,}."
        )
    return value


def _no_special_token(value: str, info: ValidationInfo) -> str:
    limits: RequestLimits | None = info.context
    spelled = limits.special_tokens.first_in(value) if limits else None
    if spelled is not None:
        printable = "".join(char if char.isprintable() else "\ufffd" for char in spelled)
        raise ValueError(
            f"This must not contain the special token `{printable}`: no answer can repeat it."
        )
    return value


_Question = Annotated[fields.Question, AfterValidator(_short_enough)]
_Choice = Annotated[fields.Question, Field(max_length=200), AfterValidator(_no_special_token)]


class AnswerFormat(RequestModel):
    """The type of the answer's `value`, which is null if the answer's text is not of this type.

    For `json_schema`, the model first reasons freely; then the engine's grammar enforces the schema. For
    `json_object`, it enforces a JSON object of any shape. A job whose answer does not match the format fails with
    `answer_format_unmet`.
    """

    type: Literal["free", "number", "boolean", "choice", "json_schema", "json_object"]
    options: (
        Annotated[
            list[_Choice],
            Field(min_length=2, max_length=26),
        ]
        | None
    ) = Field(
        default=None,
        description="For `choice`: the options. The answer names one by its text or its letter, A for the first. "
        "An option must not contain a special token of the model, such as `<|im_end|>`.",
    )

    schema_: dict[str, Any] | None = Field(
        default=None,
        alias="schema",
        description="For `json_schema`: a JSON Schema (2020-12) of an object, without keywords that no grammar can "
        f"enforce. `format` may be {', '.join(f'`{name}`' for name in string_formats.NAMES)}. "
        f"At most {json_schema.MAX_BYTES} bytes, {json_schema.MAX_DEPTH} levels and {json_schema.MAX_PARTS} "
        "parts. No name, title or value in it may contain a special token of the model.",
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
            raise ValueError(f"This JSON Schema is not supported. {' '.join(faults)}")
        return value

    @model_validator(mode="after")
    def _schema_for_json(self) -> Self:
        if (self.type == "json_schema") != (self.schema_ is not None):
            raise ValueError("`schema` and the type `json_schema` must be given together.")
        return self

    @model_validator(mode="after")
    def _options_for_a_choice(self) -> Self:
        if (self.type == "choice") != (self.options is not None):
            raise ValueError("`options` and the type `choice` must be given together.")
        folded = {option.casefold().strip() for option in self.options or ()}
        if len(folded) < len(self.options or ()):
            raise ValueError("The options must be different; two are the same.")
        return self


class Guards(RequestModel):
    """The guards that watch the trace. The defaults are settings of the installation."""

    loop: bool | None = Field(
        default=None, description="Stops an endless loop and forces an answer."
    )
    budget: bool | None = Field(
        default=None,
        description="Reserves 80 tokens of `max_output_tokens` (if that is 256 or more) for an answer, in case the "
        "reasoning uses up the rest; ends a final answer that does not end.",
    )
    convergence: bool | None = Field(
        default=None,
        description="Asks for an early answer at 1/16, 1/8, 1/4 and 1/2 of `max_output_tokens`, and stops the "
        "reasoning if two in a row are the same. Each costs up to 24 tokens on top of `max_output_tokens`.",
    )
    language: bool | None = Field(
        default=None,
        description="Asks again for an answer in another script than the question, if the reasoning drifted there.",
    )
    verify: bool | None = Field(
        default=None,
        description="Reserves a quarter of `max_output_tokens`, at most 512, for a verification of the answer with the "
        "image, which confirms or corrects it. Has no effect if that is less than 32 tokens.",
    )


class JobOptions(RequestModel):
    """The options of a job, all of them optional."""

    detail: profiles.Detail | None = Field(
        default=None,
        description="Detail tier of images without one of their own. Maximum visual tokens per image: "
        + ", ".join(f"{tokens} ({tier})" for tier, tokens in profiles.DETAIL_TOKENS.items())
        + ". Default: `standard`.",
    )
    max_output_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Maximum tokens of the reasoning and the answer, in all generations of a sample except the early "
        "answers of the guard `convergence`. Default: the model's, or what the images and the question leave of its "
        "context.",
    )
    temperature: float | None = Field(default=None, ge=0, le=2, description="0 is greedy.")
    top_p: float | None = Field(default=None, gt=0, le=1, description="Nucleus sampling.")
    seed: int | None = Field(
        default=None,
        ge=0,
        le=2**31 - 1,
        description="Best effort; no effect on a CPU engine. Each further sample has the next seed.",
    )
    samples: int | None = Field(
        default=None,
        ge=1,
        description="Maximum number of samples that vote on the answer. They run in waves until no other answer can "
        "overtake the leading one. Requires a temperature above 0, which then defaults to the model's temperature "
        "for voting. Default: 1.",
    )
    answer_format: AnswerFormat | None = Field(
        default=None,
        description="The type of the answer's `value`. The question should ask for it, too.",
        examples=[{"type": "choice", "options": ["red", "green"]}],
    )
    priority: Literal["high", "normal", "low"] | None = Field(
        default=None,
        description="Default: `normal`. Within a priority, accounts take turns. Each key has a highest priority, "
        "`normal` unless the operator allows more; a higher one is refused with the code `priority_not_allowed`.",
    )
    deadline_seconds: int | None = Field(
        default=None,
        ge=1,
        le=fields.MAX_DEADLINE_SECONDS,
        description="Seconds after the submission at which the job fails with `deadline_exceeded`.",
    )
    max_attempts: int | None = Field(
        default=None,
        ge=1,
        le=20,
        description="Number of engine failures after which the job fails.",
    )
    guards: Guards | None = Field(default=None, description="Turns guards on or off.")
    metadata: fields.Metadata | None = Field(
        default=None,
        description="Up to 16 pairs of strings for finding the job. Keys: 1 to 64 characters; values: up to 512.",
        examples=[{"case": "42"}],
    )

    webhook: JobWebhook | None = Field(
        default=None,
        description="A receiver for this job, in addition to the account's webhook endpoints.",
    )

    @field_validator("max_output_tokens")
    @classmethod
    def _within_the_model(cls, value: int | None, info: ValidationInfo) -> int | None:
        limits: RequestLimits | None = info.context
        if limits and value is not None and value > limits.output_tokens:
            raise ValueError(f"This must be at most {limits.output_tokens} for this model.")
        return value

    @field_validator("samples")
    @classmethod
    def _within_the_limit(cls, value: int | None, info: ValidationInfo) -> int | None:
        limits: RequestLimits | None = info.context
        if limits and value is not None and value > limits.samples:
            raise ValueError(f"This must be at most {limits.samples}.")
        if (value or 1) > 1 and info.data.get("temperature") == 0:
            raise ValueError("The temperature must be above 0: at 0 all samples would be the same.")
        return value


class ImageUrlObject(RequestModel):
    """The URL of an image in an object, as in the content of OpenAI's chat messages."""

    url: fields.ImageUrl
    detail: Literal["auto", profiles.Detail] | None = Field(
        default=None, description="As next to `image_url`; `auto` is the default."
    )


class ImageUrlText(ImageUrlObject):
    """The URL of an image that was sent as a string."""


class _ImageSources(RequestModel):
    """The ways to send an image in JSON that uploads and submissions share."""

    data: fields.ImageData | None = Field(
        default=None,
        description="The image file as a data URL.",
        examples=["data:image/png;base64,iVBORw0KGgo…"],
    )
    url: fields.ImageUrl | None = Field(
        default=None,
        description="The http or https URL of the file, at a public address; it is fetched before the response. Or "
        "the file itself as a data URL.",
        examples=["https://example.com/pelicans.jpg"],
    )
    image_url: (
        Annotated[
            ImageUrlObject | None,
            WithJsonSchema(
                {
                    "anyOf": [
                        {"type": "string", "format": "uri"},
                        {
                            "type": "object",
                            "properties": {
                                "url": {"type": "string", "format": "uri"},
                                "detail": {"type": "string"},
                            },
                            "required": ["url"],
                            "additionalProperties": False,
                        },
                    ]
                }
            ),
        ]
        | None
    ) = Field(
        default=None,
        description="The same as `url`, by the name that OpenAI's clients use: a string, or an object with `url`.",
    )

    @field_validator("image_url", mode="before")
    @classmethod
    def _as_object(cls, value: Any) -> Any:  # noqa: ANN401 - untrusted input
        if isinstance(value, fields.LongText):
            return ImageUrlText.model_construct(url=fields.image_url(value))
        return value

    @property
    def address(self) -> tuple[str, fields.LongText] | None:
        """The URL in `url` or `image_url`, after the rest of its JSON pointer."""
        if self.url is not None:
            return "url", self.url
        if self.image_url is None:
            return None
        in_text = isinstance(self.image_url, ImageUrlText)
        return "image_url" if in_text else "image_url/url", self.image_url.url


class ImageInput(_ImageSources):
    """An image: `data`, `image_id`, `url` or `image_url`."""

    image_id: str | None = Field(
        default=None,
        max_length=_MAX_NAME_CHARS,
        description="The id of an uploaded image.",
        examples=["img_0190c0de00007000800000000000abcd"],
    )
    detail: profiles.Detail | None = Field(
        default=None,
        description="Detail tier. With `image_id`, it must be that of the upload.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        sources = [self.data, self.image_id, self.url, self.image_url]
        if len(sources) - sources.count(None) != 1:
            raise ValueError(
                "This must have exactly one of `data`, `image_id`, `url` and `image_url`."
            )
        return self

    @property
    def requested_detail(self) -> profiles.Detail | None:
        """The detail tier of this image, None without one of its own."""
        inner = self.image_url.detail if self.image_url is not None else None
        return self.detail or (None if inner == "auto" else inner)


class SubmissionFields(RequestModel):
    """The fields of all submissions."""

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
                f"There is no such model; this must be `{limits.model}`.",
                code="model_not_found",
            )
        return value


class JobFields(SubmissionFields):
    """The fields of a job, in JSON and in a form."""

    question: _Question = Field(
        description="The question about the images.", examples=["How many pelicans are there?"]
    )

    @property
    def requested(self) -> tuple[str, ...]:
        """The one question."""
        return (self.question,)


class GroupFields(SubmissionFields):
    """The fields of a group, in JSON and in a form."""

    questions: Annotated[list[_Question], Field(min_length=1, max_length=MAX_QUESTIONS)] = Field(
        description="Questions about the same images, each a job of its own.",
        examples=[["How many pelicans are there?", "Which of them fly?"]],
    )

    @property
    def requested(self) -> tuple[str, ...]:
        """The questions."""
        return tuple(self.questions)


class _WithImages(RequestModel):
    """Images in JSON."""

    images: Annotated[list[ImageInput], Field(min_length=1, max_length=_MAX_IMAGES)]

    @field_validator("images", mode="before")
    @classmethod
    def _few_enough(cls, value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401 - untrusted input
        limits: RequestLimits | None = info.context
        if limits and isinstance(value, list) and len(value) > limits.images:
            raise ValueError(
                f"This must have at most {limits.images} images; it has {len(value):,}."
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


class ImageUpload(_ImageSources):
    """An image as JSON: a data URL in `data`, `url` or `image_url`."""

    @model_validator(mode="after")
    def _one_file(self) -> Self:
        sources = [self.data, self.url, self.image_url]
        if len(sources) - sources.count(None) != 1:
            raise ValueError("This must have exactly one of `data`, `url` and `image_url`.")
        if self.address is not None and not fields.is_data_url(self.address[1]):
            raise ValueError(
                "An upload must have the file itself, as a data URL in `data`; jobs fetch URLs."
            )
        return self

    @property
    def file(self) -> fields.LongText:
        """The data URL."""
        return self.data or (self.address[1] if self.address is not None else "")


class ImageForm(RequestModel):
    """An image as a form: one file, called `image` or `file`."""

    image: Annotated[bytes, WithJsonSchema({"type": "string", "contentMediaType": "image/*"})]


def unknown(place: tuple[str | int, ...]) -> tuple[str, str]:
    """Return the message and the code for an unknown field."""
    name, code = str(place[-1]), errors.Fault.code
    if place == ("questions",):
        return "To ask several questions about the same images, send them to POST /v1/groups.", code
    if len(place) == 1 and name in _IMAGE_NAMES:
        return "Images belong in the list `images`, in a form in files called `image`.", code
    if len(place) == 1 and name in JobOptions.model_fields:
        return f"`{name}` belongs inside `options`.", code
    return "There is no such field.", code
