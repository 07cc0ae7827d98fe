"""What callers send."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from api.schemas import words
from jobs import errors, profiles

#: Options of later versions: named, so that the refusal is a precise one.
_LATER = ("samples", "answer_format", "webhook")
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*([0-9]{1,6})(?=$|[,;\s])", re.ASCII | re.IGNORECASE)
MAX_WAIT_SECONDS = 60


@dataclass(frozen=True)
class Limits:
    """What this installation takes: the context in which :class:`JobRequest` is checked."""

    model: str
    question_chars: int
    output_tokens: int
    images: int


class _Sent(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class Guards(_Sent):
    """Which guards watch the trace. One that is not named is as the installation has it."""

    loop: bool | None = Field(
        default=None, description="Stops an endless loop; the answer is then asked for."
    )
    budget: bool | None = Field(
        default=None,
        description="Keeps 80 tokens of `max_output_tokens` (from 256 on) for an answer when the reasoning uses up "
        "the others; ends a final answer that does not come to its end.",
    )
    language: bool | None = Field(
        default=None,
        description="Asks again for an answer in another script than the question's, when the reasoning drifted there.",
    )


class Options(_Sent):
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
        description="Longest answer with its reasoning. Default: the model's, or what the images and the "
        "question leave of its context.",
    )
    temperature: float | None = Field(default=None, ge=0, le=2, description="0 is greedy.")
    top_p: float | None = Field(default=None, gt=0, le=1, description="Nucleus sampling.")
    seed: int | None = Field(
        default=None, ge=0, le=2**31 - 1, description="Best effort; no effect on a CPU engine."
    )
    priority: Literal["high", "normal", "low"] | None = Field(
        default=None, description="Default: `normal`."
    )
    deadline_seconds: int | None = Field(
        default=None,
        ge=1,
        le=words.MAX_DEADLINE_SECONDS,
        description="The job fails with `deadline_exceeded` so long after its submission.",
    )
    max_attempts: int | None = Field(
        default=None, ge=1, le=20, description="Engine faults after which the job fails."
    )
    guards: Guards | None = Field(default=None, description="Guards, on or off.")
    metadata: words.Metadata | None = Field(
        default=None,
        description="Up to 16 pairs of text to find the job by. Keys: 1 to 64 characters; values: up to 512.",
        examples=[{"case": "42"}],
    )

    @field_validator("max_output_tokens")
    @classmethod
    def _within_the_model(cls, value: int | None, info: ValidationInfo) -> int | None:
        limits: Limits | None = info.context
        if limits and value is not None and value > limits.output_tokens:
            raise ValueError(f"This model gives at most {limits.output_tokens} tokens.")
        return value


class ImageInput(_Sent):
    """One picture: `data` or `image_id`."""

    data: str | None = Field(
        default=None,
        description="The image file as a data URL.",
        examples=["data:image/png;base64,iVBORw0KGgo…"],
    )
    image_id: str | None = Field(
        default=None,
        description="An image that was uploaded before.",
        examples=["img_0190c0de00007000800000000000abcd"],
    )
    url: str | None = Field(default=None, description="Not supported yet: 422.")
    detail: profiles.Detail | None = Field(
        default=None,
        description="Detail tier. With `image_id` it has to be the one of the upload.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.url is not None:
            raise words.Wrong(
                "Image URLs are not supported: send the file, a data URL or an image id.",
                code="unsupported_parameter",
            )
        if (self.data is None) == (self.image_id is None):
            raise ValueError("This has to have exactly one of `data` and `image_id`.")
        return self


class JobFields(_Sent):
    """What both forms of a job have."""

    question: words.Question = Field(
        description="What to find out.", examples=["How many pelicans are there?"]
    )
    model: str | None = Field(default=None, description="Default: the served model.")
    options: Options = Field(default=Options(), description="An object; JSON text in a form.")

    @field_validator("question")
    @classmethod
    def _short_enough(cls, value: str, info: ValidationInfo) -> str:
        limits: Limits | None = info.context
        if limits and len(value) > limits.question_chars:
            raise ValueError(f"This may have at most {limits.question_chars} characters.")
        return value

    @field_validator("model")
    @classmethod
    def _served(cls, value: str | None, info: ValidationInfo) -> str | None:
        limits: Limits | None = info.context
        if limits and value not in (None, limits.model):
            raise words.Wrong(
                f"There is no such model here; it has to be `{limits.model}`.",
                code="model_not_found",
            )
        return value


class JobRequest(JobFields):
    """A job as JSON."""

    images: Annotated[list[ImageInput], Field(min_length=1)]

    @field_validator("images")
    @classmethod
    def _few_enough(cls, value: list[ImageInput], info: ValidationInfo) -> list[ImageInput]:
        limits: Limits | None = info.context
        if limits and len(value) > limits.images:
            raise ValueError(f"There may be at most {limits.images} images.")
        return value


class JobForm(JobFields):
    """A job as a form: files in parts called `image`."""

    image: Annotated[
        list[Annotated[bytes, WithJsonSchema({"type": "string", "contentMediaType": "image/*"})]],
        Field(min_length=1, description="One part for each image, in order."),
    ]


class ImageUpload(_Sent):
    """An image as JSON."""

    data: str = Field(description="The image file as a data URL.")


class ImageForm(_Sent):
    """An image as a form: one file, called `image` or `file`."""

    image: Annotated[bytes, WithJsonSchema({"type": "string", "contentMediaType": "image/*"})]


class Named(BaseModel):
    """Values of the path, the query or headers: always text."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class JobPath(Named):
    """Which job."""

    job_id: str = Field(description="`job_` and 32 hex digits.")


