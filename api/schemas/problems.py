"""Errors and health as callers get them. :mod:`api.errors` writes the former; this is their description."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.schemas.parts import ResponseModel


class ProblemFault(ResponseModel):
    """One thing wrong with the request."""

    detail: str
    code: str
    pointer: str | None = Field(default=None, description="JSON pointer into the body (RFC 6901).")
    parameter: str | None = Field(default=None, description="Name of a query parameter or header.")


class OpenAIError(ResponseModel):
    """The error as OpenAI's clients read it."""

    message: str
    type: Literal["invalid_request_error", "server_error"]
    param: str | None
    code: str = Field(description="Stable: meant for programs.")


class Problem(ResponseModel):
    """Every error answer: RFC 9457, and OpenAI's `error` object."""

    type: str = Field(examples=["/problems/invalid-api-key"])
    title: str
    status: int
    detail: str
    instance: str
    request_id: str = Field(
        description="Also in the `x-request-id` header; it finds the log lines."
    )
    errors: list[ProblemFault] = Field(description="All faults of a 422.")
    error: OpenAIError


class Health(ResponseModel):
    """Whether the service is there, and what it lacks."""

    status: Literal["ok", "degraded", "unavailable"]
    checks: dict[str, Literal["ok", "degraded", "unavailable"]]
