"""Errors and health in responses. :mod:`api.errors` writes the errors; these models only describe them."""

from typing import Literal

from pydantic import Field

from api.schemas.parts import ResponseModel


class ProblemFault(ResponseModel):
    """One fault of the request."""

    detail: str
    code: str
    pointer: str | None = Field(default=None, description="JSON pointer into the body (RFC 6901).")
    parameter: str | None = Field(
        default=None, description="Name of the query parameter or header."
    )


class OpenAIError(ResponseModel):
    """The error, as OpenAI's clients read it."""

    message: str
    type: Literal["invalid_request_error", "server_error"]
    param: str | None
    code: str = Field(description="Stable code for programs.")


class Problem(ResponseModel):
    """The body of every error: RFC 9457's members, and OpenAI's `error` object."""

    type: str = Field(examples=["/problems/invalid-api-key"])
    title: str
    status: int
    detail: str
    instance: str | None = Field(
        default=None,
        description="The path; absent if the request was refused before it was routed.",
    )
    request_id: str = Field(description="Also in the `x-request-id` header and in the log.")
    errors: list[ProblemFault] = Field(description="Every fault of the request.")
    error: OpenAIError


class Health(ResponseModel):
    """The health of the service and of what it needs."""

    status: Literal["ok", "degraded", "unavailable"]
    checks: dict[str, Literal["ok", "degraded", "unavailable"]]
    reasons: dict[str, str] = Field(
        description="Why a check is not `ok`, as a sentence, where the check knows."
    )
    notes: list[str] = Field(description="What else to know, such as a pause of the queue.")