class ImagePath(Named):
    """Which image."""

    image_id: str = Field(description="`img_` and 32 hex digits.")


class ModelPath(Named):
    """Which model."""

    model_id: str = Field(description="The model's name.")


class UploadQuery(Named):
    """How to keep an uploaded image."""

    detail: profiles.Detail = Field(
        default="standard", description="Detail tier; it is fixed when the image comes in."
    )


class TraceQuery(Named):
    """Which part of the trace."""

    attempt: int | None = Field(default=None, ge=1, description="Only this attempt's samples.")


class TimelineQuery(Named):
    """Which page of the timeline."""

    after: int = Field(
        default=0, ge=0, le=2**63 - 1, description="The `last_id` of the page before."
    )
    limit: int = Field(default=100, ge=1, le=1000, description="Entries on a page.")


class QueueQuery(Named):
    """Whose queue."""

    account: Annotated[words.Text, Field(max_length=255)] | None = Field(
        default=None, description="Of this account, by name or id. For operators, who see all."
    )


class WaitHeaders(Named):
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


class RerunHeaders(WaitHeaders):
    """How often a request may be sent, and how long it may take."""

    idempotency_key: words.IdempotencyKey | None = Field(
        default=None,
        alias="Idempotency-Key",
        description="A request that is sent again with the same key is not done again: the answer is the job "
        "that it made, with `Idempotent-Replayed: true`. 1 to 255 printable characters, quoted or not.",
        json_schema_extra={"example": "8e03978e-40d5-43e8-bc93-6894a57f9324"},
    )


class SubmitHeaders(RerunHeaders):
    """The same, and when to give up."""

    cancel_after: words.Duration | None = Field(
        default=None,
        alias="Cancel-After",
        description="A deadline such as `30s`, `10m`, `2h`; the earlier of it and `deadline_seconds` holds.",
        json_schema_extra={"example": "10m"},
    )


def unknown(place: tuple[str | int, ...]) -> tuple[str, str]:
    """Say what is wrong with a field that is not known, and under which code."""
    name = str(place[-1])
    if name in _LATER:
        return f"`{name}` is not supported by this version.", "unsupported_parameter"
    if len(place) == 1 and name in Options.model_fields:
        return f"`{name}` belongs inside `options`.", errors.Fault.code
    return "There is no such field.", errors.Fault.code
