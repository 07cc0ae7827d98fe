"""The request of a chat completion: fields that are served, ignored, and refused by name."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from api.openai.options import EXTRA, Effort, ServiceTier, Whole
from api.schemas import fields
from api.schemas.requests import RequestLimits, RequestModel

_MAX_STOPS: Final = 4
_MAX_STOP_CHARS: Final = 200
_MAX_NAME_CHARS: Final = 255
_SEEDS: Final = 2**31


def _not_served(*accepted: object, reason: str = "") -> BeforeValidator:
    """Return the validator of a field that is not served: only null and values that change nothing pass."""
    sentence = " ".join(filter(None, ["This is not supported.", reason]))

    def check(value: Any) -> None:  # noqa: ANN401 - untrusted input
        # 0 and false are equal in Python, and mean the same here.
        if value is not None and value not in accepted:
            raise fields.InvalidValue(sentence, code="unsupported_parameter")

    return BeforeValidator(check)


def _ignore(_value: Any) -> None:  # noqa: ANN401 - untrusted input
    """Accept any value."""


def _listed(value: object) -> object:
    """Return a single text as a list: the faults of a union would have the places of its members."""
    return [value] if isinstance(value, str) else value


Ignored = Annotated[Any, BeforeValidator(_ignore)]
_Stop = Annotated[fields.Text, Field(min_length=1, max_length=_MAX_STOP_CHARS)]
_Stops = Annotated[list[_Stop], Field(max_length=_MAX_STOPS)]


class JsonSchemaFormat(RequestModel):
    """The JSON Schema of an answer."""

    name: str = Field(max_length=_MAX_NAME_CHARS)
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = Field(
        default=None, description="Ignored: the engine's grammar always enforces the schema."
    )


class ResponseFormat(RequestModel):
    """The format of the answer."""

    type: Literal["text", "json_schema", "json_object"]
    json_schema: JsonSchemaFormat | None = None


class StreamOptions(RequestModel):
    """What a stream has besides the answer."""

    include_usage: bool | None = None
    include_obfuscation: Ignored = None


class CompletionRequest(RequestModel):
    """A conversation, and how to answer it. Fields without a description are accepted and ignored, or refused."""

    messages: list[Any] = Field(
        min_length=1,
        description="Messages with the roles `system` or `developer`, `user` and `assistant`. Their content is a text "
        "or parts of the types `text` and `image_url`.",
    )
    model: str | None = Field(
        default=None, max_length=_MAX_NAME_CHARS, description="Default: the served model."
    )
    stream: bool | None = Field(default=None, description="Whether to stream chunks.")
    stream_options: StreamOptions | None = None
    max_completion_tokens: Whole | None = Field(
        default=None,
        ge=1,
        description="Maximum tokens of the reasoning and the answer; at most the model's maximum applies.",
    )
    max_tokens: Whole | None = Field(
        default=None, ge=1, description="The earlier name of `max_completion_tokens`."
    )
    temperature: float | None = None
    top_p: float | None = None
    seed: Whole | None = Field(
        default=None, ge=-(2**63), lt=2**63, description="Best effort; taken modulo 2³¹."
    )
    stop: Annotated[
        _Stops | None, BeforeValidator(_listed, json_schema_input_type=_Stop | _Stops | None)
    ] = Field(default=None, description="Up to 4 texts before which the answer ends.")
    response_format: ResponseFormat | None = None
    reasoning_effort: Effort | None = Field(
        default=None, description="The size of the token budget, unless it is given."
    )
    metadata: fields.Metadata | None = None
    store: bool | None = Field(
        default=None,
        description="`false` removes the conversation and the answer after the response.",
    )
    service_tier: ServiceTier | None = Field(
        default=None, description="`flex` is the priority `low`; others have no effect."
    )
    options: Any = Field(
        default=None,
        description="Options that OpenAI has no name for, through `extra_body`: "
        + ", ".join(f"`{name}`" for name in sorted(EXTRA))
        + ".",
    )

    user: Ignored = None
    safety_identifier: Ignored = None
    prediction: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_retention: Ignored = None
    prompt_cache_options: Ignored = None
    verbosity: Ignored = None
    parallel_tool_calls: Ignored = None

    n: Annotated[None, _not_served(1, reason="There is one choice.")] = None
    tools: Annotated[None, _not_served([])] = None
    tool_choice: Annotated[None, _not_served("none", "auto")] = None
    functions: Annotated[None, _not_served([])] = None
    function_call: Annotated[None, _not_served("none", "auto")] = None
    audio: Annotated[None, _not_served()] = None
    modalities: Annotated[None, _not_served(["text"], [])] = None
    logprobs: Annotated[None, _not_served(False)] = None
    top_logprobs: Annotated[None, _not_served(0)] = None
    logit_bias: Annotated[None, _not_served({})] = None
    frequency_penalty: Annotated[None, _not_served(0)] = None
    presence_penalty: Annotated[None, _not_served(0)] = None
    web_search_options: Annotated[None, _not_served()] = None
    moderation: Annotated[None, _not_served()] = None

    @field_validator("model")
    @classmethod
    def _served(cls, value: str | None, info: ValidationInfo) -> str | None:
        limits: RequestLimits | None = info.context
        if limits and value not in (None, limits.model):
            raise fields.InvalidValue(
                f"There is no such model; this must be `{limits.model}`.", code="model_not_found"
            )
        return value

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts before which the answer ends."""
        return tuple(self.stop or ())

    @property
    def flexible(self) -> bool:
        """Whether the caller accepts that the job starts later than others."""
        return self.service_tier == "flex"

    @property
    def job_seed(self) -> int | None:
        """The seed as jobs have it."""
        return None if self.seed is None else self.seed % _SEEDS
