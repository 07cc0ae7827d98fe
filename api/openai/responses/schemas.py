"""Response objects and their lists in the OpenAPI document, and the parameters of their routes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from api.schemas import cursors
from api.schemas.parameters import ClientQuery, GroupHeaders
from api.schemas.parts import ResponseModel

_Include = Annotated[list[Annotated[str, Field(max_length=255)]], Field(max_length=64)]
IMAGE_URLS = "message.input_image.image_url"
_SAME = "The same as `include[]`, as OpenAI's reference writes it."


class ResponseFault(ResponseModel):
    """Why a response failed."""

    code: str
    message: str
    type: str = Field(description="The code of the native API, which may be more specific.")
    param: str | None


class InputTokensDetails(ResponseModel):
    """Parts of the input tokens."""

    cached_tokens: int
    cache_write_tokens: int


class OutputTokensDetails(ResponseModel):
    """Parts of the output tokens."""

    reasoning_tokens: int


class ResponseUsage(ResponseModel):
    """Token counts of a response."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ResponseObject(ResponseModel):
    """OpenAI's Response object: a job. `resp_…` and `job_…` with the same digits name the same job."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None
    status: Literal["queued", "in_progress", "completed", "failed", "incomplete", "cancelled"]
    background: bool
    model: str
    error: ResponseFault | None
    incomplete_details: dict[str, str] | None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    previous_response_id: str | None
    parallel_tool_calls: bool
    tool_choice: str
    tools: list[dict[str, Any]]
    temperature: float | None
    top_p: float | None
    truncation: str
    service_tier: str
    store: bool
    reasoning: dict[str, Any]
    text: dict[str, Any]
    user: str | None
    output: list[dict[str, Any]] = Field(
        description="A `reasoning` item for each sample of each attempt, with the trace in `content`; then, once the "
        "answer is settled, a `message`. With `text.format` an answer that is not whole has no message."
    )
    usage: ResponseUsage | None


class ResponseDeleted(ResponseModel):
    """The content of the response is deleted."""

    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True


class InputItemList(ResponseModel):
    """A page of the messages that were sent."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


class InputTokens(ResponseModel):
    """How many tokens an input takes: an upper bound, because only engines have the tokenizer."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int


class RetrieveQuery(ClientQuery):
    """How a response is shown."""

    include: _Include = Field(default=[], alias="include[]")
    include_too: _Include = Field(default=[], alias="include", description=_SAME)
    stream: bool = Field(default=False, description="The typed events, live or replayed.")
    starting_after: int = Field(
        default=-1, ge=-1, le=2**63 - 1, description="Only events with larger numbers."
    )
    include_obfuscation: str | None = Field(default=None, description="Has no effect.")


class InputItemsQuery(ClientQuery):
    """A page of the messages."""

    after: Annotated[str, cursors.like(r"msg_[0-9a-f]{32}_in_[0-9]{1,4}")] | None = Field(
        default=None, description=cursors.DESCRIPTION
    )
    limit: int = Field(default=20, ge=1, le=100)
    order: Literal["asc", "desc"] = "desc"
    include: _Include = Field(
        default=[], alias="include[]", description=f"`{IMAGE_URLS}` shows the URLs of images."
    )
    include_too: _Include = Field(default=[], alias="include", description=_SAME)

    @property
    def image_urls(self) -> bool:
        """Whether to show the URLs of images."""
        return IMAGE_URLS in (*self.include, *self.include_too)


class CreateHeaders(GroupHeaders):
    """The headers of a request for a response."""
